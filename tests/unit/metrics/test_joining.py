"""What several sources sent becomes one exposition, valid by the official parsers, and only conflicts are lost."""

import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pilot_agent.metrics.account import SourceAccount
from pilot_agent.metrics.joining import Joiner, Learned, Origin
from tests.support.recorded_log import RecordedLog

OPEN = "open"
Source = tuple[str, Sequence[bytes]]
"""A format, `text` or `open`, and the blocks."""


def account(number: int) -> SourceAccount:
    return SourceAccount(f"source {number}", "application", label=f"s{number}")


class Joined:
    def __init__(self, *sources: Source, learned: Learned | None = None, to: str = "text", trusted: int = -1) -> None:
        self.log, self.learned = RecordedLog(), learned or Learned()
        self.accounts = [account(number) for number in range(len(sources))]
        joiner = Joiner(self.learned, self.log.scope, is_openmetrics=to == OPEN)
        self.blocks = [
            joiner.join(Origin(self.accounts[number], kind == OPEN, number == trusted), block)
            for number, (kind, blocks) in enumerate(sources)
            for block in blocks
        ]
        self.text = (b"".join(self.blocks) + joiner.rest() + (b"# EOF\n" if to == OPEN else b"")).decode()
        self.families: list[Metric] = list((parse_openmetrics if to == OPEN else parse_text)(self.text))

    @property
    def samples(self) -> list[tuple[str, tuple[tuple[str, str], ...], float]]:
        return [(s.name, tuple(sorted(s.labels.items())), s.value) for f in self.families for s in f.samples]

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def text(*blocks: bytes) -> Source:
    return "text", blocks


def opened(*blocks: bytes) -> Source:
    return OPEN, blocks


COUNTER = b"# HELP a_total A.\n# TYPE a_total counter\na_total%b 1\n"


def test_blocks_that_share_nothing_pass_untouched() -> None:
    blocks = [b"# HELP a A.\n# TYPE a gauge\na 1\n", b'# TYPE b histogram\nb_bucket{le="1"} 1\n', b"b_count 1\n"]
    joined = Joined(text(*blocks), text(b"# TYPE c gauge\nc 1\n"))
    assert joined.blocks[0] is blocks[0] and joined.blocks[2] is blocks[2]
    assert joined.learned == Learned()


@pytest.mark.parametrize("to", ["text", OPEN])
def test_a_family_of_two_sources_is_declared_once_and_from_then_on_stands_together(to: str) -> None:
    sources = [text(COUNTER % b'{x="1"}', b"# TYPE b gauge\nb 2\n"), text(COUNTER % b'{x="2"}')]
    first = Joined(*sources, to=to)
    assert len(re.findall("^# TYPE a", first.text, re.MULTILINE)) == 1
    again = Joined(*sources, to=to, learned=first.learned)
    name = "a" if to == OPEN else "a_total"
    at = again.lines.index(f"# TYPE {name} counter")
    assert again.lines[at + 1 : at + 3] == ['a_total{x="1"} 1', 'a_total{x="2"} 1']
    assert sum(each.dropped_families for each in again.accounts) == 0
    if to == "text":
        assert sorted(first.samples) == sorted(again.samples), "the scrape that finds out loses nothing either"
    else:
        assert first.accounts[1].dropped_families == 1, "OpenMetrics has no way to say it late"


def test_another_type_drops_the_later_family_and_is_warned_about_once() -> None:
    sources = [text(b"# TYPE a gauge\na 1\n"), text(b"# TYPE a counter\na 2\n", b"a 3\n", b"# TYPE b gauge\nb 4\n")]
    first = Joined(*sources)
    assert first.samples == [("a", (), 1.0), ("b", (), 4.0)]
    assert first.accounts[1].dropped_families == 1
    assert first.log.lines == ["warn metrics of source 1: a is left out: it is a counter here and a gauge before"]
    again = Joined(*sources, learned=first.learned)
    assert sorted(again.samples) == [("a", (), 1.0), ("b", (), 4.0)]
    assert again.accounts[1].dropped_families >= 1 and again.log.lines == []


