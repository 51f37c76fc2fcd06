"""Envoy's lines in the agent's format: those it writes so, those from before its bootstrap, and those of a crash."""

import json
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.envoy.output import LONGEST_LINE, READ_SIZE, Output
from pilot_agent.log import Log, LogOptions

OURS = b"2026-11-24T01:35:33.399254Z\twarning\tenvoy main external/x/server.cc:76\tthe text\tthread=24193"
OURS_ERROR = b"2026-11-24T01:35:33.399254Z\terror\tenvoy config x.cc:1\tlisteners are refused\tthread=1"
JSON = b'{"time":"2026-11-24T01:35:33.627351Z","level":"warning","scope":"envoy main","msg":"text","thread":"1"}'
JSON_ERROR = b'{"level":"critical","msg":"no \\"memory\\" left","scope":"envoy main"}'
EARLY = b"[2026-11-24 01:35:33.134][24177][warning][main] [source/server/server.cc:76] early text"
EARLY_ERROR = b"[2026-11-24 01:35:33.134][24177][critical][main] [source/server/server.cc:76] error initializing"
EARLY_BARE = b"[2026-11-24 01:35:33.134][24177][info][config] all dependencies initialized"
CRASH = b"Caught Segmentation fault, suspect faulting address 0x0"


class Run:
    """An output that writes into a log file, and what the log has."""

    def __init__(self, path: Path, *, as_json: bool = False) -> None:
        self.path = path
        self.log = Log(LogOptions(targets=(str(path),), as_json=as_json))
        self.output = Output(self.log)

    def close(self) -> None:
        for descriptor in self.log._descriptors:
            os.close(descriptor)

    @property
    def lines(self) -> list[str]:
        """Without the time of lines the agent wrote itself."""
        return [re.sub(r"^[\d-]+T[\d:.]+Z\t", "", line) for line in self.path.read_text(errors="replace").splitlines()]

    def fed(self, *parts: bytes) -> list[str]:
        for part in parts:
            self.output.feed(part)
        return self.lines


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path / "log")
    yield made
    made.close()


def test_lines_in_our_format_go_through_untouched(run: Run) -> None:
    for line in (OURS, OURS_ERROR, JSON, JSON_ERROR):
        run.output.feed(line + b"\n")
    assert run.path.read_bytes() == b"".join(line + b"\n" for line in (OURS, OURS_ERROR, JSON, JSON_ERROR))


@pytest.mark.parametrize(
    ("line", "written"),
    [
        (EARLY, "warn\tenvoy main\tearly text"),
        (EARLY_ERROR, "error\tenvoy main\terror initializing"),
        (EARLY_BARE, "info\tenvoy config\tall dependencies initialized"),
        (EARLY.replace(b"warning", b"trace"), "debug\tenvoy main\tearly text"),
        (EARLY.replace(b"warning", b"debug"), "debug\tenvoy main\tearly text"),
        (EARLY.replace(b"warning", b"error"), "error\tenvoy main\tearly text"),
        (EARLY.replace(b"warning", b"notheard"), "warn\tenvoy main\tearly text"),
        (CRASH, f"warn\tenvoy\t{CRASH.decode()}"),
        (b"{not our json", "warn\tenvoy\t{not our json"),
        (b"tab\tseparated\tby somebody else", "warn\tenvoy\ttab\tseparated\tby somebody else"),
        (b"trailing space \t\r", "warn\tenvoy\ttrailing space"),
        (b"bytes \xff\xfe", "warn\tenvoy\tbytes \ufffd\ufffd"),
    ],
)
def test_other_lines_are_brought_into_our_format(run: Run, line: bytes, written: str) -> None:
    assert run.fed(line + b"\n") == [written]


def test_other_lines_as_json(tmp_path: Path) -> None:
    run = Run(tmp_path / "log", as_json=True)
    run.output.feed(EARLY + b"\n" + JSON + b"\n" + CRASH + b"\n")
    first, second, third = (json.loads(line) for line in run.path.read_text().splitlines())
    assert {key: first[key] for key in ("level", "scope", "msg")} == {
        "level": "warn",
        "scope": "envoy main",
        "msg": "early text",
    }
    assert second == json.loads(JSON)
    assert (third["level"], third["scope"], third["msg"]) == ("warn", "envoy", CRASH.decode())
    run.close()


