"""Header fields: which blocks are well-formed (RFC 9113, 8.2 and 8.3), and gRPC's metadata within them.

Names and values are bytes, as HPACK gives them. Errors are ValueError with the words alone: who reads the frame knows
the stream.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence

Fields = Sequence[tuple[bytes, bytes]]
Metadata = tuple[tuple[str, str | bytes], ...]
"""Names in lower case; a value is bytes where the name ends in -bin."""

CONTENT_TYPE = b"application/grpc"

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_OF_THE_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_REQUEST = frozenset((b":method", b":scheme", b":path", b":authority"))
_REQUIRED = (b":method", b":scheme", b":path")
_OWN = frozenset((b"content-type", b"te"))
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def request_of(fields: Fields) -> dict[bytes, bytes]:
    """The pseudo-header fields of a request. Raises ValueError for a malformed block."""
    pseudo = _checked(fields, _REQUEST)
    for name in _REQUIRED:
        if not pseudo.get(name):
            raise ValueError(f"a request without {name.decode()}")
    return pseudo


def response_status(fields: Fields) -> int:
    """Raises ValueError for a malformed block."""
    status = _checked(fields, frozenset((b":status",))).get(b":status", b"")
    if len(status) != 3 or not status.isdigit():
        raise ValueError("a response without a :status of three digits")
    return int(status)


def check_trailers(fields: Fields) -> None:
    """Raises ValueError for a malformed block."""
    _checked(fields, frozenset())


def _checked(fields: Fields, known: frozenset[bytes]) -> dict[bytes, bytes]:
    pseudo: dict[bytes, bytes] = {}
    is_regular = False
    for name, value in fields:
        if name[:1] == b":":
            if is_regular or name not in known or name in pseudo:
                raise ValueError(f"the pseudo-header field {name!r} is unknown, repeated, or out of place")
            pseudo[name] = value
        else:
            is_regular = True
            _check_name(name, value)
        if _BAD_VALUE.search(value):
            raise ValueError(f"the value of {name!r} has a character that no field may have")
    return pseudo


def _check_name(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no field name")
    if name in _OF_THE_CONNECTION or (name == b"te" and value != b"trailers"):
        raise ValueError(f"{name!r} does not belong in HTTP/2")


def first(fields: Fields, name: bytes) -> bytes | None:
    return next((value for found, value in fields if found == name), None)


def is_grpc(fields: Fields) -> bool:
    """Whether the content type is application/grpc, with any format behind it."""
    found = (first(fields, b"content-type") or b"").lower()
    return found == CONTENT_TYPE or found.startswith((CONTENT_TYPE + b"+", CONTENT_TYPE + b";"))


def metadata_of(fields: Fields) -> Metadata:
    """Without what is HTTP's and gRPC's own. A -bin value that is no base64 is left out."""
    found: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name[:1] == b":" or name in _OWN or name.startswith(b"grpc-"):
            continue
        if not name.endswith(b"-bin"):
            found.append((name.decode(), value.decode(errors="replace")))
            continue
        for part in value.split(b","):
            try:
                found.append((name.decode(), base64.b64decode(part.strip() + b"==")))
            except binascii.Error:
                pass  # nobody here has a use for it, and the call may do without
    return tuple(found)


def fields_of(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    """Raises ValueError for a name or value that can't be sent."""
    found = []
    for name, value in metadata:
        field = (
            name.encode(),
            base64.b64encode(_binary(value)).rstrip(b"=") if name.endswith("-bin") else _text(value),
        )
        _checked((field,), frozenset())
        found.append(field)
    return found


def _binary(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _text(value: str | bytes) -> bytes:
    return _binary(value).strip()


def timeout_of(fields: Fields) -> float | None:
    """Seconds of grpc-timeout; None without one. Raises ValueError."""
    value = first(fields, b"grpc-timeout")
    if value is None:
        return None
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is no grpc-timeout")
    return int(found[1]) * _UNITS[found[2]]


def timeout_field(seconds: float) -> tuple[bytes, bytes]:
    """At most eight digits: milliseconds, or seconds where they do not fit."""
    milliseconds = max(0, int(seconds * 1000))
    value = b"%dm" % milliseconds if milliseconds < 10**8 else b"%dS" % min(int(seconds), 10**8 - 1)
    return b"grpc-timeout", value
