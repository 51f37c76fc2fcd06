"""What RFC 9113 forbids, each with the error it asks for; the section is in the name of each case."""

import asyncio
from collections.abc import Callable

import pytest

from pilot_agent.http2 import frames
from pilot_agent.http2.connection import LARGEST_BLOCK, Config
from pilot_agent.http2.frames import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from pilot_agent.http2.server import Server, ServerConnection
from pilot_agent.http2.status import Code
from tests.unit.http2.wires import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    ClientWire,
    FakeTransport,
    ServerWire,
    data,
    end_of,
    message,
)

FOUR = bytes(4)
LARGEST = (1 << 31) - 1


def setting(number: int, value: int) -> bytes:
    return frames.settings({number: value})


def without(name: str) -> list[tuple[str, str]]:
    return [pair for pair in REQUEST if pair[0] != name]


def with_field(name: str, value: str) -> Callable[[ServerWire], bytes]:
    return lambda wire: wire.headers(1, [*REQUEST, (name, value)])


def literal(name: bytes, value: bytes) -> bytes:
    """A field whose bytes the encoder would not touch, without compression."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


Feed = Callable[[ServerWire], bytes]

ON_A_SERVER: dict[str, tuple[Feed, str]] = {
    "4.2 a frame over the largest": (
        lambda w: w.request() + data(1, bytes(16385)),
        "GOAWAY FRAME_SIZE_ERROR",
    ),
    "4.3 a header block that can't be decoded": (
        lambda w: frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        "GOAWAY COMPRESSION_ERROR",
    ),
    "4.3 a block whose index is in no table": (
        lambda w: frame(HEADERS, END_HEADERS, 1, b"\xfe"),
        "GOAWAY COMPRESSION_ERROR",
    ),
    "4.3 a table larger than was allowed": (
        lambda w: frame(HEADERS, END_HEADERS, 1, b"\x3f\xe1\x7f" + w.block(REQUEST)),
        "GOAWAY COMPRESSION_ERROR",
    ),
    "4.3 DATA within a header block": (
        lambda w: frame(HEADERS, 0, 1, w.block(REQUEST)) + data(1, b""),
        "GOAWAY PROTOCOL_ERROR",
    ),
    "4.3 a frame of an unknown kind within a header block": (
        lambda w: frame(HEADERS, 0, 1, w.block(REQUEST)) + frame(0x20, 0, 0),
        "GOAWAY PROTOCOL_ERROR",
    ),
    "4.3 CONTINUATION of another stream": (
        lambda w: frame(HEADERS, 0, 1, w.block(REQUEST)) + frame(CONTINUATION, END_HEADERS, 3),
        "GOAWAY PROTOCOL_ERROR",
    ),
    "5.1 DATA on an idle stream": (lambda w: data(1, b""), "GOAWAY PROTOCOL_ERROR"),
    "5.1 RST_STREAM on an idle stream": (lambda w: frame(RST_STREAM, 0, 1, FOUR), "GOAWAY PROTOCOL_ERROR"),
    "5.1 WINDOW_UPDATE on an idle stream": (lambda w: frames.window_update(1, 1), "GOAWAY PROTOCOL_ERROR"),
    "5.1 DATA on a half-closed stream": (
        lambda w: w.request(ends=True) + data(1, b"x"),
        "RST_STREAM STREAM_CLOSED",
    ),
    "5.1 HEADERS on a half-closed stream": (
        lambda w: w.request(ends=True) + w.headers(1, TRAILERS, ends=True),
        "RST_STREAM STREAM_CLOSED",
    ),
    "5.1 DATA behind RST_STREAM": (
        lambda w: w.request() + frames.rst_stream(1, 8) + data(1, b"x"),
        "RST_STREAM STREAM_CLOSED",
    ),
    "5.1 HEADERS behind RST_STREAM": (
        lambda w: w.request() + frames.rst_stream(1, 8) + w.request(),
        "RST_STREAM STREAM_CLOSED",
    ),
    "5.1.1 a stream with an even number": (lambda w: w.request(2), "GOAWAY PROTOCOL_ERROR"),
    "5.1.1 a number lower than one before": (lambda w: w.request(5) + w.request(3), "RST_STREAM STREAM_CLOSED"),
    "5.1.2 more streams than allowed": (
        lambda w: b"".join(w.request(1 + 2 * number) for number in range(5)),
        "RST_STREAM REFUSED_STREAM",
    ),
    "6.1 DATA on stream 0": (lambda w: data(0, b"x"), "GOAWAY PROTOCOL_ERROR"),
    "6.1 padding as long as the frame": (
        lambda w: w.request() + data(1, b"\x05abcd", PADDED),
        "GOAWAY PROTOCOL_ERROR",
    ),
    "6.1 padded DATA without a length": (lambda w: w.request() + data(1, b"", PADDED), "GOAWAY FRAME_SIZE_ERROR"),
    "6.2 HEADERS on stream 0": (lambda w: frame(HEADERS, END_HEADERS, 0, w.block(REQUEST)), "GOAWAY PROTOCOL_ERROR"),
    "6.2 HEADERS shorter than the padding": (
        lambda w: frame(HEADERS, END_HEADERS | PADDED, 1, b"\x09" + w.block(REQUEST)[:5]),
        "GOAWAY PROTOCOL_ERROR",
    ),
    "6.2 HEADERS shorter than the priority": (
        lambda w: frame(HEADERS, END_HEADERS | PRIORITIZED, 1, bytes(4)),
        "GOAWAY PROTOCOL_ERROR",
    ),
    "6.2 padded HEADERS without a length": (
        lambda w: frame(HEADERS, END_HEADERS | PADDED, 1),
        "GOAWAY FRAME_SIZE_ERROR",
    ),
    "6.3 PRIORITY on stream 0": (lambda w: frame(PRIORITY, 0, 0, bytes(5)), "GOAWAY PROTOCOL_ERROR"),
    "6.3 PRIORITY of 4 bytes": (lambda w: w.request() + frame(PRIORITY, 0, 1, FOUR), "RST_STREAM FRAME_SIZE_ERROR"),
    "6.4 RST_STREAM on stream 0": (lambda w: frame(RST_STREAM, 0, 0, FOUR), "GOAWAY PROTOCOL_ERROR"),
    "6.4 RST_STREAM of 5 bytes": (
        lambda w: w.request() + frame(RST_STREAM, 0, 1, bytes(5)),
        "GOAWAY FRAME_SIZE_ERROR",
    ),
    "6.5 SETTINGS on a stream": (lambda w: frame(SETTINGS, 0, 1), "GOAWAY PROTOCOL_ERROR"),
    "6.5 an acknowledgement with a payload": (lambda w: frame(SETTINGS, ACK, 0, bytes(6)), "GOAWAY FRAME_SIZE_ERROR"),
    "6.5 SETTINGS of 5 bytes": (lambda w: frame(SETTINGS, 0, 0, bytes(5)), "GOAWAY FRAME_SIZE_ERROR"),
    "6.5.2 ENABLE_PUSH of 2": (lambda w: setting(frames.ENABLE_PUSH, 2), "GOAWAY PROTOCOL_ERROR"),
    "6.5.2 a window of 2^31": (
        lambda w: setting(frames.INITIAL_WINDOW_SIZE, 1 << 31),
        "GOAWAY FLOW_CONTROL_ERROR",
    ),
    "6.5.2 a largest frame of 16383": (lambda w: setting(frames.MAX_FRAME_SIZE, 16383), "GOAWAY PROTOCOL_ERROR"),
    "6.5.2 a largest frame of 2^24": (lambda w: setting(frames.MAX_FRAME_SIZE, 1 << 24), "GOAWAY PROTOCOL_ERROR"),
    "6.6 PUSH_PROMISE of a client": (lambda w: w.request() + frame(PUSH_PROMISE, 4, 1, FOUR), "GOAWAY PROTOCOL_ERROR"),
    "6.7 PING on a stream": (lambda w: frame(PING, 0, 1, bytes(8)), "GOAWAY PROTOCOL_ERROR"),
    "6.7 PING of 7 bytes": (lambda w: frame(PING, 0, 0, bytes(7)), "GOAWAY FRAME_SIZE_ERROR"),
    "6.8 GOAWAY on a stream": (lambda w: frame(GOAWAY, 0, 1, bytes(8)), "GOAWAY PROTOCOL_ERROR"),
    "6.8 GOAWAY of 7 bytes": (lambda w: frame(GOAWAY, 0, 0, bytes(7)), "GOAWAY FRAME_SIZE_ERROR"),
    "6.9 WINDOW_UPDATE of 0 on the connection": (lambda w: frames.window_update(0, 0), "GOAWAY PROTOCOL_ERROR"),
    "6.9 WINDOW_UPDATE of 0 on a stream": (
        lambda w: w.request() + frames.window_update(1, 0),
        "RST_STREAM PROTOCOL_ERROR",
    ),
    "6.9 WINDOW_UPDATE of 3 bytes": (lambda w: frame(WINDOW_UPDATE, 0, 0, bytes(3)), "GOAWAY FRAME_SIZE_ERROR"),
    "6.9.1 the connection's window over 2^31-1": (
        lambda w: frames.window_update(0, LARGEST),
        "GOAWAY FLOW_CONTROL_ERROR",
    ),
    "6.9.1 a stream's window over 2^31-1": (
        lambda w: w.request() + frames.window_update(1, LARGEST),
        "RST_STREAM FLOW_CONTROL_ERROR",
    ),
    "6.9.2 SETTINGS widen a stream's window over 2^31-1": (
        lambda w: w.request() + frames.window_update(1, LARGEST - 65535) + setting(frames.INITIAL_WINDOW_SIZE, 65536),
        "GOAWAY FLOW_CONTROL_ERROR",
    ),
    "6.10 CONTINUATION without HEADERS": (lambda w: frame(CONTINUATION, END_HEADERS, 1), "GOAWAY PROTOCOL_ERROR"),
    "6.10 CONTINUATION behind END_HEADERS": (
        lambda w: w.request() + frame(CONTINUATION, END_HEADERS, 1),
        "GOAWAY PROTOCOL_ERROR",
    ),
    "8.1 trailers without END_STREAM": (lambda w: w.request() + w.headers(1, TRAILERS), "RST_STREAM PROTOCOL_ERROR"),
    "8.1 pseudo-header fields in trailers": (
        lambda w: w.request() + w.headers(1, [(":method", "POST")], ends=True),
        "RST_STREAM PROTOCOL_ERROR",
    ),
    "8.2 a name in upper case": (
        lambda w: frame(HEADERS, END_HEADERS, 1, w.block(REQUEST) + literal(b"Name", b"x")),
        "RST_STREAM PROTOCOL_ERROR",
    ),
    "8.2.1 a name with a space": (with_field("a b", "x"), "RST_STREAM PROTOCOL_ERROR"),
    "8.2.1 an empty name": (
        lambda w: frame(HEADERS, END_HEADERS, 1, w.block(REQUEST) + literal(b"", b"x")),
        "RST_STREAM PROTOCOL_ERROR",
    ),
    "8.2.1 a value with a line end": (with_field("a", "b\nc"), "RST_STREAM PROTOCOL_ERROR"),
    "8.2.1 a value with NUL": (with_field("a", "b\0c"), "RST_STREAM PROTOCOL_ERROR"),
    "8.2.1 a value that begins with a space": (with_field("a", " b"), "RST_STREAM PROTOCOL_ERROR"),
    "8.2.2 connection": (with_field("connection", "close"), "RST_STREAM PROTOCOL_ERROR"),
    "8.2.2 transfer-encoding": (with_field("transfer-encoding", "chunked"), "RST_STREAM PROTOCOL_ERROR"),
    "8.2.2 te other than trailers": (with_field("te", "gzip"), "RST_STREAM PROTOCOL_ERROR"),
    "8.3 an unknown pseudo-header field": (
        lambda w: w.headers(1, [(":unknown", "x"), *REQUEST]),
        "RST_STREAM PROTOCOL_ERROR",
    ),
    "8.3 a pseudo-header field of a response": (
        lambda w: w.headers(1, [(":status", "200"), *REQUEST]),
        "RST_STREAM PROTOCOL_ERROR",
    ),
    "8.3 a pseudo-header field behind others": (
        lambda w: w.headers(1, [*without(":path"), (":path", "/")]),
        "RST_STREAM PROTOCOL_ERROR",
    ),
    "8.3 a pseudo-header field twice": (
        lambda w: w.headers(1, [(":path", "/"), *REQUEST]),
        "RST_STREAM PROTOCOL_ERROR",
    ),
    "8.3.1 no :method": (lambda w: w.headers(1, without(":method")), "RST_STREAM PROTOCOL_ERROR"),
    "8.3.1 no :scheme": (lambda w: w.headers(1, without(":scheme")), "RST_STREAM PROTOCOL_ERROR"),
    "8.3.1 no :path": (lambda w: w.headers(1, without(":path")), "RST_STREAM PROTOCOL_ERROR"),
    "8.3.1 an empty :path": (
        lambda w: w.headers(1, [*without(":path")[:2], (":path", ""), *without(":path")[2:]]),
        "RST_STREAM PROTOCOL_ERROR",
    ),
    # Floods and sizes (10.5): what is legal, but too much
    "10.5 rapid reset": (
        lambda w: b"".join(w.request(n) + frames.rst_stream(n, 8) for n in range(1, 2300, 2)),
        "GOAWAY ENHANCE_YOUR_CALM",
    ),
    "10.5 a flood of PING": (lambda w: frames.ping(bytes(8)) * 1200, "GOAWAY ENHANCE_YOUR_CALM"),
    "10.5 a flood of SETTINGS": (lambda w: frames.settings({}) * 1200, "GOAWAY ENHANCE_YOUR_CALM"),
    "10.5 a flood of empty DATA": (lambda w: w.request() + data(1, b"") * 15_000, "GOAWAY ENHANCE_YOUR_CALM"),
    "10.5 a flood of unknown frames": (lambda w: frame(0x33, 0, 0) * 15_000, "GOAWAY ENHANCE_YOUR_CALM"),
    "10.5 a flood of PRIORITY": (lambda w: frame(PRIORITY, 0, 9, bytes(5)) * 15_000, "GOAWAY ENHANCE_YOUR_CALM"),
    "10.5 a flood of CONTINUATION": (
        lambda w: frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 70,
        "GOAWAY ENHANCE_YOUR_CALM",
    ),
    "10.5.1 a header block too large": (
        lambda w: frame(HEADERS, 0, 1, bytes(16384)) + frame(CONTINUATION, 0, 1, bytes(16384)) * 4,
        "GOAWAY ENHANCE_YOUR_CALM",
    ),
    "10.5.1 a header list too large once unpacked": (
        lambda w: frame(HEADERS, END_HEADERS, 1, b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000 + b"\xbe" * 100),
        "GOAWAY ENHANCE_YOUR_CALM",
    ),
}


@pytest.mark.parametrize("case", ON_A_SERVER)
def test_a_server_ends_what_breaks_the_rules(case: str) -> None:
    make, expected = ON_A_SERVER[case]

    async def run() -> None:
        wire = ServerWire(Config(most_streams=4))
        wire.transport.frames()
        wire.feed(make(wire))
        assert end_of(await wire.frames()) == expected
        if expected.startswith("GOAWAY"):
            assert wire.transport.is_closed
            assert all(each.status is not None for each in wire.opened)
        else:
            assert not wire.transport.is_closed
            wire.feed(frames.ping(bytes(8)))
            assert [each.kind for each in await wire.frames()] == [PING], "the connection still works"
        wire.close()

    asyncio.run(run())


def test_the_first_bytes_and_the_first_frame_must_be_http2s() -> None:
    async def ends(opening: bytes) -> str:
        server = Server({})
        server._is_open = True
        connection, transport = ServerConnection(server), FakeTransport()
        connection.connection_made(transport)
        buffer = connection.get_buffer(-1)
        buffer[: len(opening)] = opening
        connection.buffer_updated(len(opening))
        found = end_of(transport.frames())
        connection.connection_lost(None)
        return found

    for opening in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        PREFACE + frames.ping(bytes(8)),
        PREFACE + frames.SETTINGS_ACK,
    ):
        assert asyncio.run(ends(opening)) == "GOAWAY PROTOCOL_ERROR"


ClientFeed = Callable[[ClientWire], bytes]

ON_A_CLIENT: dict[str, tuple[ClientFeed, str]] = {
    "5.1 HEADERS on a stream that nobody opened": (
        lambda w: w.headers(3, RESPONSE),
        "GOAWAY PROTOCOL_ERROR",
    ),
    "5.1.1 HEADERS on an even stream": (lambda w: w.headers(2, RESPONSE), "GOAWAY PROTOCOL_ERROR"),
    "5.1 DATA behind the end": (
        lambda w: w.response() + w.trailers() + data(1, b"x"),
        "RST_STREAM CANCEL",  # our own, since we had not ended: what comes late is nobody's mistake
    ),
    "8.1 DATA before HEADERS": (lambda w: data(1, b"x"), "RST_STREAM PROTOCOL_ERROR"),
    "8.1 trailers without END_STREAM": (
        lambda w: w.response() + w.headers(1, TRAILERS),
        "RST_STREAM PROTOCOL_ERROR",
    ),
    "8.3.2 no :status": (lambda w: w.headers(1, [("a", "b")]), "RST_STREAM PROTOCOL_ERROR"),
    "8.3.2 a :status that is no number": (lambda w: w.headers(1, [(":status", "abc")]), "RST_STREAM PROTOCOL_ERROR"),
    "8.3.2 a pseudo-header field of a request": (
        lambda w: w.headers(1, [(":path", "/"), *RESPONSE]),
        "RST_STREAM PROTOCOL_ERROR",
    ),
    "6.5.2 ENABLE_PUSH of 1 of a server": (lambda w: setting(frames.ENABLE_PUSH, 1), "GOAWAY PROTOCOL_ERROR"),
    "6.6 PUSH_PROMISE though it is off": (
        lambda w: frame(PUSH_PROMISE, END_HEADERS, 1, FOUR + w.block(REQUEST)),
        "GOAWAY PROTOCOL_ERROR",
    ),
}


@pytest.mark.parametrize("case", ON_A_CLIENT)
def test_a_client_ends_what_breaks_the_rules(case: str) -> None:
    make, expected = ON_A_CLIENT[case]

    async def run() -> None:
        wire = ClientWire()
        wire.feed(make(wire))
        assert end_of(await wire.frames()) == expected
        assert wire.told.status is not None
        if "PROTOCOL" in expected:
            assert wire.told.status.code is Code.INTERNAL
        wire.close()

    asyncio.run(run())


ALLOWED: dict[str, Feed] = {
    "PRIORITY on an idle stream": lambda w: frame(PRIORITY, 0, 9, bytes(5)),
    "an unknown frame": lambda w: frame(0xEE, 0xFF, 1, bytes(16384)),
    "an unknown setting": lambda w: setting(0x99, 5),
    "RST_STREAM behind the end": lambda w: w.request() + frames.rst_stream(1, 8) + frames.rst_stream(1, 8),
    "WINDOW_UPDATE behind the end": lambda w: w.request() + frames.rst_stream(1, 8) + frames.window_update(1, 5),
    "padding and priority": lambda w: frame(
        HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, b"\x04" + bytes(5) + w.block(REQUEST) + bytes(4)
    ),
    "empty CONTINUATION": lambda w: (
        frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, w.block(REQUEST)) + frame(CONTINUATION, END_HEADERS, 1)
    ),
    "a content-length that is wrong": lambda w: (
        w.headers(1, [*REQUEST, ("content-length", "7")]) + data(1, message(b"abc"), END_STREAM)
    ),
    "the reserved bit of a stream": lambda w: w.request() + frame(WINDOW_UPDATE, 0, 1 | 1 << 31, b"\x80\0\0\1"),
    "an acknowledgement of a ping nobody sent": lambda w: frames.ping(bytes(8), is_ack=True),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_ends_nothing(case: str) -> None:
    async def run() -> None:
        wire = ServerWire()
        wire.feed(ALLOWED[case](wire))
        assert end_of(await wire.frames()) == "none"
        wire.feed(frames.ping(b"12345678"))
        assert any(each.kind == PING and each.payload == b"12345678" for each in await wire.frames())
        wire.close()

    asyncio.run(run())


def test_frames_for_a_stream_we_reset_are_passed_over() -> None:
    async def run() -> None:
        wire = ServerWire()
        wire.feed(wire.request())
        assert wire.opened[0].stream is not None
        wire.opened[0].stream.cancel()
        assert end_of(await wire.frames()) == "RST_STREAM CANCEL"
        wire.feed(data(1, message(bytes(1000))) + wire.headers(1, TRAILERS, ends=True) + frames.window_update(1, 1))
        assert end_of(await wire.frames()) == "none"
        wire.feed(wire.request(3))
        assert len(wire.opened) == 2, "and the header table is still the same at both ends"
        wire.close()

    asyncio.run(run())


def test_data_over_the_window_of_a_stream_is_an_error() -> None:
    async def run() -> None:
        wire = ServerWire(Config(window=100_000))
        wire.feed(wire.request())
        assert wire.opened[0].stream is not None
        wire.opened[0].stream.pause_reading()  # so that nothing is given back
        wire.feed(data(1, message(bytes(1 << 20))[:16384]) + data(1, bytes(16384)) * 5)
        assert end_of(await wire.frames()) == "none"
        wire.feed(data(1, bytes(16384)))
        assert end_of(await wire.frames()) == "RST_STREAM FLOW_CONTROL_ERROR"
        wire.close()

    asyncio.run(run())


def test_answers_that_nobody_reads_end_the_connection() -> None:
    async def run() -> None:
        wire = ServerWire()
        wire.connection.pause_writing()
        wire.transport.backlog = 1 << 21
        wire.feed(frames.ping(bytes(8)))
        assert end_of(await wire.frames()) == "GOAWAY ENHANCE_YOUR_CALM"
        wire.close()

    asyncio.run(run())


def test_a_header_block_may_be_as_large_as_the_limit() -> None:
    async def run() -> None:
        wire = ServerWire()
        wire.feed(wire.headers(1, [*REQUEST, ("a", "x" * 15000)]))
        assert len(wire.opened) == 1
        assert LARGEST_BLOCK > 15000
        wire.close()

    asyncio.run(run())