def test_empty_lines_are_dropped(run: Run) -> None:
    assert run.fed(b"\n\n  \n\t\n", b"") == []


def test_a_last_line_without_an_end_counts_at_the_end(run: Run) -> None:
    assert run.fed(b"one\ntw", b"o") == ["warn\tenvoy\tone"]
    assert run.fed(b"") == ["warn\tenvoy\tone", "warn\tenvoy\ttwo"]
    assert run.fed(b"") == ["warn\tenvoy\tone", "warn\tenvoy\ttwo"]


def test_a_line_that_never_ends_is_cut_and_not_collected(run: Run) -> None:
    portion = b"x" * (LONGEST_LINE // 2)
    assert run.fed(portion, portion) == []
    assert [len(line) for line in run.fed(b"yy")] == [len("warn\tenvoy\t") + LONGEST_LINE + 2]
    assert run.fed(b"z\n")[1:] == ["warn\tenvoy\tz"]


# The last words


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], ""),
        ([OURS, EARLY, JSON, CRASH], ""),
        ([OURS_ERROR], "listeners are refused"),
        ([OURS_ERROR.replace(b"error", b"critical")], "listeners are refused"),
        ([EARLY_ERROR], "error initializing"),
        ([EARLY_ERROR, OURS, OURS_ERROR], "error initializing; listeners are refused"),
        (
            [EARLY.replace(b"warning", b"error").replace(b"early", b"%d" % n) for n in range(5)],
            "2 text; 3 text; 4 text",
        ),
        ([EARLY_ERROR + b"x" * 600], "error initializing" + "x" * 482),
    ],
)
def test_the_last_words_are_the_last_three_errors(run: Run, lines: list[bytes], words: str) -> None:
    for line in lines:
        run.output.feed(line + b"\n")
    assert run.output.last_words == words


def test_the_last_words_of_a_json_log(run: Run) -> None:
    run.fed(JSON_ERROR.replace(b'\\"', b"") + b"\n")
    assert run.output.last_words == "no memory left"


# However the bytes come


class Lines(Log):
    """A log that keeps what is written, without a file."""

    def __init__(self) -> None:
        super().__init__(LogOptions(targets=()))
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.lines.append(re.sub(rb"^[\d-]+T[\d:.]+Z\t(?!.*thread=)", b"", line))


SAMPLES = [OURS, OURS_ERROR, JSON, JSON_ERROR, EARLY, EARLY_ERROR, EARLY_BARE, CRASH, b"", b" ", b"\xff{"]


@given(
    lines=st.lists(st.sampled_from(SAMPLES) | st.binary(max_size=30).filter(lambda raw: b"\n" not in raw), max_size=6),
    cuts=st.lists(st.integers(min_value=0, max_value=600), max_size=8),
    is_ended=st.booleans(),
)
def test_the_same_lines_come_out_however_they_were_cut(lines: list[bytes], cuts: list[int], is_ended: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if is_ended else b"")
    whole, cut = Lines(), Lines()
    outputs = Output(whole), Output(cut)
    if data:
        outputs[0].feed(data)
    edges = [0, *sorted(min(each, len(data)) for each in cuts), len(data)]
    for start, end in pairwise(edges):
        if end > start:
            outputs[1].feed(data[start:end])
    for output in outputs:
        output.feed(b"")
    assert cut.lines == whole.lines
    assert outputs[0].last_words == outputs[1].last_words
    assert len(whole.lines) == sum(bool(line.strip()) for line in lines)


# From a descriptor


def test_reading_takes_what_is_there(run: Run) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    assert run.output.read(reader) is False
    os.write(writer, EARLY + b"\nrest")
    assert run.output.read(reader) is True
    assert run.lines == ["warn\tenvoy main\tearly text"]
    assert run.output.read(reader) is False
    os.close(writer)
    assert run.output.read(reader) is False
    assert run.lines == ["warn\tenvoy main\tearly text", "warn\tenvoy\trest"]
    os.close(reader)


def test_one_reading_takes_one_portion(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "much"
    path.write_bytes(b"x" * 99 + b"\n" + b"y" * READ_SIZE)
    descriptor = os.open(path, os.O_RDONLY)
    assert run.output.read(descriptor) is True
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == READ_SIZE
    os.close(descriptor)
