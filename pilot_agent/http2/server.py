"""The server: connections of a socket that listens already, and for each stream the receiver of its method.

Made for `uds.listener`: it listens before the server exists, and what waits in its backlog is served first. One server
may run, end, and another take over the same socket.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from typing import cast

from pilot_agent.http2 import frames
from pilot_agent.http2.connection import Config, Connection, Gone
from pilot_agent.http2.fields import (
    Fields,
    Metadata,
    check_trailers,
    fields_of,
    first,
    is_grpc,
    metadata_of,
    request_of,
    timeout_of,
)
from pilot_agent.http2.frames import ConnectionFault, ErrorCode, StreamFault
from pilot_agent.http2.status import OK, Code, Status, trailers_of
from pilot_agent.http2.stream import Receiver, Stream

BACKLOG = 1024
MOST_CONNECTIONS = 4096
LAST_WORDS_S = 0.5
"""For connections that were cut to tell their streams."""
LONGEST_SILENCE_S = 20.0
"""Until a new connection has sent its SETTINGS."""

_CREDENTIALS = struct.Struct("3i")

_ANSWER = [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity")]


class ServerStream(Stream):
    """`method` is the path, `pid` the process at the other end of a Unix socket (0 where it is not known)."""

    method: str
    metadata: Metadata
    pid: int

    def __init__(
        self, connection: "ServerConnection", number: int, request: dict[bytes, bytes], fields: Fields
    ) -> None:
        super().__init__(connection, number, connection.initial_window, connection.inbox)
        self.method, self.metadata = request[b":path"].decode(errors="replace"), metadata_of(fields)
        self.pid = connection.pid
        self._has_begun = False
        self._trailers: list[tuple[bytes, bytes]] = []
        self._deadline: asyncio.TimerHandle | None = None

    def expire(self, seconds: float) -> None:
        """End with DEADLINE_EXCEEDED then."""
        self._deadline = self.connection.loop.call_later(seconds, self._expired)

    def end(self, status: Status = OK, metadata: Metadata = ()) -> None:
        """Trailers behind what was written, and the end of the stream. Raises ValueError for metadata that can't be
        sent. Nothing happens on a stream that is over."""
        if self.is_over or self.is_local_done:
            return
        self._trailers = [*trailers_of(status), *fields_of(metadata)]
        self.is_local_done = True
        self.let_go()
        self.connection.wants_to_send(self)

    def refuse(self, status: Status) -> None:
        receiver = self.receiver
        self.end(status)
        if receiver is not None:
            receiver.ended(status)

    def send_headers(self, metadata: Metadata = ()) -> None:
        """Before the first message, which sends them else. Raises ValueError for metadata that can't be sent."""
        if not self._has_begun and not self.is_over:
            self._has_begun = True
            block = self.connection.encode(_ANSWER + fields_of(metadata))
            self.connection.send_control(frames.header_frames(self.number, block, self._largest, ends=False))

    def _before_writing(self) -> None:
        if not self._has_begun:
            self.send_headers()

    @property
    def _largest(self) -> int:
        return self.connection.outgoing.largest_frame

    def last_frames(self) -> bytes:
        fields = self._trailers if self._has_begun else _ANSWER[:2] + self._trailers
        found = frames.header_frames(self.number, self.connection.encode(fields), self._largest, ends=True)
        if not self.is_remote_done:
            found += frames.rst_stream(self.number, ErrorCode.NO_ERROR)  # RFC 9113, 8.1: no more of the request
        self.connection.forget(self.number, Gone.ENDED if self.is_remote_done else Gone.RESET_BY_US)
        return found

    def answer_http(self, status: bytes) -> None:
        """An answer without a body that is not gRPC's."""
        self._trailers, self._has_begun = [(b":status", status)], True
        self.is_local_done = True
        self.let_go()
        self.connection.wants_to_send(self)

    def _tell_end(self) -> None:
        if self.receiver is not None:
            self.receiver.half_closed()

    def _expired(self) -> None:
        self.refuse(Status(Code.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def close(self) -> None:
        self._stop_timer()
        super().close()

    def let_go(self) -> None:
        self._stop_timer()
        super().let_go()

    def _stop_timer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


Handler = Callable[[ServerStream], Receiver]
"""Called with the request's headers. It may write and end at once."""


class ServerConnection(Connection[ServerStream]):
    side, is_server = "SERVER", True

    def __init__(self, server: "Server") -> None:
        super().__init__(server.config)
        self._server = server
        self.pid = 0
        self._silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._server.admit(self):
            self._is_over = True
            cast(asyncio.Transport, transport).abort()
            return
        self.pid = process_behind(transport)
        self._silence = self.loop.call_later(LONGEST_SILENCE_S, self.abort)
        super().connection_made(transport)

    def ready(self) -> None:
        if self._silence is not None:
            self._silence.cancel()

    def lost(self) -> None:
        self.ready()
        self._server.forget(self)

    def is_idle(self, number: int) -> bool:
        return number % 2 == 0 or number > self._last_of_peer

    def fields_received(self, number: int, fields: Fields, *, ends: bool) -> None:
        if number % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a client opens the stream {number}")
        stream = self.streams.get(number)
        if stream is not None:
            self._take_trailers(stream, fields, ends=ends)
        elif number <= self._last_of_peer:
            self.late(number, "HEADERS")
        else:
            self._open(number, fields, ends=ends)

    def _take_trailers(self, stream: ServerStream, fields: Fields, *, ends: bool) -> None:
        if stream.is_remote_done:
            raise StreamFault(stream.number, ErrorCode.STREAM_CLOSED, "HEADERS behind the end of the stream")
        if not ends:
            raise StreamFault(stream.number, ErrorCode.PROTOCOL_ERROR, "trailers without END_STREAM")
        try:
            check_trailers(fields)
        except ValueError as error:
            raise StreamFault(stream.number, ErrorCode.PROTOCOL_ERROR, str(error)) from None
        stream.remote_done()

    def _open(self, number: int, fields: Fields, *, ends: bool) -> None:
        self._last_of_peer = number
        if self._is_closing:
            raise StreamFault(number, ErrorCode.REFUSED_STREAM, "the server ends")
        if len(self.streams) >= self.config.most_streams:
            raise StreamFault(number, ErrorCode.REFUSED_STREAM, "too many streams")
        try:
            request, timeout = request_of(fields), timeout_of(fields)
        except ValueError as error:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, str(error)) from None
        stream = ServerStream(self, number, request, fields)
        self.add(stream)
        if request[b":method"] != b"POST":
            stream.answer_http(b"405")
        elif not is_grpc(fields):
            stream.answer_http(b"415")
        else:
            self._serve(stream, first(fields, b"grpc-encoding"), timeout)
        if ends:
            stream.remote_done()

    def _serve(self, stream: ServerStream, encoding: bytes | None, timeout: float | None) -> None:
        handler = self._server.handlers.get(stream.method)
        if handler is None:
            stream.end(Status(Code.UNIMPLEMENTED, f"unknown method {stream.method}"))
            return
        if encoding not in (None, b"identity"):
            words = f"messages are compressed by {encoding.decode(errors='replace')}: only identity is taken"
            stream.end(Status(Code.UNIMPLEMENTED, words))
            return
        if timeout is not None:
            stream.expire(timeout)
        receiver = handler(stream)
        if not stream.is_over:
            stream.receiver = receiver

    def was_reset(self, stream: ServerStream, code: int) -> None:
        stream.over(Status(Code.CANCELLED, f"the client ended the stream by {frames.name_of(code)}"))


class Server:
    """`handlers` by path. `start` and `close` may follow each other again and again."""

    def __init__(self, handlers: Mapping[str, Handler], config: Config = Config()) -> None:  # noqa: B008  (frozen)
        self.handlers, self.config = handlers, config
        self._connections: set[ServerConnection] = set()
        self._server: asyncio.Server | None = None
        self._is_open = False
        self._is_empty = asyncio.Event()

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def start(self, listening: socket.socket) -> None:
        """Serve what connects, those in the backlog first. The socket stays its owner's."""
        self._is_open = True
        # A duplicate, since asyncio closes what it was given; and not create_unix_server, which removes the file too.
        sock = listening.dup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ServerConnection(self), sock=sock, backlog=BACKLOG)

    async def close(self, grace: float) -> None:
        """Accept no more, say GOAWAY, and after `grace` seconds cut what is left."""
        self._is_open = False
        if self._server is not None:
            self._server.close()
            self._server = None
        if grace > 0:
            for each in list(self._connections):
                each.close_when_done()
            await self._wait(grace)
        for each in list(self._connections):
            each.abort()
        await self._wait(LAST_WORDS_S)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._connections:
                    self._is_empty.clear()
                    await self._is_empty.wait()
        except TimeoutError:
            pass  # the caller goes on with what is left

    def admit(self, connection: ServerConnection) -> bool:
        if not self._is_open or len(self._connections) >= MOST_CONNECTIONS:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()


def process_behind(transport: asyncio.BaseTransport) -> int:
    """The pid of whoever connected to a Unix socket (SO_PEERCRED); 0 for another kind of socket."""
    sock: socket.socket = transport.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:
        return 0
    pid: int = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]
    return pid
