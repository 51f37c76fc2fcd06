"""The grammar of both text formats: is a block of lines valid as it is, and what families does it hold.

No I/O and no opinion on what sources share (that is `joining`). Samples stay bytes: nothing is computed with them.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

SUFFIXES = {
    b"counter": (b"_total", b"_created"),
    b"summary": (b"", b"_sum", b"_count", b"_created"),
    b"histogram": (b"_bucket", b"_sum", b"_count", b"_created"),
    b"gaugehistogram": (b"_bucket", b"_gsum", b"_gcount"),
    b"info": (b"_info",),
}
"""What a sample of an OpenMetrics family adds to its family's name; nothing for the kinds that are not here."""

_TEXT_SUFFIXES = {b"summary": (b"", b"_sum", b"_count"), b"histogram": (b"_bucket", b"_sum", b"_count", b"")}
_TEXT_KINDS = frozenset((b"counter", b"gauge", b"histogram", b"summary", b"untyped"))
_KINDS = frozenset(
    (b"counter", b"gauge", b"histogram", b"summary", b"unknown", b"gaugehistogram", b"info", b"stateset")
)

# Possessive throughout: a line either fits or does not, and a hostile one costs no more than its length.
_NAME = rb"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_VALUE = rb"[+-]?(?:[0-9]++(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]++)?|\.[0-9]++(?:[eE][+-]?[0-9]++)?|(?i:inf(?:inity)?|nan))"
_QUOTED = rb'"(?:[^"\\\n]++|\\[\\n"])*+"'
_LABEL = rb"[a-zA-Z_][a-zA-Z0-9_]*+"
_LABELS = rb"\{(?:%b=%b(?:,|(?=\})))*+\}" % (_LABEL, _QUOTED)
_LOOSE_LABELS = rb"\{[ \t]*+(?:%b[ \t]*+=[ \t]*+%b[ \t]*+(?:,[ \t]*+|(?=\})))*+\}" % (_LABEL, _QUOTED)
_SAMPLE_LINE = rb"%b(?:%b)? %b(?: -?[0-9]++)?\n" % (_NAME, _LABELS, _VALUE)
_HEADER_LINE = rb"# (?:TYPE %b (?:counter|gauge|histogram|summary|untyped)|HELP %b [^\n\r]*+)\n" % (_NAME, _NAME)

_TEXT = re.compile(rb"(?:%b|%b)*+" % (_SAMPLE_LINE, _HEADER_LINE))
_SAMPLE = re.compile(
    rb"[ \t]*+(%b)[ \t]*+(%b)?[ \t]*+(?<=[ \t}])(%b)(?:[ \t]++(%b))?[ \t]*+(?:# ?(%b %b(?: %b)?))?[ \t]*+"
    % (_NAME, _LOOSE_LABELS, _VALUE, _VALUE, _LABELS, _VALUE, _VALUE)
)
_HEADER = re.compile(rb"[ \t]*+#[ \t]++(HELP|TYPE|UNIT)[ \t]++(%b)(?:[ \t]++(.*))?" % _NAME)
_PAIR = re.compile(rb"(%b)[ \t]*+=[ \t]*+(%b)" % (_LABEL, _QUOTED))


class Sample(NamedTuple):
    """`labels`: with their braces, or nothing; `time`: as its format writes it; `exemplar`: what followed `# `."""

    name: bytes
    labels: bytes
    value: bytes
    time: bytes = b""
    exemplar: bytes = b""


@dataclass(slots=True)
class Family:
    """`kind`: a word of its format, nothing for samples that no TYPE stands before. `is_continued`: the family's
    beginning was in an earlier block."""

    name: bytes
    kind: bytes = b""
    help: bytes = b""
    unit: bytes = b""
    samples: list[Sample] = field(default_factory=list)
    is_declared: bool = False
    is_continued: bool = False


def is_valid_text(block: bytes) -> bool:
    """Whether every line is one of text 0.0.4, written as everybody writes it: 4 ns a byte.

    False only sends the block to `Reader`, which also takes what is written oddly.
    """
    return _TEXT.fullmatch(block) is not None and _is_utf8(block)


