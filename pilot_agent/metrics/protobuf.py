"""Prometheus' protobuf exposition made into text 0.0.4: for an application that gives nothing else.

A stream of io.prometheus.client.MetricFamily messages, each behind its length (client_model's metrics.proto). What text
has no place for (exemplars, creation times, native buckets) is left out, as where OpenMetrics becomes text.
"""

import struct
from collections.abc import Iterator
from typing import Any

CONTENT_TYPE = "application/vnd.google.protobuf"
ACCEPT = f"{CONTENT_TYPE};proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.1"
LONGEST_FAMILY = 16 * 1024 * 1024
_TYPES = ("counter", "gauge", "summary", "untyped", "histogram", "histogram")
_LONGEST_VARINT = 10

Fields = dict[int, list[Any]]
"""What a message holds, by field number: integers, floats (of 8 bytes), or bytes, in their order."""


class FamilyDecoder:
    """Takes the stream in chunks of any size."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """The text of every family that is whole by now. Raises ValueError for what is no such stream."""
        data = self._held + chunk
        position, texts = 0, []
        while (found := _length(data, position)) is not None:
            size, start = found
            if size > LONGEST_FAMILY:
                raise ValueError(f"a protobuf message of {size} bytes")
            if start + size > len(data):
                break
            texts.append(family_text(fields_of(data[start : start + size])))
            position = start + size
        self._held = data[position:]
        return "".join(texts).encode(errors="replace")

    @property
    def is_between_families(self) -> bool:
        return not self._held


def _length(data: bytes, position: int) -> tuple[int, int] | None:
    """A varint at `position` and where it ends; None while it is not whole. Raises ValueError for one too long."""
    value = 0
    for index in range(_LONGEST_VARINT):
        if position + index >= len(data):
            return None
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("not a protobuf stream: a number of more than 10 bytes")


def fields_of(message: bytes) -> Fields:
    """The fields of one message, unknown ones too. Raises ValueError."""
    found: Fields = {}
    position = 0
    while position < len(message):
        key, position = _whole(_length(message, position))
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, position = _whole(_length(message, position))
        elif wire == 2:
            size, position = _whole(_length(message, position))
            value, position = message[position : position + size], position + size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            raw, position = message[position : position + size], position + size
            value = struct.unpack("<d" if wire == 1 else "<f", raw)[0] if len(raw) == size else None
        else:
            raise ValueError(f"not a protobuf stream: wire type {wire}")
        if position > len(message) or value is None:
            raise ValueError("not a protobuf stream: a field goes beyond its message")
        found.setdefault(number, []).append(value)
    return found


def _whole(found: tuple[int, int] | None) -> tuple[int, int]:
    if found is None:
        raise ValueError("not a protobuf stream: a number goes beyond its message")
    return found


def family_text(family: Fields) -> str:
    """HELP, TYPE and samples of one MetricFamily. Raises ValueError for one without a name, or a broken sample."""
    name = _text(family, 1)
    if not name:
        raise ValueError("a protobuf family without a name")
    number = family.get(3, [0])[-1]
    kind = _TYPES[number] if isinstance(number, int) and number < len(_TYPES) else "untyped"
    lines = [f"# HELP {name} {_escaped(_text(family, 2))}\n", f"# TYPE {name} {kind}\n"]
    for raw in family.get(4, []):
        lines += _samples(name, kind, fields_of(_bytes(raw)))
    return "".join(lines)


def _samples(name: str, kind: str, metric: Fields) -> Iterator[str]:
    pairs = [fields_of(_bytes(each)) for each in metric.get(1, [])]
    labels = [f'{_text(pair, 1)}="{_quoted(_text(pair, 2))}"' for pair in pairs]
    time = f" {_signed(metric[6][-1])}" if metric.get(6) else ""

    def line(suffix: str, value: Any, *more: str) -> str:
        given = ",".join([*labels, *more])
        series = f"{name}{suffix}{{{given}}}" if given else f"{name}{suffix}"
        return f"{series} {_number(value)}{time}\n"

    if kind in ("counter", "gauge", "untyped"):
        place = {"counter": 3, "gauge": 2, "untyped": 5}[kind]
        yield line("", _value(fields_of(_bytes(metric.get(place, [b""])[-1])), 1))
        return
    body = fields_of(_bytes(metric.get(4 if kind == "summary" else 7, [b""])[-1]))
    count = _value(body, 4) if kind == "histogram" and body.get(4) else _value(body, 1)
    if kind == "summary":
        for each in (fields_of(_bytes(raw)) for raw in body.get(3, [])):
            yield line("", _value(each, 2), f'quantile="{_number(_value(each, 1))}"')
    else:
        has_all = False
        for each in (fields_of(_bytes(raw)) for raw in body.get(3, [])):
            bound = _number(_value(each, 2))
            has_all = has_all or bound == "+Inf"
            yield line("_bucket", _value(each, 4) if each.get(4) else _value(each, 1), f'le="{bound}"')
        if not has_all:
            yield line("_bucket", count, 'le="+Inf"')
    yield line("_sum", _value(body, 2))
    yield line("_count", count)


def _value(fields: Fields, number: int) -> float:
    value = fields.get(number, [0])[-1]
    if isinstance(value, bytes):
        raise ValueError("not a protobuf exposition: bytes where a number belongs")
    return float(value) if not isinstance(value, int) else value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("not a protobuf exposition: a number where a message belongs")
    return value


def _text(fields: Fields, number: int) -> str:
    return _bytes(fields.get(number, [b""])[-1]).decode(errors="replace")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if value != value:  # noqa: PLR0124 - NaN
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
