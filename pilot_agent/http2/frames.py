"""Frames of HTTP/2 as numbers and bytes (RFC 9113, sections 4, 6 and 7): names, builders, and the two kinds of errors.

Knows no connection and no state. There is no object for a frame: the reader hands its parts on as arguments.
"""

from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client opens with (section 3.4)."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
"""Flags."""

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
"""Settings (section 6.5.2)."""

HEADER = Struct(">HBBBI")
"""Of a frame: the length in two parts (16 and 8 bits), kind, flags, stream."""
HEADER_SIZE = 9
LARGEST_WINDOW = (1 << 31) - 1
LARGEST_STREAM = (1 << 31) - 1
DEFAULT_WINDOW = 65_535
SMALLEST_MAX_FRAME, LARGEST_MAX_FRAME = 1 << 14, (1 << 24) - 1

_SETTING = Struct(">HI")
_PAIR = Struct(">II")
_NUMBER = Struct(">I")


class ErrorCode(IntEnum):
    """Section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def name_of(code: int) -> str:
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error {code:#x}"


class ConnectionFault(Exception):
    """A connection error (section 5.4.1): GOAWAY with this code, and the end of it."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code, self.text = code, text


class StreamFault(Exception):
    """A stream error (section 5.4.2): RST_STREAM with this code; the connection goes on."""

    def __init__(self, stream: int, code: ErrorCode, text: str) -> None:
        super().__init__(f"{code.name}: {text}")
        self.stream, self.code, self.text = stream, code, text


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return header(len(payload), kind, flags, stream) + payload


def header(length: int, kind: int, flags: int, stream: int) -> bytes:
    return HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream)


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


def settings_of(payload: memoryview) -> list[tuple[int, int]]:
    """Raises ConnectionFault for a payload that is no row of settings."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    return [(number, value) for number, value in _SETTING.iter_unpack(payload)]


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def ping(data: bytes, *, is_ack: bool = False) -> bytes:
    return frame(PING, ACK if is_ack else 0, 0, data)


def goaway(last_stream: int, code: int, debug: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, _PAIR.pack(last_stream, code) + debug.encode())


def goaway_of(payload: memoryview) -> tuple[int, int, str]:
    """Last stream, error code, and the debug text. Raises ConnectionFault."""
    if len(payload) < _PAIR.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
    last, code = _PAIR.unpack_from(payload)
    return last & LARGEST_STREAM, code, bytes(payload[_PAIR.size :]).decode(errors="replace")


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(increment))


def number_of(payload: memoryview, what: str) -> int:
    """The 32 bits of RST_STREAM and WINDOW_UPDATE. Raises ConnectionFault for another length."""
    if len(payload) != _NUMBER.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"{what} of {len(payload)} bytes")
    number: int = _NUMBER.unpack(payload)[0]
    return number


def header_frames(stream: int, block: bytes, largest: int, *, ends: bool) -> bytes:
    """HEADERS, and as many CONTINUATION as a block needs that is longer than the peer's largest frame."""
    parts = [block[start : start + largest] for start in range(0, len(block), largest)] or [b""]
    found = []
    for number, part in enumerate(parts):
        flags = END_HEADERS if number == len(parts) - 1 else 0
        if number == 0:
            found.append(frame(HEADERS, flags | (END_STREAM if ends else 0), stream, part))
        else:
            found.append(frame(CONTINUATION, flags, stream, part))
    return b"".join(found)
