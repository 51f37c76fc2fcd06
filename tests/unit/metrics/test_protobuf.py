"""Prometheus' protobuf exposition read as text: every type, chunks of any size, and what is no such stream."""

import math
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pilot_agent.metrics.protobuf import FamilyDecoder


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, value: float | int | bytes | str) -> bytes:
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value % 2**64)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def metric(body: bytes, labels: dict[str, str], more: bytes = b"") -> bytes:
    pairs = b"".join(field(1, field(1, name) + field(2, value)) for name, value in labels.items())
    return field(4, pairs + body + more)


def family(name: str, kind: int, metrics: Iterable[bytes], help_: str = "") -> bytes:
    message = field(1, name) + field(2, help_) + field(3, kind) + b"".join(metrics)
    return varint(len(message)) + message


def text_of(data: bytes) -> str:
    decoder = FamilyDecoder()
    text = decoder.feed(data).decode()
    assert decoder.is_between_families
    return text


COUNTER = family("hits_total", 0, [metric(field(3, field(1, 3.0)), {"code": "200"})], "Hits.")


def test_values_of_every_type() -> None:
    bucket = field(3, field(1, 2) + field(2, 0.5))
    histogram = field(1, 3) + field(2, 1.75) + bucket
    quantile = field(3, field(1, 0.5) + field(2, 9.0))
    data = (
        COUNTER
        + family("size", 1, [metric(field(2, field(1, math.inf)), {}), metric(field(2, b""), {"a": "b"})])
        + family("odd", 3, [metric(field(5, field(1, -1.5)), {}, field(6, -5))])
        + family("took", 4, [metric(field(7, histogram), {"a": "b"})])
        + family("spent", 2, [metric(field(4, field(1, 4) + field(2, 2.0) + quantile), {})])
    )
    assert text_of(data) == (
        "# HELP hits_total Hits.\n# TYPE hits_total counter\n"
        'hits_total{code="200"} 3.0\n'
        "# HELP size \n# TYPE size gauge\nsize +Inf\n"
        'size{a="b"} 0\n'
        "# HELP odd \n# TYPE odd untyped\nodd -1.5 -5\n"
        "# HELP took \n# TYPE took histogram\n"
        'took_bucket{a="b",le="0.5"} 2\ntook_bucket{a="b",le="+Inf"} 3\n'
        'took_sum{a="b"} 1.75\ntook_count{a="b"} 3\n'
        "# HELP spent \n# TYPE spent summary\n"
        'spent{quantile="0.5"} 9.0\nspent_sum 2.0\nspent_count 4\n'
    )


names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
values = st.floats(allow_nan=False)


@given(
    st.dictionaries(names, st.dictionaries(names, texts, max_size=2), min_size=1, max_size=4), texts, values, st.data()
)
def test_what_is_read_parses_back_to_what_was_sent(
    families: dict[str, dict[str, str]], help_: str, value: float, data: st.DataObject
) -> None:
    sent = b"".join(
        family(name, 1, [metric(field(2, field(1, value)), labels)], help_) for name, labels in families.items()
    )
    cut = data.draw(st.integers(0, len(sent)))
    decoder = FamilyDecoder()
    text = (decoder.feed(sent[:cut]) + decoder.feed(sent[cut:])).decode()
    found = {each.name: each for each in text_string_to_metric_families(text)}
    assert set(found) == set(families)
    for name, labels in families.items():
        (sample,) = found[name].samples
        assert (sample.labels, sample.value) == (labels, value)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 11,
        varint(2**40),
        varint(3) + b"\x0bab",
        varint(2) + field(1, "x")[:2],
        family("", 0, []),
        varint(len(field(1, 5))) + field(1, 5),
        family("x", 0, [field(4, 7)]),
        family("x", 1, [metric(field(2, field(1, b"x")), {})]),
    ],
)
def test_what_is_no_such_stream_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="protobuf"):
        FamilyDecoder().feed(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        FamilyDecoder().feed(data)
    except ValueError:
        pass


def test_half_a_family_is_not_between_families() -> None:
    decoder = FamilyDecoder()
    assert decoder.feed(COUNTER[:-1]) == b""
    assert not decoder.is_between_families