def test_of_the_same_series_the_first_is_kept() -> None:
    learned = Learned({b"a"})
    joined = Joined(
        text(b'# TYPE a gauge\na{x="1",y="2"} 1\n'), text(b'# TYPE a gauge\na{y="2",x="1"} 2\na 3\n'), learned=learned
    )
    assert joined.samples == [("a", (("x", "1"), ("y", "2")), 1.0), ("a", (), 3.0)]
    assert joined.accounts[1].dropped_samples == 1


def test_a_family_twice_in_one_source_is_declared_once() -> None:
    block = b'# TYPE a gauge\na{x="1"} 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\na{x="2"} 2\n'
    joined = Joined(text(block))
    assert len(joined.samples) == 3 and joined.text.count("# TYPE a gauge") == 1
    again = Joined(text(block), learned=joined.learned)
    assert '# TYPE a gauge\na{x="1"} 1\na{x="2"} 2\n' in again.text


BAD = b"# TYPE good gauge\ngood 1\n%b\n# TYPE last gauge\nlast 2\n"


@pytest.mark.parametrize(
    ("line", "more", "bad"),
    [
        (b"<html><body>It works</body></html>", 0, 1),
        (b"\x00\xff\xfe", 0, 1),
        (b'a{x="\xff"} 1', 0, 1),
        (b"half_a_li", 0, 1),
        (b'half{x="1', 0, 1),
        (b'a{x="1" 1', 0, 1),
        (b'a{x="\\q"} 1', 0, 1),
        (b"a one", 0, 1),
        (b"a 0x10", 0, 1),
        (b"a 1 1.5", 0, 1),
        (b"1a 1", 0, 1),
        (b"# TYPE a colour\na 1", 1, 1),
        (b"# EOF", 0, 0),
        (b"# a comment", 0, 0),
        (b"", 0, 0),
        (b'\t a { x = "1" , } \t 1 ', 1, 0),
        (b"a NaN\nb +Inf\nc -Inf", 3, 0),
        (b"a 1 1700000000000", 1, 0),
        (b'a 1 # {trace_id="x"} 0.5', 1, 0),
        (b"a 1\r", 1, 0),
    ],
)
@pytest.mark.parametrize("to", ["text", OPEN])
def test_a_bad_line_costs_itself_only(line: bytes, more: int, bad: int, to: str) -> None:
    joined = Joined(text(BAD % line), text(b"# TYPE other gauge\nother 3\n"), to=to)
    assert {"good", "last", "other"} <= {name for name, _, _ in joined.samples}
    assert len(joined.samples) == 3 + more
    assert joined.accounts[0].dropped_lines == bad
    assert len(joined.log.lines) == bad
    assert not joined.accounts[0].is_garbled


def test_a_label_twice_is_seen_where_lines_are_read_one_by_one() -> None:
    joined = Joined(text(b"# TYPE a gauge\n" + b'a{x="1",x="2"} 1\na 2\n'), to=OPEN)
    assert joined.samples == [("a", (), 2.0)]


def test_crlf_is_taken_for_a_newline() -> None:
    joined = Joined(text(COUNTER.replace(b"\n", b"\r\n") % b""))
    assert joined.text == (COUNTER % b"").decode()


def test_an_answer_without_a_sample_is_a_failure() -> None:
    joined = Joined(text(b"<html>\n<h1>Hello</h1>\n"))
    source = joined.accounts[0]
    assert joined.text == "" and source.failures == 1 and source.is_garbled
    assert source.last_error == "no line of the answer is a sample"


OPENMETRICS = (
    b'# TYPE c counter\n# UNIT c seconds\n# HELP c A \\"c\\".\n'
    b'c_total{x="1"} 2.0 1700000000.5 # {trace_id="abc"} 1.0 1700000000.25\nc_created{x="1"} 1.0 1700000000.5\n'
    b'# TYPE i info\ni_info{v="1"} 1\n'
    b'# TYPE s stateset\ns{s="on"} 1\ns{s="off"} 0\n'
    b"# TYPE u unknown\nu 5\n"
    b'# TYPE g gaugehistogram\ng_bucket{le="+Inf"} 1\ng_gcount 1\ng_gsum 2\n'
    b'# TYPE h histogram\nh_bucket{le="1.0"} 1\nh_bucket{le="+Inf"} 2\nh_count 2\nh_sum 3\n'
    b"# EOF\n"
)


