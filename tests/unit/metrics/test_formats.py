import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.metrics.formats import (
    LINE_BYTES,
    OPENMETRICS,
    TEXT,
    Cutter,
    budget,
    is_openmetrics,
    is_text,
    negotiate,
    parse_timeout,
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("10", 10.0),
        ("0.5", 0.5),
        ("1e9", 3600.0),
        ("0", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("10s", None),
        ("", None),
    ],
)
def test_timeouts(header: str, expected: float | None) -> None:
    assert parse_timeout(header) == expected


@pytest.mark.parametrize(("timeout", "expected"), [(10.0, 9.5), (5.0, 4.5), (1.0, 0.9), (0.001, 0.0009)])
def test_the_answer_ends_before_the_scraper_gives_up(timeout: float, expected: float) -> None:
    assert budget(timeout) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (None, True),
        ("", True),
        ("text/plain", True),
        ("Text/Plain; version=0.0.4; charset=utf-8", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", False),
        ("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited", False),
        ("application/json", False),
        ("text/html", False),
    ],
)
def test_content_types(content_type: str | None, expected: bool) -> None:
    assert is_text(content_type) is expected


LINES = b"# HELP a A.\n# TYPE a counter\na 1\na 2\n# HELP b B.\n# TYPE b counter\nb 1\nb 22"


def chunks(text: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(st.integers(0, 200)))
def test_nothing_is_lost_however_it_comes(cuts: list[int]) -> None:
    cutter = Cutter()
    sent = b"".join(cutter.feed(chunk) for chunk in chunks(LINES, cuts))
    assert sent + cutter.rest(is_whole=True) == LINES + b"\n"


@given(st.lists(st.integers(0, 200)), st.integers(0, len(LINES)))
def test_a_stream_that_breaks_leaves_whole_lines(cuts: list[int], broken_at: int) -> None:
    cutter = Cutter()
    text = LINES[:broken_at]
    sent = b"".join(cutter.feed(chunk) for chunk in chunks(text, cuts))
    assert sent + cutter.rest(is_whole=False) == text[: text.rfind(b"\n") + 1]


def test_the_last_family_is_held_back_while_another_source_may_come() -> None:
    cutter = Cutter()
    assert cutter.feed(LINES) == b"# HELP a A.\n# TYPE a counter\na 1\na 2\n"
    assert cutter.feed(b"\n") == b""
    assert cutter.feed(b"# HELP c C.\n").endswith(b"b 1\nb 22\n")
    assert cutter.rest(is_whole=False) == b"# HELP c C.\n"


def test_envoys_families_have_no_help() -> None:
    assert Cutter().feed(b"# TYPE a counter\na 1\n# TYPE b counter\nb 1\n").endswith(b"a 1\n")


def test_headers_in_any_order_stay_together() -> None:
    cutter = Cutter()
    assert cutter.feed(b"# TYPE a counter\n# HELP a A.\na 1\n# TYPE b counter\n# UNIT b b\n# HELP b B.\n") == (
        b"# TYPE a counter\n# HELP a A.\na 1\n"
    )
    assert cutter.feed(b"b 1\n# EOF\n").endswith(b"# HELP b B.\nb 1\n")


def test_a_family_too_large_to_hold_is_cut_between_lines() -> None:
    family = b"# TYPE a counter\n" + b'a{x="1"} 1\n' * 10_000
    assert Cutter().feed(family + b"a{") == family


def test_a_line_without_end_is_an_error() -> None:
    cutter = Cutter()
    with pytest.raises(ValueError, match="a line of more than"):
        for _ in range(LINE_BYTES // 65536 + 1):
            assert cutter.feed(b"x" * 65536) == b""


def test_an_empty_body_has_no_newline() -> None:
    assert Cutter().rest(is_whole=True) == b""


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "of_all", "with_a_text_only_source"),
    [
        ("", TEXT, TEXT),
        ("*/*", TEXT, TEXT),
        ("*", TEXT, TEXT),
        ("/", TEXT, TEXT),
        ("text/plain", TEXT, TEXT),
        ("text/html, image/png", TEXT, TEXT),
        (PROMETHEUS, OPENMETRICS, TEXT),
        ("application/openmetrics-text;version=1.0.0", OPENMETRICS, OPENMETRICS),
        ("application/openmetrics-text; version=0.0.1", TEXT, TEXT),
        ("application/openmetrics-text; version=1.0.0; q=0.5, text/plain; q=0.7", TEXT, TEXT),
        ("application/openmetrics-text, text/plain;q=0", OPENMETRICS, OPENMETRICS),
        ("application/openmetrics-text;q=x, text/plain;q=0.1", TEXT, TEXT),
        ("application/*", OPENMETRICS, OPENMETRICS),
        ('APPLICATION/OpenMetrics-Text; Version="1.0.0", */*;q=0.1', OPENMETRICS, TEXT),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", TEXT, TEXT),
    ],
)
def test_one_format_is_negotiated(accept: str, of_all: object, with_a_text_only_source: object) -> None:
    assert negotiate(accept, has_text_only_source=False) is of_all
    assert negotiate(accept, has_text_only_source=True) is with_a_text_only_source


def test_openmetrics_is_known_by_its_type() -> None:
    assert is_openmetrics("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert not is_openmetrics("text/plain") and not is_openmetrics(None)
