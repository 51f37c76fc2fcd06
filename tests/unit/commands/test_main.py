"""The root command: help, exit codes, one line per error, and what is imported for which subcommand."""

import os
import signal
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from pilot_agent.commands.line import find, rearrange
from pilot_agent.commands.root import SUBCOMMANDS
from pilot_agent.commands.table import COMMANDS, Command
from tests.unit.commands.runner import COMMAND, answer, peer, run


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",), ("help",), ("--unknown",), ("--unknown", "-x=1")])
def test_help_goes_to_stdout_and_is_no_failure(args: tuple[str, ...]) -> None:
    ended = run(*args)
    assert (ended.code, ended.err) == (0, "")
    assert all(f"  {name} " in ended.out for name in SUBCOMMANDS)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_help_and_help_knows_every_subcommand(name: str) -> None:
    ended = run(name, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: pilot-agent {name} ")
    assert run("help", name) == ended


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
def test_every_flag_has_an_effect_and_tells_its_default(command: Command) -> None:
    flags = command.all_flags()
    assert [flag.name for flag in flags if not flag.effect or "(default" not in flag.help] == []
    for names in ([flag.name for flag in flags], [flag.attribute for flag in flags]):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
def test_every_command_has_a_summary_a_help_and_a_function(command: Command) -> None:
    assert command.summary.endswith(".") and command.help.strip()
    module, _, function = command.reference.partition(":")
    assert callable(getattr(import_module(module), function))


def test_hidden_commands_can_be_called_but_are_not_shown() -> None:
    for command in COMMANDS:
        assert find(command.name) is command
        assert (command.name in SUBCOMMANDS) is not command.is_hidden


@pytest.mark.parametrize(
    ("args", "code", "error"),
    [
        (("wiat",), 255, 'unknown command "wiat" for "pilot-agent"; did you mean "wait"?'),
        (("qqq",), 255, 'unknown command "qqq" for "pilot-agent"; see pilot-agent --help'),
        (("wait", "--nosuch"), 255, "unknown flag: --nosuch"),
        (("wait", "--timeoutSecond=1"), 255, 'unknown flag: --timeoutSecond; did you mean "--timeoutSeconds"?'),
        (("request", "--nosuch", "GET", "x"), 255, "unknown flag: --nosuch"),
        (("version", "--nosuch=1"), 255, "unknown flag: --nosuch"),
        (("version", "-x"), 255, "unknown flag: -x"),
        (("wait", "--url"), 255, "flag needs an argument: --url"),
        (("version", "--log_as_json=maybe"), 255, "invalid value for --log_as_json: 'maybe' is not a boolean"),
        (("version", "--log_output_level", "loud"), 255, "--log_output_level: unknown level 'loud'"),
        (("version", "--log_target", "/nosuch/dir/log"), 255, "--log_target /nosuch/dir/log: No such file"),
        (("version", "--vklog", "x"), 255, "invalid value for --vklog: 'x' is not an integer"),
        (("request", "GET"), 255, "missing argument 'PATH'"),
        (("request",), 255, "missing argument 'METHOD'"),
        (("wait", "now"), 255, "got unexpected extra argument (now)"),
        (("version", "a", "b"), 255, "got unexpected extra arguments (a b)"),
        (("proxy", "gateway"), 255, "invalid proxy Type: gateway; use one of sidecar, router"),
        (("help", "wiat"), 255, 'unknown command "wiat" for "pilot-agent"; did you mean "wait"?'),
    ],
)
def test_what_the_caller_got_wrong_is_one_line_and_255(args: tuple[str, ...], code: int, error: str) -> None:
    ended = run(*args)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"Error: {error}")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "arranged"),
    [
        (["version"], ["version"]),
        (["--nosuch", "version", "-s"], ["version", "-s"]),
        (["--nosuch=1", "version"], ["version"]),
        (["--nosuch", "value", "version"], ["version"]),
        (["--log_as_json", "wait", "--url", "x"], ["wait", "--log_as_json", "--url", "x"]),
        (["--log_target", "version", "wait"], ["wait", "--log_target", "version"]),
        (["--log_target=a", "--nosuch", "wait"], ["wait", "--log_target=a"]),
        (["help", "wait"], ["wait", "--help"]),
        (["help"], ["--help"]),
        (["--help"], ["--help"]),
        (["--nosuch", "wiat"], ["wiat"]),
        (["--", "version", "-s"], ["version", "-s"]),
        (["--no-log_as_json", "wait"], ["wait", "--no-log_as_json"]),
        ([], []),
    ],
)
def test_flags_before_the_subcommand(args: list[str], arranged: list[str]) -> None:
    assert rearrange(args) == arranged


