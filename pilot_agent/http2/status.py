"""The status of a gRPC call: codes, words, how both stand in trailers, and what HTTP's own errors mean as such.

Sources: gRPC's PROTOCOL-HTTP2.md (responses, errors), http-grpc-status-mapping.md and statuscodes.md.
"""

from enum import IntEnum
from typing import NamedTuple
from urllib.parse import quote, unquote

from pilot_agent.http2.frames import ErrorCode, name_of


class Code(IntEnum):
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Status(NamedTuple):
    """How a call ended; `message` is for people, and may be empty."""

    code: Code
    message: str = ""

    @property
    def is_ok(self) -> bool:
        return self.code is Code.OK

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}" if self.message else self.code.name


OK = Status(Code.OK)

# Percent-Encoded of PROTOCOL-HTTP2: space to ~, but for the percent sign itself.
_PLAIN = "".join(chr(number) for number in range(0x20, 0x7F) if number != ord("%"))

_OF_HTTP = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}
_OF_RESET = {
    ErrorCode.STREAM_CLOSED: Code.UNKNOWN,
    ErrorCode.REFUSED_STREAM: Code.UNAVAILABLE,
    ErrorCode.CANCEL: Code.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
    ErrorCode.HTTP_1_1_REQUIRED: Code.UNKNOWN,
}


def trailers_of(status: Status) -> list[tuple[bytes, bytes]]:
    found = [(b"grpc-status", b"%d" % status.code)]
    if status.message:
        found.append((b"grpc-message", quote(status.message, safe=_PLAIN, errors="replace").encode()))
    return found


def status_of(code: bytes, message: bytes) -> Status:
    """What trailers say; a code nobody knows is UNKNOWN, and what is no percent-encoding stays as it is."""
    words = unquote(message.decode(errors="replace"))
    try:
        return Status(Code(int(code)), words)
    except ValueError:
        return Status(Code.UNKNOWN, words or f"grpc-status {code.decode(errors='replace')!r}")


def status_of_http(status: int) -> Status:
    """Of an answer that has no grpc-status."""
    if status == 200:
        return Status(Code.UNKNOWN, "the stream ended without a grpc-status")
    return Status(_OF_HTTP.get(status, Code.UNKNOWN), f"HTTP status {status} without a grpc-status")


def status_of_reset(code: int) -> Status:
    """Of a stream that the peer ended by RST_STREAM; what the table does not name is INTERNAL."""
    known = code in ErrorCode.__members__.values()
    found = _OF_RESET.get(ErrorCode(code), Code.INTERNAL) if known else Code.UNKNOWN
    return Status(found, f"Received RST_STREAM with error code {code} ({name_of(code)})")  # as gRPC says it
