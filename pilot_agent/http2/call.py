"""A stream to be awaited: reads and writes one message at a time. For whoever needs no more speed than that."""

import asyncio
from collections import deque

from pilot_agent.http2.client import ClientConnection, ClientStream
from pilot_agent.http2.fields import Metadata
from pilot_agent.http2.server import ServerStream
from pilot_agent.http2.status import OK, Code, Status
from pilot_agent.http2.stream import Message, Stream

MOST_UNREAD = 16
"""Messages; beyond, the other side waits."""


class Call:
    """The receiver of one stream, on either side."""

    def __init__(self) -> None:
        self._stream: Stream | None = None
        self._messages: deque[Message] = deque()
        self._has_news = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._is_half_closed = False
        self.status: Status | None = None
        """How it ended; None while it has not."""

    @classmethod
    def open(
        cls, connection: ClientConnection, method: str, metadata: Metadata = (), timeout: float | None = None
    ) -> "Call":
        """Raises ValueError for metadata that can't be sent."""
        call = cls()
        call._stream = connection.open(method, call, metadata, timeout)
        return call

    @classmethod
    def of(cls, stream: ServerStream) -> "Call":
        """For a handler: return it, and let a task of your own use it."""
        call = cls()
        call._stream = stream
        return call

    @property
    def stream(self) -> Stream:
        assert self._stream is not None
        return self._stream

    @property
    def headers(self) -> Metadata:
        return self.stream.headers if isinstance(self.stream, ClientStream) else ()

    @property
    def trailers(self) -> Metadata:
        return self.stream.trailers if isinstance(self.stream, ClientStream) else ()

    async def read(self) -> Message | None:
        """The next message; None when there are no more, and `status` or the client's half-close say why."""
        while not self._messages:
            if self._is_half_closed or self.status is not None:
                return None
            self._has_news.clear()
            await self._has_news.wait()
        message = self._messages.popleft()
        if not self._messages:
            self.stream.resume_reading()
        return message

    async def write(self, message: Message) -> None:
        """Waits before, while the other side does not read. Writing to what has ended does nothing."""
        await self._may_write.wait()
        self.stream.write(message)

    async def finished(self) -> Status:
        """Wait for the end; messages that were not read are kept, however many."""
        while self.status is None:
            self._has_news.clear()
            self.stream.resume_reading()
            if self.status is None:
                await self._has_news.wait()
        return self.status

    def end_writing(self) -> None:
        """A client's half-close."""
        assert isinstance(self.stream, ClientStream)
        self.stream.end_writing()

    def end(self, status: Status = OK, metadata: Metadata = ()) -> None:
        """A server's end."""
        assert isinstance(self.stream, ServerStream)
        self.stream.end(status, metadata)
        self.ended(status)

    def cancel(self) -> None:
        self.stream.cancel()
        self.ended(Status(Code.CANCELLED, "cancelled here"))

    # stream.Receiver

    def message_received(self, message: Message) -> None:
        self._messages.append(message)
        self._has_news.set()
        if len(self._messages) >= MOST_UNREAD:
            self.stream.pause_reading()

    def half_closed(self) -> None:
        self._is_half_closed = True
        self._has_news.set()

    def ended(self, status: Status) -> None:
        if self.status is None:
            self.status = status
        self._may_write.set()
        self._has_news.set()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()
