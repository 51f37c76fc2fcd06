"""The few fields of xDS messages that the proxy must read, found without parsing the rest.

A response of 20 MB is skipped through resource by resource, and passed on as the bytes it came in. Requests and the
answers the agent makes itself are small, and go through generated code where they are made.
"""

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _GROUP, _END_OF_GROUP, _FIXED32 = range(6)
_LONGEST_VARINT = 10
_LARGEST_NUMBER = 2**29 - 1


class Fields(NamedTuple):
    """The field numbers of one kind of message (envoy/service/discovery/v3/discovery.proto)."""

    type_url: int
    nonce: int
    error: int
    version: int
    resources: int


SOTW_REQUEST = Fields(type_url=4, nonce=5, error=6, version=1, resources=3)
DELTA_REQUEST = Fields(type_url=2, nonce=6, error=7, version=0, resources=3)
SOTW_RESPONSE = Fields(type_url=4, nonce=5, error=0, version=1, resources=2)
DELTA_RESPONSE = Fields(type_url=4, nonce=5, error=0, version=1, resources=2)


class Envelope(NamedTuple):
    """What a message says around its resources. `error` is the text of error_detail, None without one.

    `resources` counts them, or the names of a request; of a delta request those it subscribes to.
    """

    type_url: str
    nonce: str
    version: str
    error: str | None
    resources: int


def envelope(message: bytes, fields: Fields) -> Envelope:
    """Raises ValueError for bytes that are no protobuf message."""
    texts = {fields.type_url: "", fields.nonce: "", fields.version: ""}
    status, resources = None, 0
    for number, start, end in delimited(message):
        if number == fields.resources:
            resources += 1
        elif number in texts:
            texts[number] = message[start:end].decode(errors="replace")
        elif number == fields.error:
            status = (status or b"") + message[start:end]  # a message in parts is one: protobuf merges them
    error = _last(status, 2).decode(errors="replace") if status is not None else None
    return Envelope(texts[fields.type_url], texts[fields.nonce], texts[fields.version], error, resources)


def resources_of(message: bytes, fields: Fields) -> Iterator[bytes]:
    """The resources of a response: Any in state of the world, Resource in delta."""
    for number, start, end in delimited(message):
        if number == fields.resources:
            yield message[start:end]


def value_of_any(message: bytes) -> bytes:
    """The serialized message inside of an Any."""
    return _last(message, 2)


def any_of_resource(message: bytes) -> bytes:
    """The Any inside of a delta Resource."""
    return b"".join(message[start:end] for number, start, end in delimited(message) if number == 2)


def delimited(message: bytes) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each length-delimited field, in order; others are skipped. Raises ValueError."""
    position, size = 0, len(message)
    groups: list[int] = []  # nobody makes these any more, but a message with one is a message
    while position < size:
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if not 1 <= number <= _LARGEST_NUMBER:
            raise ValueError(f"there is no field {number}")
        if kind == _BYTES:
            length, position = _varint(message, position)
            end = position + length
            if end > size:
                raise ValueError("a field is longer than its message")
            if not groups:
                yield number, position, end
            position = end
        elif kind == _VARINT:
            _, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        elif kind == _GROUP:
            groups.append(number)
        elif kind != _END_OF_GROUP or not groups or groups.pop() != number:
            raise ValueError(f"field {number} has the unknown wire type {kind}")
    if position != size or groups:
        raise ValueError("a field is longer than its message")


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


def _last(message: bytes, number: int) -> bytes:
    """A field of a small message: the last one counts."""
    found = b""
    for each, start, end in delimited(message):
        if each == number:
            found = message[start:end]
    return found
