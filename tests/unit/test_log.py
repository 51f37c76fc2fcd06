"""Log lines, exactly as Istio's: both formats, the order of keys, levels per scope, several targets."""

import json
import logging
import re
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.errors import SettingsError
from pilot_agent.log import SCOPES, Level, Log, LogOptions, parse_levels, timestamp

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


class Target:
    """A log into a file, and what was written to it."""

    def __init__(self, path: Path, **options: object) -> None:
        self.path = path
        self.log = Log(LogOptions(targets=(str(path),))._replace(**options))  # type: ignore[arg-type]

    @property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def line(self) -> str:
        """The one line that was written, without its time."""
        assert self.text.endswith("\n")
        (line,) = self.text.splitlines()
        return re.sub(TIME, "TIME", line)


@pytest.fixture
def target(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Target]:
    def make(**options: object) -> Target:
        made = Target(tmp_path / "log", **options)
        request.addfinalizer(lambda: close(made.log))
        return made

    return make


def close(log: Log) -> None:
    import os

    for descriptor in log._descriptors:
        if descriptor > 2:
            os.close(descriptor)


Make = Callable[..., Target]


def test_a_plain_line_of_the_default_scope_has_three_columns(target: Make) -> None:
    made = target()
    made.log.scope().info("Envoy is ready!")
    assert made.line == "TIME\tinfo\tEnvoy is ready!"


def test_a_plain_line_names_any_other_scope(target: Make) -> None:
    made = target()
    made.log.scope("xdsproxy").warn("upstream closed")
    assert made.line == "TIME\twarn\txdsproxy\tupstream closed"


def test_labels_are_one_column_of_pairs_and_lists_are_in_brackets(target: Make) -> None:
    made = target()
    made.log.scope().info("Proxy role", ips=["10.1.2.3", "fd00::5"], type="sidecar", ready=True, port=15020)
    assert made.line == "TIME\tinfo\tProxy role\tips=[10.1.2.3 fd00::5] type=sidecar ready=true port=15020"


def test_a_plain_message_stays_one_line(target: Make) -> None:
    made = target()
    made.log.scope().error("first\nsecond")
    assert made.line == "TIME\terror\tfirst\\nsecond"


def test_a_json_line_has_istios_keys_in_istios_order(target: Make) -> None:
    made = target(as_json=True, callers="ads", stacktrace_levels="ads:info")
    made.log.scope("ads").info("Proxy role", ips=["10.1.2.3"], type="sidecar")
    assert list(json.loads(made.line)) == ["level", "time", "scope", "caller", "msg", "ips", "type", "stack"]


def test_a_json_line_of_the_default_scope_is_exact(target: Make) -> None:
    made = target(as_json=True)
    made.log.scope().info("Proxy role", ips=["10.1.2.3"], n=1)
    assert made.line == '{"level":"info","time":"TIME","msg":"Proxy role","ips":["10.1.2.3"],"n":1}'


def test_the_time_is_utc_with_six_digits_and_z() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(1795412894.377631) == "2026-11-23T05:48:14.377631Z"


@pytest.mark.parametrize(
    ("levels", "scope", "written"),
    [
        ("", "default", ["info", "warn", "error"]),
        ("warn", "default", ["warn", "error"]),
        ("default:debug", "default", ["debug", "info", "warn", "error"]),
        ("default:debug", "ads", ["info", "warn", "error"]),
        ("ads:debug", "ads", ["debug", "info", "warn", "error"]),
        ("all:error", "ads", ["error"]),
        ("all:error,ads:debug", "ads", ["debug", "info", "warn", "error"]),
        ("ads:debug,all:error", "ads", ["debug", "info", "warn", "error"]),
        ("none", "default", []),
        ("", "grpc", []),
        ("grpc:error", "grpc", ["error"]),
        ("all:info", "grpc", ["info", "warn", "error"]),
        ("nosuchscope:debug", "default", ["info", "warn", "error"]),
    ],
)
def test_levels_are_by_scope(target: Make, levels: str, scope: str, written: list[str]) -> None:
    made = target(levels=levels)
    log = made.log.scope(scope)
    for write, name in ((log.debug, "debug"), (log.info, "info"), (log.warn, "warn"), (log.error, "error")):
        write(name)
        assert log.is_enabled(Level[name]) == (name in written)
    assert [line.rpartition("\t")[2] for line in made.text.splitlines()] == written


