"""Annotations about stats: what they add, in which order, and what is only a warning."""

from typing import Any

import pytest

from pilot_agent.bootstrap.stats import Intervals, histogram_buckets, inclusions, intervals
from tests.unit.bootstrap.documents import context
from tests.unit.settings.told import told

PREFIX = "sidecar.istio.io/"


def annotated(**annotations: str) -> dict[str, str]:
    return {f"{PREFIX}{name}": value for name, value in annotations.items()}


@pytest.mark.parametrize(
    ("flush", "eviction", "wanted"),
    [
        ("", "", (None, None)),
        ("1m30s", "", ("90s", None)),
        ("500ms", "", ("0.5s", None)),
        ("1ms", "", ("0.001s", None)),
        ("", "10s", (None, "10s")),
        ("10s", "20s", ("10s", "20s")),
        ("500ms", "1500ms", ("0.5s", "1.5s")),
    ],
)
def test_intervals_in_envoys_form(flush: str, eviction: str, wanted: tuple[str | None, str | None]) -> None:
    warnings: list[str] = []
    assert intervals(annotated(statsFlushInterval=flush, statsEvictionInterval=eviction), warnings) == Intervals(
        *wanted
    )
    assert warnings == []


@pytest.mark.parametrize(
    ("flush", "eviction", "wanted", "warning"),
    [
        ("often", "", (None, None), "statsFlushInterval is ignored: 'often' is not a duration"),
        ("5m", "", (None, None), "statsFlushInterval is ignored: 300s is not from 1ms to just under 300s"),
        ("0s", "", (None, None), "statsFlushInterval is ignored: 0s is not"),
        ("", "11s", (None, None), "statsEvictionInterval is ignored: 11s is not a multiple of the flush interval, 5s"),
        (
            "10s",
            "15s",
            ("10s", None),
            "statsEvictionInterval is ignored: 15s is not a multiple of the flush interval, 10s",
        ),
        ("", "0s", (None, None), "statsEvictionInterval is ignored: 0s"),
        ("", "5", (None, None), "statsEvictionInterval is ignored: '5' is not a duration"),
    ],
)
def test_intervals_that_are_left_out(
    flush: str, eviction: str, wanted: tuple[str | None, str | None], warning: str
) -> None:
    warnings: list[str] = []
    found = intervals(annotated(statsFlushInterval=flush, statsEvictionInterval=eviction), warnings)
    assert found == Intervals(*wanted)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"annotation {PREFIX}{warning}")


def test_buckets_are_sorted_by_prefix() -> None:
    warnings: list[str] = []
    said = told(annotations=annotated(statsHistogramBuckets='{"b": [1, 2], "a": [0.5]}'))
    assert histogram_buckets(said, warnings) == [
        {"match": {"prefix": "a"}, "buckets": [0.5]},
        {"match": {"prefix": "b"}, "buckets": [1, 2]},
    ]
    assert warnings == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting"),
        ("[1]", "write an object of lists of numbers"),
        ('{"a": 1}', "the bounds of 'a' are not a list of numbers"),
        ('{"a": []}', "the bounds of 'a' are not a list of numbers"),
        ('{"a": ["1"]}', "the bounds of 'a' are not a list of numbers"),
        ('{"a": [true]}', "the bounds of 'a' are not a list of numbers"),
        ('{"a": [NaN]}', "the bounds of 'a' are not a list of numbers"),
        ('{"a": [0, 1]}', "the bounds of 'a' are not a list of numbers above 0"),
        ('{"a": [2, 1]}', "the bounds of 'a' do not rise"),
        ('{"a": [1, 1]}', "the bounds of 'a' do not rise"),
    ],
)
def test_buckets_that_make_no_sense_are_a_warning(text: str, reason: str) -> None:
    warnings: list[str] = []
    assert histogram_buckets(told(annotations=annotated(statsHistogramBuckets=text)), warnings) == []
    assert len(warnings) == 1
    assert reason in warnings[0]


MATCHER: dict[str, Any] = {
    "proxyStatsMatcher": {
        "inclusionPrefixes": ["config"],
        "inclusionSuffixes": ["config"],
        "inclusionRegexps": ["config"],
    }
}


def test_an_annotation_replaces_the_configured_list_of_its_kind_only() -> None:
    said = told(MATCHER, annotations=annotated(statsInclusionPrefixes="one,two"))
    found = inclusions(said, [])
    assert found.prefixes[:2] == ["one", "two"]
    assert "config" not in found.prefixes
    assert (found.suffixes[0], found.regexps[0]) == ("config", "config")


def test_an_entry_with_the_pods_address_is_there_once_for_each_and_not_at_all_without_one() -> None:
    said = told(annotations=annotated(statsInclusionRegexps="a.{pod_ip}.b"))
    assert inclusions(said, ["10.0.0.1", "fd00::1"]).regexps[:2] == ["a.10.0.0.1.b", "a.fd00::1.b"]
    assert inclusions(said, []).regexps == [r"vhost\..*\.route\..*"]


def test_tags_of_the_annotation_follow_the_configured_ones() -> None:
    said = {"extraStatTags": ["b", "a"]}
    found = context(said, annotations=annotated(extraStatTags="c, a,,"))
    assert found["extraStatTags"] == ["b", "a", "c"]