def test_openmetrics_becomes_text_with_the_same_names() -> None:
    joined = Joined(opened(OPENMETRICS), text(b"# TYPE other gauge\nother 3\n"))
    assert joined.lines[:3] == ['# HELP c_total A "c".', "# TYPE c_total counter", 'c_total{x="1"} 2.0 1700000000500']
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)", joined.text, re.MULTILINE))
    assert kinds == {
        "c_total": "counter", "i_info": "gauge", "s": "gauge", "u": "untyped", "h": "histogram", "other": "gauge"
    }  # fmt: skip
    assert "EOF" not in joined.text and "_created" not in joined.text
    assert ("g_gsum", (), 2.0) in joined.samples and ("other", (), 3.0) in joined.samples


def test_openmetrics_keeps_what_it_has() -> None:
    joined = Joined(opened(OPENMETRICS), opened(b"# TYPE z gauge\nz 1\n# EOF\nafter 1\n"), to=OPEN)
    assert '# {trace_id="abc"} 1.0 1700000000.25' in joined.text
    assert {family.name: family.type for family in joined.families} == {
        "c": "counter", "i": "info", "s": "stateset", "u": "unknown", "g": "gaugehistogram", "h": "histogram",
        "z": "gauge",
    }  # fmt: skip
    assert "after" not in joined.text


def test_text_becomes_openmetrics_without_renaming_a_sample() -> None:
    source = text(
        b"# TYPE a_total counter\na_total 1 1700000000123\n"
        b"# TYPE b counter\nb 2\n"
        b'# HELP h Say "h".\n# TYPE h histogram\nh_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_sum 3\nh_count 2\n'
        b'# TYPE broken histogram\nbroken_bucket{le="1"} 1\nbroken_count 1\nbroken_sum 1\n'
        b"# TYPE down_total counter\ndown_total -1\n"
        b'# TYPE q summary\nq{quantile="0.50"} 1\nq_sum 1\nq_count 1\n'
    )
    joined = Joined(source, to=OPEN)
    assert {family.name: family.type for family in joined.families} == {
        "a": "counter", "b": "unknown", "h": "histogram", "broken_bucket": "unknown", "broken_count": "unknown",
        "broken_sum": "unknown", "down_total": "unknown", "q": "summary",
    }  # fmt: skip
    assert "a_total 1 1700000000.123" in joined.lines
    assert 'h_bucket{le="1.0"} 1' in joined.lines and 'q{quantile="0.5"} 1' in joined.lines


@pytest.mark.parametrize("order", [1, -1])
def test_x_and_x_total_are_two_families_of_text_in_openmetrics_too(order: int) -> None:
    """Envoy has `upstream_rq` beside `upstream_rq_total`. Where the second is found late, it takes one scrape."""
    families = [b"# TYPE rq gauge\nrq 1\n", b"# TYPE rq_total counter\nrq_total 2\n"][::order]
    first = Joined(text(*families), to=OPEN)
    again = Joined(text(*families), to=OPEN, learned=first.learned)
    assert sorted(again.samples) == [("rq", (), 1.0), ("rq_total", (), 2.0)]
    assert again.accounts[0].dropped_families == 0


_NAMES = [b"a", b"b", b"c_total"]
_VALUES = [b"0", b"1", b"2.5", b"1e3"]
_LABELS = [b"", b'{x="1"}', b'{x="2"}', b'{x="a\\"\\\\\\n,} 1"}']