@pytest.mark.parametrize("value", ["true", "1", "T"])
def test_boolean_flags_take_gos_true(value: str) -> None:
    assert run("version", f"--short={value}").out == run("version", "--short").out


def test_boolean_flags_take_gos_false() -> None:
    assert run("version", "--short", "--short=false").out == run("version").out


def test_a_bug_is_named_as_one_and_its_traceback_is_shown_on_request() -> None:
    script = (
        "import sys, pilot_agent.commands.main as m\n"
        "def boom(args): raise KeyError('x')\n"
        "m._run = boom\n"
        "sys.exit(m.main())"
    )
    command = [sys.executable, "-c", script]
    quiet = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (quiet.returncode, quiet.stdout) == (255, "")
    assert quiet.stderr == "Error: internal error: KeyError: 'x' (this is a bug; PILOT_AGENT_DEBUG=1 shows where)\n"
    loud = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PILOT_AGENT_DEBUG": "1"}, check=False
    )
    assert loud.stderr.startswith("Traceback (most recent call last):")
    assert loud.stderr.endswith(quiet.stderr)


def test_control_c_ends_with_130_and_no_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        process = subprocess.Popen([*COMMAND, "wait", "--url", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        connection, _ = listener.accept()  # it is past its imports
        with connection:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_that_went_away_is_no_error_message() -> None:
    def reply(_: bytes) -> bytes:
        return answer("200 OK", b"x" * 4_000_000)

    with peer(reply, (15004, 15000, 15021, 15020)) as made:
        process = subprocess.Popen(
            [*COMMAND, "request", "--debug-port", str(made.port), "GET", "/"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.stderr.close()
        assert (process.wait(timeout=30), err) == (128 + signal.SIGPIPE, b"")


def test_a_full_disk_is_named() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (255, "Error: can't write the output: No space left on device\n")


@pytest.mark.parametrize("args", [("version",), ("config",), ("bootstrap",), ("--help",), ("completion", "bash")])
def test_a_closed_stdout_is_no_failure(args: tuple[str, ...], tmp_path: Path) -> None:
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, *args]
    done = subprocess.run(closed, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_with_a_closed_stderr_its_lines_do_not_get_into_the_output(tmp_path: Path) -> None:
    closed = ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "bootstrap"]
    env = os.environ | {"PROXY_CONFIG": '{"nosuch": 1}'}
    done = subprocess.run(closed, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(b"{") and b"Warning" not in done.stdout


def test_a_letter_the_locale_lacks_is_no_failure(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*COMMAND, "config", "--domain", "köln"], cwd=tmp_path, env=env, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"k\\xf6ln" in done.stdout


HEAVY = {"aiohttp", "asyncio", "jinja2", "msgspec", "psutil", "watchfiles", "prometheus_client", "yaml", "logging"}


@pytest.mark.parametrize(
    ("args", "unwanted"),
    [
        (["version"], {"click", "pathlib", "http.client", "socket", "json", "difflib", "pilot_agent.settings"}),
        (["--help"], {"http.client", "socket", "json", "pilot_agent.settings", "pilot_agent.commands.wait"}),
        (
            ["wait", "--timeoutSeconds=0", "--url=http://127.0.0.1:1/"],
            {"click", "pathlib", "http.client", "json", "pilot_agent.settings", "pilot_agent.commands.version"},
        ),
        (["request", "GET"], {"click", "http.client", "socket", "pilot_agent.settings"}),
        (["proxy", "gateway"], {"click", "pilot_agent.commands.wait"}),
    ],
)
def test_a_subcommand_imports_only_what_it_needs(args: list[str], unwanted: set[str], tmp_path: Path) -> None:
    """A connection that is refused needs no HTTP, for example."""
    script = (
        f"import sys; sys.argv[1:] = {args!r}\n"
        "from pilot_agent.commands.main import main; main()\n"
        f"print(*sorted({HEAVY | unwanted!r} & sys.modules.keys()), file=open({str(tmp_path / 'out')!r}, 'w'))"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, check=True)
    assert (tmp_path / "out").read_text().split() == []
