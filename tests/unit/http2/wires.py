"""A connection without a socket: what a test feeds it, in pieces of any size, and the frames it writes."""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from hpack import Encoder

from pilot_agent.http2 import frames
from pilot_agent.http2.client import ClientConnection, ClientStream
from pilot_agent.http2.connection import Config, Connection
from pilot_agent.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, ErrorCode
from pilot_agent.http2.server import Server, ServerConnection, ServerStream
from pilot_agent.http2.status import Status
from pilot_agent.http2.stream import Message, Receiver, Stream

PATH = "/test.Service/Any"
REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "a"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS = [("grpc-status", "0")]
DEFAULTS = Config()


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


class FakeTransport(asyncio.Transport):
    """Takes everything, unless it is `full`; `is_cut` when nothing is left to be sent either."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.largest_write = 0
        self.is_closed = self.is_cut = False
        self.backlog = 0

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.written += data
        self.largest_write = max(self.largest_write, len(data))

    def writelines(self, parts: Iterable[Any]) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_cut = True

    def is_closing(self) -> bool:
        return self.is_closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.backlog

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return SimpleNamespace(family=socket.AF_INET) if name == "socket" else default

    def frames(self) -> list[Frame]:
        """Of what was written since the last call."""
        data = bytes(self.written).removeprefix(PREFACE)
        self.written.clear()
        found = []
        while data:
            length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
            stream = int.from_bytes(data[5:9], "big")
            found.append(Frame(kind, flags, stream, data[9 : 9 + length]))
            assert len(found[-1].payload) == length
            data = data[9 + length :]
        return found


class Recorder:
    """A receiver that only notes."""

    def __init__(self, stream: Stream | None = None) -> None:
        self.stream = stream
        self.messages: list[Message] = []
        self.notes: list[str] = []
        self.status: Status | None = None

    def message_received(self, message: Message) -> None:
        assert self.status is None
        self.messages.append(message)

    def half_closed(self) -> None:
        self.notes.append("half-closed")

    def ended(self, status: Status) -> None:
        assert self.status is None, "told twice"
        self.status = status

    def pause_writing(self) -> None:
        self.notes.append("pause")

    def resume_writing(self) -> None:
        self.notes.append("resume")


class Wire:
    """One end of ours; use it within an event loop, and close it."""

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection, self.transport = connection, FakeTransport()
        self.encoder = Encoder()
        connection.connection_made(self.transport)

    def feed(self, data: bytes, sizes: Sequence[int] = ()) -> None:
        """In pieces of these sizes, in turn; without sizes as large as it takes them."""
        position, turn = 0, 0
        while position < len(data) and not self.transport.is_closed:
            buffer = self.connection.get_buffer(-1)
            assert len(buffer) > 0
            size = min(len(buffer), len(data) - position, *([sizes[turn % len(sizes)]] if sizes else []))
            buffer[:size] = data[position : position + size]
            position, turn = position + size, turn + 1
            self.connection.buffer_updated(size)

    def block(self, fields: Iterable[tuple[str, str]]) -> bytes:
        return self.encoder.encode(list(fields))

    def headers(self, stream: int, fields: Iterable[tuple[str, str]], *, ends: bool = False) -> bytes:
        flags = END_HEADERS | (END_STREAM if ends else 0)
        return frames.frame(HEADERS, flags, stream, self.block(fields))

    async def frames(self) -> list[Frame]:
        """What it wrote, the turn of the loop included."""
        for _ in range(3):
            await asyncio.sleep(0)
        return self.transport.frames()

    def close(self) -> None:
        self.connection.connection_lost(None)


class ServerWire(Wire):
    """A server's end; `opened` are its streams with what they were told."""

    connection: ServerConnection

    def __init__(self, config: Config = DEFAULTS) -> None:
        self.opened: list[Recorder] = []
        server = Server({PATH: self._serve}, config)
        server._is_open = True
        super().__init__(ServerConnection(server))
        self.feed(PREFACE + frames.settings({}))

    def _serve(self, stream: ServerStream) -> Receiver:
        self.opened.append(Recorder(stream))
        return self.opened[-1]

    def request(self, stream: int = 1, *, ends: bool = False) -> bytes:
        return self.headers(stream, REQUEST, ends=ends)


class ClientWire(Wire):
    """A client's end with one stream, and a server that has not answered."""

    connection: ClientConnection

    def __init__(self, config: Config = DEFAULTS) -> None:
        super().__init__(ClientConnection(config, "http", "a"))
        self.feed(frames.settings({}))
        self.told = Recorder()
        self.stream: ClientStream = self.connection.open(PATH, self.told)

    def response(self) -> bytes:
        return self.headers(1, RESPONSE)

    def trailers(self) -> bytes:
        return self.headers(1, TRAILERS, ends=True)


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return frames.frame(DATA, flags, stream, payload)


def message(body: bytes) -> bytes:
    return len(body).to_bytes(5, "big") + body


def end_of(found: Iterable[Frame]) -> str:
    """How a connection, or its first stream, was ended: `GOAWAY x` or `RST_STREAM x`; nothing else is `none`."""
    for each in found:
        if each.kind == frames.GOAWAY:
            return f"GOAWAY {ErrorCode(int.from_bytes(each.payload[4:8], 'big')).name}"
        if each.kind == frames.RST_STREAM:
            return f"RST_STREAM {ErrorCode(int.from_bytes(each.payload, 'big')).name}"
    return "none"
