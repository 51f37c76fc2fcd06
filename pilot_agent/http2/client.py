"""The client's side of a connection, and of its streams: requests out, headers and trailers in. `connect` makes one."""

import asyncio

from pilot_agent import __version__
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
    response_status,
    timeout_field,
)
from pilot_agent.http2.frames import ErrorCode, StreamFault
from pilot_agent.http2.status import Code, Status, status_of, status_of_http, status_of_reset
from pilot_agent.http2.stream import Receiver, Stream

USER_AGENT = f"grpc-python-pilot-agent/{__version__}"
_SENSITIVE = frozenset((b"authorization", b"cookie"))
"""Never in a table of the connection's compression (RFC 7541, 7.1.3)."""


class ClientStream(Stream):
    """`headers` and `trailers` are the server's metadata, once they have come."""

    headers: Metadata = ()
    trailers: Metadata = ()

    def __init__(self, connection: "ClientConnection", number: int, receiver: Receiver) -> None:
        super().__init__(connection, number, connection.initial_window, connection.inbox)
        self.receiver = receiver
        self.may_receive_data = False
        self._status: Status | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def expire(self, seconds: float) -> None:
        self._deadline = self.connection.loop.call_later(seconds, self._expired)

    def end_writing(self) -> None:
        """Half-close: the server still answers."""
        if not self.is_over and not self.is_local_done:
            self.is_local_done = True
            self.connection.wants_to_send(self)

    def refuse(self, status: Status) -> None:
        self.connection.reset(self.number, ErrorCode.CANCEL)
        self.over(status)

    def last_frames(self) -> bytes:
        if self.is_remote_done:
            self.connection.forget(self.number, Gone.ENDED)
        return frames.frame(frames.DATA, frames.END_STREAM, self.number)

    def fields_received(self, fields: Fields, *, ends: bool) -> None:
        """Raises ValueError for a malformed block."""
        if self.may_receive_data:
            check_trailers(fields)
            if not ends:
                raise ValueError("trailers without END_STREAM")
            self._take_status(fields, OK_WITHOUT_STATUS)
            return
        status = response_status(fields)
        if ends:
            self._take_status(fields, status_of_http(status))
        elif status >= 200:
            self.may_receive_data, self.headers = True, metadata_of(fields)
            if status != 200 or not is_grpc(fields):
                self.refuse(_no_grpc(status, fields))

    def remote_done(self) -> None:
        super().remote_done()
        if self.is_local_done and self.is_end_sent:
            self.connection.forget(self.number, Gone.ENDED)
        else:
            self.connection.reset(self.number, ErrorCode.NO_ERROR if self.is_local_done else ErrorCode.CANCEL)

    def close(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().close()

    def _take_status(self, fields: Fields, otherwise: Status) -> None:
        code = first(fields, b"grpc-status")
        self._status = otherwise if code is None else status_of(code, first(fields, b"grpc-message") or b"")
        self.trailers = metadata_of(fields)

    def _tell_end(self) -> None:
        self.over(self._status or OK_WITHOUT_STATUS)

    def _expired(self) -> None:
        self.refuse(Status(Code.DEADLINE_EXCEEDED, "Deadline Exceeded"))


OK_WITHOUT_STATUS = status_of_http(200)


def _no_grpc(status: int, fields: Fields) -> Status:
    if status != 200:
        return status_of_http(status)
    content_type = (first(fields, b"content-type") or b"none").decode(errors="replace")
    return Status(Code.UNKNOWN, f"the answer is not gRPC's: its content-type is {content_type}")


class ClientConnection(Connection[ClientStream]):
    """Of `connect`. `authority` is the server's name to the outside."""

    side = "CLIENT"

    def __init__(self, config: Config, scheme: str, authority: str) -> None:
        super().__init__(config)
        self._scheme, self._authority = scheme.encode(), authority.encode()
        self._next = 1
        self._is_lost, self._is_known = asyncio.Event(), asyncio.Event()

    def open(
        self, method: str, receiver: Receiver, metadata: Metadata = (), timeout: float | None = None
    ) -> ClientStream:
        """A stream of `method` (a path), `timeout` seconds long. Its end, also of a connection that is gone already, is
        told to the receiver; not before this returns. Raises ValueError for metadata that can't be sent."""
        fields = self._request(method, metadata, timeout)
        stream = ClientStream(self, self._next, receiver)
        self._next += 2
        refusal = self._refusal()
        if refusal is not None:
            self.loop.call_soon(stream.over, Status(Code.UNAVAILABLE, refusal))
            return stream
        self.add(stream)
        block = self.encode(fields)
        self.send_control(frames.header_frames(stream.number, block, self.outgoing.largest_frame, ends=False))
        if timeout is not None:
            stream.expire(timeout)
        return stream

    async def wait_closed(self) -> None:
        """Until nothing is left of it."""
        await self._is_lost.wait()

    async def wait_ready(self) -> str | None:
        """Until the server has sent its settings, which every one opens with; why it will not, if so."""
        await self._is_known.wait()
        return None if self._has_settings else self.end

    def ready(self) -> None:
        self._is_known.set()

    def lost(self) -> None:
        self._is_known.set()
        self._is_lost.set()

    def close(self) -> None:
        """Cancel every stream, and close."""
        for stream in list(self.streams.values()):
            stream.cancel()
        self.close_when_done()

    def _request(self, method: str, metadata: Metadata, timeout: float | None) -> list[tuple[bytes, ...]]:
        found: list[tuple[bytes, ...]] = [
            (b":method", b"POST"),
            (b":scheme", self._scheme),
            (b":path", method.encode()),
            (b":authority", self._authority),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", USER_AGENT.encode()),
            (b"grpc-accept-encoding", b"identity"),
        ]
        if timeout is not None:
            found.append(timeout_field(timeout))
        for name, value in fields_of(metadata):
            found.append((name, value, name in _SENSITIVE))  # type: ignore[arg-type]  # hpack: a flag behind the pair
        return found

    def _refusal(self) -> str | None:
        if self.is_over or self._is_closing:
            return "the connection is closed"
        if self.goaway is not None:
            return f"the server takes no more streams: {self.goaway}"
        if len(self.streams) >= self.most_streams_out:
            return f"the server takes no more than {self.most_streams_out} streams at once"
        if self._next > frames.LARGEST_STREAM:
            return "the connection has no numbers left for streams"
        return None

    # What the connection asks of its side

    def is_idle(self, number: int) -> bool:
        return number % 2 == 0 or number >= self._next

    def fields_received(self, number: int, fields: Fields, *, ends: bool) -> None:
        stream = self._stream(number, "HEADERS")
        if stream is None:
            self.late(number, "HEADERS")
            return
        if stream.is_remote_done:
            raise StreamFault(number, ErrorCode.STREAM_CLOSED, "HEADERS behind the end of the stream")
        try:
            stream.fields_received(fields, ends=ends)
        except ValueError as error:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, str(error)) from None
        if ends and not stream.is_over:
            stream.remote_done()

    def was_reset(self, stream: ClientStream, code: int) -> None:
        stream.over(status_of_reset(code))

    def was_told_to_go(self, last: int) -> None:
        for number in [each for each in self.streams if each > last]:
            stream = self.streams[number]
            self.forget(number, Gone.RESET_BY_US)
            stream.over(Status(Code.UNAVAILABLE, f"the server did not look at the stream: {self.goaway}"))
        if not self.streams:
            self.close_when_done()