@st.composite
def families(draw: st.DrawFn, number: int) -> bytes:
    """One family of text, or the same in OpenMetrics where they do not differ; series are told apart by source."""
    name = draw(st.sampled_from(_NAMES)) if draw(st.booleans()) else b"own_%d_%d" % (number, draw(st.integers(0, 5)))
    kind = draw(st.sampled_from([b"gauge", b"histogram"])) if name != b"c_total" else b"counter"
    labels = draw(st.lists(st.sampled_from(_LABELS), unique=True, min_size=1, max_size=3))
    lines = [b"# HELP %b Of %d.\n" % (name, number)] if draw(st.booleans()) else []
    lines.append(b"# TYPE %b %b\n" % (name, kind))
    for chosen in labels:
        each = b'{source="%d",%b' % (number, chosen[1:] or b"}")
        if kind == b"histogram":
            some = each[:-1].rstrip(b",")
            lines += [b'%b_bucket%b,le="1.0"} 1\n' % (name, some), b'%b_bucket%b,le="+Inf"} 2\n' % (name, some)]
            lines += [b"%b_sum%b} 3\n%b_count%b} 2\n" % (name, some, name, some)]
        else:
            lines.append(b"%b%b %b\n" % (name, each.replace(b",}", b"}"), draw(st.sampled_from(_VALUES))))
    return b"".join(lines)


@st.composite
def exposition(draw: st.DrawFn, number: int) -> Source:
    found = draw(st.lists(families(number), max_size=5))
    once = {re.findall(rb"# TYPE (\S+)", each)[0]: each for each in found}
    whole = b"".join(once.values())
    lines = whole.splitlines(keepends=True)
    cuts = sorted(draw(st.lists(st.integers(0, len(once)), max_size=2)))
    parts = list(once.values())
    edges = [0, *cuts, len(parts)]
    blocks = [b"".join(parts[start:end]) for start, end in itertools.pairwise(edges)]
    assert b"".join(blocks) == b"".join(lines)
    return "text", [block for block in blocks if block]


def series(sources: Sequence[Source]) -> list[tuple[str, tuple[tuple[str, str], ...], float]]:
    whole = [b"".join(blocks).decode() for _, blocks in sources]
    found = [family for each in whole for family in parse_text(each)]
    return sorted((s.name, tuple(sorted(s.labels.items())), s.value) for family in found for s in family.samples)


def conflicting(sources: Sequence[Source]) -> set[bytes]:
    kinds: dict[bytes, set[bytes]] = {}
    for _, blocks in sources:
        for name, kind in re.findall(rb"# TYPE (\S+) (\S+)", b"".join(blocks)):
            kinds.setdefault(name, set()).add(kind)
    return {name for name, of in kinds.items() if len(of) > 1}


@given(st.tuples(exposition(0), exposition(1), exposition(2)), st.sampled_from(["text", OPEN]), st.integers(-1, 2))
def test_the_merge_of_valid_sources_is_valid_and_loses_only_conflicts(
    sources: tuple[Source, ...], to: str, trusted: int
) -> None:
    first = Joined(*sources, to=to, trusted=trusted)
    again = Joined(*sources, to=to, trusted=trusted, learned=first.learned)
    names = re.findall(r"^# TYPE (\S+)", first.text, re.MULTILINE)
    assert len(names) == len(set(names))
    lost = {name.decode() for name in conflicting(sources)}

    def kept(found: list[tuple[str, tuple[tuple[str, str], ...], float]]) -> Sequence[object]:
        return sorted(each for each in found if re.sub("_(bucket|sum|count)$", "", each[0]) not in lost)

    assert kept(again.samples) == kept(series(sources))
    if to == "text":
        assert kept(first.samples) == kept(series(sources))
    groups = [family.name for family in again.families if family.samples]
    assert len(groups) == len(set(groups)), "every family's samples stand together"
    if not lost:
        assert sum(each.dropped_families for each in again.accounts) == 0


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"# TYPE a gauge", b"a 1", b"# EOF", b"\r", b'a{b="'])))
def test_whatever_an_application_sends_the_answer_is_valid(lines: list[bytes]) -> None:
    block = b"\n".join(lines) + b"\n"
    for to in ("text", OPEN):
        for kind in ("text", OPEN):
            joined = Joined((kind, [block]), text(b"# TYPE other gauge\nother 3\n"), to=to)
            assert ("other", (), 3.0) in joined.samples
