"""Protobuf messages of a few fields, read and written by tables: what there is of gRPC's messages in the agent.

Owns the wire format (protobuf.dev/programming-guides/encoding). The library `protobuf` takes 5 MiB before its first
message (decision 13); in the tests it is the judge of every table (`tests/unit/test_protobuf.py`).
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Union

_VARINT, _FIXED64, _BYTES, _GROUP, _END_OF_GROUP, _FIXED32 = range(6)
_LONGEST_VARINT = 10
_HIGHEST_NUMBER = (1 << 29) - 1
_DEFAULTS: dict[str, Any] = {"string": "", "bytes": b"", "int32": 0, "int64": 0, "bool": False}


class Field(NamedTuple):
    """`kind` is string, bytes, int32, int64, bool, or a message. `has_presence`: of a oneof or a map's entry, where
    an empty value is written too. Numbers are never repeated."""

    number: int
    kind: Union[str, "Message"]
    is_repeated: bool = False
    has_presence: bool = False


class Message:
    """What is known of a message: the fields that count, by name. Others are stepped over."""

    def __init__(self, name: str, /, **fields: Field) -> None:
        """`name` is its full name."""
        self.name = name
        self.fields = dict(sorted(fields.items(), key=lambda item: item[1].number))
        self._by_number = {field.number: (name, field) for name, field in fields.items()}

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """Its bytes, in the order of the numbers as protobuf writes them. A message in it is a mapping, or None."""
        parts = []
        for name, field in self.fields.items():
            value = values.get(name)
            if field.is_repeated:
                parts += [_written(field, each) for each in value or ()]
            elif value is not None and (value or field.has_presence or isinstance(field.kind, Message)):
                parts.append(_written(field, value))
        return b"".join(parts)

    def decode(self, message: bytes) -> dict[str, Any]:
        """Every known field: its value, the default of its kind, None for a message that is not there, or a list.

        Raises ValueError for bytes that are no such message.
        """
        found: dict[str, list[Any]] = {name: [] for name in self.fields}
        for number, kind, value in _scan(message):
            name, field = self._by_number.get(number, ("", None))
            if field is not None and (kind == _BYTES) == (field.kind not in ("int32", "int64", "bool")):
                found[name].append(value)
        return {name: _read(field, found[name]) for name, field in self.fields.items()}


def map_field(number: int, kind: "str | Message") -> Field:
    """A map with texts as its keys: on the wire, and here, a list of entries with `key` and `value`."""
    entry = Message("", key=Field(1, "string", has_presence=True), value=Field(2, kind, has_presence=True))
    return Field(number, entry, is_repeated=True)


def delimited(message: bytes) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each length-delimited field, in order; others are skipped. Raises ValueError."""
    return ((number, start, end) for number, kind, start, end in _spans(message) if kind == _BYTES)


def _scan(message: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field: bytes, or the integer of a varint."""
    for number, kind, start, end in _spans(message):
        if kind == _BYTES:
            yield number, kind, message[start:end]
        elif kind == _VARINT:
            yield number, kind, _varint(message, start)[0]


def _spans(message: bytes) -> Iterator[tuple[int, int, int, int]]:
    position, size = 0, len(message)
    groups: list[int] = []  # nobody makes these any more, but a message with one is a message
    while position < size:
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _HIGHEST_NUMBER:
            raise ValueError(f"there is no field {number}")
        start = position
        if kind == _BYTES:
            length, start = _varint(message, position)
            position = start + length
        elif kind == _VARINT:
            _, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        elif kind == _GROUP:
            groups.append(number)
        elif kind != _END_OF_GROUP or not groups or groups.pop() != number:
            raise ValueError(f"field {number} has the unknown wire type {kind}")
        if position > size:
            raise ValueError(f"field {number} is longer than its message")
        if not groups:
            yield number, kind, start, position
    if groups:
        raise ValueError(f"field {groups[-1]}, a group, has no end")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    for _ in range(_LONGEST_VARINT):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number has no end")


def _read(field: Field, found: list[Any]) -> Any:
    if field.is_repeated:
        return [_value(field.kind, each) for each in found]
    if isinstance(field.kind, Message):
        # Parts of one message are one message: protobuf merges them, and on the wire that is putting them together.
        return field.kind.decode(b"".join(found)) if found else None
    return _value(field.kind, found[-1]) if found else _DEFAULTS[field.kind]


def _value(kind: "str | Message", raw: Any) -> Any:
    if isinstance(kind, Message):
        return kind.decode(raw)
    if kind == "string":
        return raw.decode()
    if kind == "bool":
        return raw != 0
    if kind == "bytes":
        return raw
    bits = 32 if kind == "int32" else 64
    return ((raw & ((1 << bits) - 1)) ^ (1 << (bits - 1))) - (1 << (bits - 1))


def _written(field: Field, value: Any) -> bytes:
    if field.kind in ("int32", "int64", "bool"):
        return _number(field.number << 3 | _VARINT) + _number(int(value) & ((1 << 64) - 1))
    content = field.kind.encode(value) if isinstance(field.kind, Message) else value
    if isinstance(content, str):
        content = content.encode()
    return b"".join((_number(field.number << 3 | _BYTES), _number(len(content)), content))


def _number(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