@pytest.mark.parametrize("option", ["levels", "stacktrace_levels"])
def test_an_unknown_level_is_an_error_that_names_the_known_ones(target: Make, option: str) -> None:
    with pytest.raises(SettingsError, match=r"unknown level 'loud' in 'ads:loud'; use one of debug, info, warn"):
        target(**{option: "ads:loud"})


def test_spaces_and_empty_entries_in_levels_are_nothing() -> None:
    assert parse_levels(" ads:info , ,warn,", "--x") == {"ads": Level.info, "default": Level.warn}


def test_every_scope_of_istio_is_known() -> None:
    assert len(SCOPES) == len(set(SCOPES)) == 19


@pytest.mark.parametrize("callers", ["ads", "all", "dns,ads"])
def test_the_caller_is_the_line_that_logged(target: Make, callers: str) -> None:
    made = target(callers=callers)
    made.log.scope("ads").info("here")
    assert re.fullmatch(r"TIME\tinfo\tads\tunit/test_log\.py:\d+\there", made.line)


def test_other_scopes_name_no_caller(target: Make) -> None:
    made = target(callers="dns")
    made.log.scope("ads").info("here")
    assert made.line == "TIME\tinfo\tads\there"


def test_a_stack_trace_follows_the_line_from_its_level_on(target: Make) -> None:
    made = target(stacktrace_levels="default:error")
    made.log.scope().warn("without")
    made.log.scope().error("with")
    first, second, *trace = made.text.splitlines()
    assert (first.endswith("\twithout"), second.endswith("\twith")) == (True, True)
    assert any("test_a_stack_trace_follows" in line for line in trace)


def test_every_target_gets_every_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = Log(LogOptions(targets=("stdout", "stderr", str(tmp_path / "a"), str(tmp_path / "b"))))
    log.scope().info("to all")
    close(log)
    out, err = capfd.readouterr()
    assert out == err == (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
    assert out.endswith("\tto all\n")


def test_a_target_is_appended_to(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    made = Target(tmp_path / "log")
    made.log.scope().info("after")
    close(made.log)
    assert [line.rpartition("\t")[2] for line in made.text.splitlines()] == ["before", "after"]


def test_a_target_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--log_target .*: Is a directory; give a writable path, stdout or stderr"):
        Log(LogOptions(targets=(str(tmp_path),)))


def test_a_line_that_cannot_be_written_is_counted_and_nothing_else() -> None:
    log = Log(LogOptions(targets=("/dev/full",)))
    log.scope().info("lost")
    close(log)
    assert log.lost_lines == 1


def test_records_of_libraries_come_out_as_our_lines(target: Make) -> None:
    made = target()
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        made.log.adopt_stdlib()
        logging.getLogger("asyncio").error("task %s", "died", exc_info=ValueError("why"))
        logging.getLogger("asyncio").info("chatter")
    finally:
        root.handlers[:] = before
    assert made.line == "TIME\terror\ttask died: ValueError('why')\tlogger=asyncio"


TEXT = st.text(st.characters(codec="utf-8"))
KEYS = st.text(string.ascii_lowercase, min_size=1).filter(
    lambda key: key not in {"level", "time", "scope", "caller", "msg", "stack", "message", "self"}
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary() | st.builds(Path, st.just("/x")),
    lambda inner: st.lists(inner) | st.sets(st.integers()) | st.dictionaries(TEXT, inner),
    max_leaves=5,
)


@given(message=TEXT, labels=st.dictionaries(KEYS, VALUES), scope=st.sampled_from(SCOPES))
def test_any_message_and_labels_give_exactly_one_json_line(
    tmp_path_factory: pytest.TempPathFactory, message: str, labels: dict[str, object], scope: str
) -> None:
    made = Target(tmp_path_factory.mktemp("log") / "log", as_json=True, levels="all:debug")
    try:
        made.log.scope(scope).info(message, **labels)
    finally:
        close(made.log)
    # Not splitlines(): U+2028 and the like end no line for a reader of bytes.
    assert made.text.count("\n") == 1
    assert made.text.endswith("\n")
    record = json.loads(made.text)
    assert record["msg"] == message
    assert labels.keys() <= record.keys()
