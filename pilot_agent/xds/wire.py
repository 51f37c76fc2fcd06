"""The few fields of xDS messages that the proxy must read, found without parsing the rest.

A response of 20 MB is skipped through resource by resource, and passed on as the bytes it came in. Requests and the
answers the agent makes itself are small, and are read and made as a whole (`messages`).
"""

from collections.abc import Iterator
from typing import NamedTuple

from pilot_agent.protobuf import delimited


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


def _last(message: bytes, number: int) -> bytes:
    """A field of a small message: the last one counts."""
    found = b""
    for each, start, end in delimited(message):
        if each == number:
            found = message[start:end]
    return found