class Reader:
    """Takes one source's blocks apart, each of whole lines. Lines that are none are left out and counted."""

    def __init__(self, *, is_openmetrics: bool) -> None:
        self._is_openmetrics = is_openmetrics
        self._current: Family | None = None
        self._has_ended = False
        self.bad_lines = 0

    def goes_on_with(self, name: bytes, kind: bytes) -> None:
        """A block was not read here; its last family was this one."""
        self._current = Family(name, kind, is_declared=True)

    @property
    def is_in_a_family(self) -> bool:
        """Whether samples without a header may come, because their header is known."""
        return self._current is not None and self._current.is_declared

    def read(self, block: bytes) -> list[Family]:
        found: list[Family] = []
        if (before := self._current) is not None:
            self._current = Family(before.name, before.kind, is_declared=before.is_declared, is_continued=True)
        for raw in block.split(b"\n"):
            line = raw.rstrip(b"\r")
            if self._has_ended or not line.strip(b" \t"):
                continue
            if (family := self._line(line)) is not None and (not found or found[-1] is not family):
                found.append(family)
        return found

    def _line(self, line: bytes) -> Family | None:
        """The family that `line` belongs to; None for a comment and for what is no line."""
        if line.lstrip(b" \t").startswith(b"#"):
            return self._comment(line)
        sample = self._sample(line)
        if sample is None:
            self.bad_lines += 1
            return None
        if self._current is None or sample.name not in self._names(self._current):
            self._current = Family(sample.name)
        self._current.samples.append(sample)
        return self._current

    def _comment(self, line: bytes) -> Family | None:
        if self._is_openmetrics and line == b"# EOF":
            self._has_ended = True
            return None
        header = _HEADER.fullmatch(line)
        if header is None or not _is_utf8(line):
            return None
        word, name, text = header[1], header[2], header[3] or b""
        family = self._current
        if family is None or family.name != name or family.samples or family.is_continued:
            family = self._current = Family(name)
        family.is_declared = True
        if word == b"HELP":
            family.help = family.help or text
        elif word == b"UNIT":
            family.unit = family.unit or text.strip()
        elif (kind := text.strip()) in (_KINDS if self._is_openmetrics else _TEXT_KINDS):
            family.kind = family.kind or kind
        else:
            self.bad_lines += 1
        return family

    def _sample(self, line: bytes) -> Sample | None:
        match = _SAMPLE.fullmatch(line)
        if match is None or not _is_utf8(line):
            return None
        name, labels, value, time, exemplar = match.groups(b"")
        if time and not self._is_openmetrics and not time.lstrip(b"-").isdigit():
            return None
        if labels:
            pairs = _PAIR.findall(labels)
            if len({pair[0] for pair in pairs}) < len(pairs):
                return None
            labels = b"{%b}" % b",".join(b"%b=%b" % pair for pair in pairs) if pairs else b""
        return Sample(name, labels, value, time, exemplar if self._is_openmetrics else b"")

    def _names(self, family: Family) -> tuple[bytes, ...]:
        suffixes = (SUFFIXES if self._is_openmetrics else _TEXT_SUFFIXES).get(family.kind, (b"",))
        return tuple(family.name + suffix for suffix in suffixes)


def series_key(sample: Sample) -> tuple[bytes, frozenset[tuple[bytes, bytes]]]:
    """The same for the same series, in whatever order its labels stand."""
    return sample.name, frozenset(_PAIR.findall(sample.labels))


def headers_of(block: bytes) -> list[tuple[bytes, bytes]]:
    """Name and kind of every family that valid text declares, in their order; kind is empty for HELP without TYPE."""
    found: list[tuple[bytes, bytes]] = []
    for piece in (b"\n" + block).split(b"\n# ")[1:]:
        word, _, rest = piece[: piece.find(b"\n")].partition(b" ")
        name, _, kind = rest.partition(b" ")
        kind = kind if word == b"TYPE" else b""
        if found and found[-1][0] == name:
            # The line before was this family's other header; should it have samples already, it is there twice.
            if found[-1][1] and kind:
                found.append((name, kind))
            else:
                found[-1] = (name, found[-1][1] or kind)
        else:
            found.append((name, kind))
    return found


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
