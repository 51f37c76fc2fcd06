"""What a connection sends: gathered, and written once per turn of the event loop; what can't go yet waits.

Streams take turns, a chunk each, as far as their windows, the connection's window and the socket let them.
"""

import asyncio
from collections.abc import Callable

from pilot_agent.http2 import frames
from pilot_agent.http2.frames import ConnectionFault, ErrorCode
from pilot_agent.http2.stream import Stream

CHUNK = 256 * 1024
"""Bytes of DATA given to the socket at once: it takes about that much, and more would only lie in a second buffer."""


class Turn:
    """Shared by connections of which one writes what another reads: what a read brought about is written at its end,
    and not in the loop's next turn, which costs a tenth of a small push."""

    def __init__(self) -> None:
        self._is_reading = False
        self._waiting: list[Outgoing] = []

    def begin(self) -> None:
        self._is_reading = True

    def end(self) -> None:
        self._is_reading = False
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.flush()

    def takes(self, outgoing: "Outgoing") -> bool:
        """Whether it will be flushed soon."""
        if self._is_reading:
            self._waiting.append(outgoing)
        return self._is_reading


class Outgoing:
    """Of one connection. `sent` is called when everything was written that could be."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Turn, sent: Callable[[], None]) -> None:
        self._loop, self._turn, self._sent = loop, turn, sent
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes | memoryview] = []
        self._waiting: dict[int, Stream] = {}
        self._window = frames.DEFAULT_WINDOW
        self.largest_frame = frames.SMALLEST_MAX_FRAME
        self.is_blocked = False
        """The socket takes no more."""
        self._is_scheduled = False

    def begin(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=CHUNK // 4, low=CHUNK // 16)
        self._transport = transport

    def end(self) -> None:
        """Write what no window holds back, and forget the rest."""
        self.flush_control()
        self.forget()

    def forget(self) -> None:
        self._out.clear()
        self._waiting.clear()
        self._transport = None

    @property
    def backlog(self) -> int:
        """Bytes the socket has not taken, once it is blocked."""
        return self._transport.get_write_buffer_size() if self.is_blocked and self._transport is not None else 0

    def add(self, frame: bytes) -> None:
        """A frame that no window holds back."""
        self._out.append(frame)
        self._schedule()

    def let_wait(self, stream: Stream) -> None:
        """It has something to send."""
        self._waiting[stream.number] = stream
        self._schedule()

    def drop(self, number: int) -> None:
        self._waiting.pop(number, None)

    def widen(self, increment: int) -> None:
        """The peer's WINDOW_UPDATE of the connection. Raises ConnectionFault (RFC 9113, 6.9.1)."""
        self._window += increment
        if self._window > frames.LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE over the largest window")
        if self._waiting:
            self._schedule()

    def unblock(self) -> None:
        self.is_blocked = False
        self.flush()

    def flush_control(self) -> None:
        if self._out and self._transport is not None:
            out, self._out = self._out, []
            self._transport.writelines(out)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            if not self._turn.takes(self):
                self._loop.call_soon(self.flush)

    def flush(self) -> None:
        self._is_scheduled = False
        while self._waiting and not self.is_blocked:
            if self._window > 0:
                number = next(iter(self._waiting))
            else:
                number = next((each for each, stream in self._waiting.items() if not stream.queued), 0)
            if not number:
                break
            self._next_chunk(number, self._waiting.pop(number))
        self.flush_control()
        self._sent()

    def _next_chunk(self, number: int, stream: Stream) -> None:
        """Of one stream; what has gathered goes to the socket as one piece."""
        taken = 0
        if stream.queued:
            taken = stream.take_out(self._out, min(CHUNK, self._window), self.largest_frame)
            self._window -= taken
        if stream.has_to_send and not stream.queued:
            stream.is_end_sent = True
            self._out.append(stream.last_frames())
        if taken:
            stream.sent()
        if stream.has_to_send:
            self._waiting[number] = stream
        if taken >= CHUNK // 4:
            self.flush_control()
