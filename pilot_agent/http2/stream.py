"""One stream as both sides have it: gRPC's messages out of DATA and into it, and the windows of both directions.

Messages are prefixed by five bytes: whether it is compressed, and its length (gRPC's PROTOCOL-HTTP2.md). A received one
is in memory once: what is larger than one read is written where it stays. `connection` decides when something is sent.
"""

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pilot_agent.http2.frames import DATA, LARGEST_WINDOW, ErrorCode, StreamFault, header, window_update
from pilot_agent.http2.status import Code, Status

if TYPE_CHECKING:
    from pilot_agent.http2.connection import Connection

Message = bytes | bytearray

PREFIX_SIZE = 5
HIGH_WATER, LOW_WATER = 64 * 1024, 16 * 1024
"""Bytes that wait to be sent: above, the writer is asked to pause; below, to go on."""
SMALL_MESSAGE = 16 * 1024
"""Up to here a message is copied behind its prefix, which is cheaper than to send it as a part of its own."""
LARGEST_AT_ONCE = 64 * 1024 * 1024
"""Of what a prefix announces, so much is made room for before it comes."""


class Receiver(Protocol):
    """Who is told of a stream. Nothing is told any more after `ended`, nor after the stream's own `end` or `cancel`."""

    def message_received(self, message: Message) -> None: ...
    def half_closed(self) -> None:
        """The client writes no more. Told to a server only."""
        ...

    def ended(self, status: Status) -> None:
        """By the other side, or with the connection: it is not there any more, and what was not sent never is."""
        ...

    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Inbox(NamedTuple):
    """What a stream takes: the window at rest, and the largest message (None: any), both in bytes."""

    window: int
    largest_message: int | None
    side: str
    """SERVER or CLIENT, as gRPC names itself in its words."""


class Stream:
    """Made by the connection. Everything here is to be called from the event loop, and nothing waits."""

    def __init__(self, connection: "Connection[Any]", number: int, send_window: int, inbox: Inbox) -> None:
        self.connection, self.number = connection, number
        self.receiver: Receiver | None = None
        self.is_over = False
        """Nothing more is told to the receiver."""
        self.is_remote_done = self.is_local_done = False
        """END_STREAM was read; nothing more is written behind what waits."""
        self.is_end_sent = False
        self.may_receive_data = True
        self.end_status: Status | None = None
        """What the receiver is told once it has read everything."""
        # Received
        self._inbox = inbox
        self._most = LARGEST_WINDOW if inbox.largest_message is None else inbox.largest_message
        self.window = inbox.window
        self._head = bytearray()
        self._message: bytearray | None = None
        self._filled = self._length = 0
        self._held: deque[Message] = deque()
        self._is_reading = True
        # To be sent
        self.send_window = send_window
        self._queue: deque[bytes | memoryview] = deque()
        self.queued = 0
        self._is_writer_paused = False

    # For the user

    def write(self, message: Message) -> None:
        """Send a message; it must not be changed any more. What can't go out at once waits, without a bound: heed
        `pause_writing`. Nothing happens on a stream that is over."""
        if self.is_over or self.is_local_done:
            return
        self._before_writing()
        size = len(message)
        prefix = size.to_bytes(PREFIX_SIZE, "big")
        if size <= SMALL_MESSAGE:
            self._queue.append(prefix + message)
        else:
            self._queue.append(prefix)
            self._queue.append(memoryview(message))
        self.queued += PREFIX_SIZE + size
        self.connection.wants_to_send(self)
        if self.queued > HIGH_WATER and not self._is_writer_paused:
            self._is_writer_paused = True
            if self.receiver is not None:
                self.receiver.pause_writing()

    def cancel(self, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """End it in both directions, at once: what waits is not sent."""
        self.connection.reset(self.number, code)
        self.close()

    def pause_reading(self) -> None:
        """Tell of no more messages. The peer may send what its window allows, and then waits."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Tells of what has come meanwhile, before it returns."""
        if self._is_reading:
            return
        self._is_reading = True
        while self._held and self._is_reading and not self.is_over:
            self._tell(self._held.popleft())
        self._after_reading()

    @property
    def is_writing_paused(self) -> bool:
        return self._is_writer_paused

    def _before_writing(self) -> None:
        """A server's headers go before its first message."""

    # DATA received (reader.Sink)

    def take(self, data: memoryview) -> None:
        position, end = 0, len(data)
        while position < end and not self.is_over:
            if self._message is not None:
                size = min(end - position, len(self._message) - self._filled)
                self._message[self._filled : self._filled + size] = data[position : position + size]
                position += size
                self.filled(size)
            elif self._head or end - position < PREFIX_SIZE:
                size = min(end - position, PREFIX_SIZE - len(self._head))
                self._head += data[position : position + size]
                position += size
                if len(self._head) == PREFIX_SIZE:
                    self._begin(self._head)
                    self._head.clear()
            else:
                start = position + PREFIX_SIZE
                stop = start + int.from_bytes(data[position + 1 : start], "big")
                if stop > end or data[position] or stop - start > self._most:
                    self._begin(data[position:start])
                    position = start
                else:
                    self._deliver(bytes(data[start:stop]))
                    position = stop

    def room(self, most: int) -> memoryview | None:
        if self._message is None:
            return None
        return memoryview(self._message)[self._filled : self._filled + most]

    def filled(self, size: int) -> None:
        self._filled += size
        message = self._message
        if message is None:
            return
        if self._filled == self._length:
            self._message = None
            self._deliver(message)
        elif self._filled == len(message):
            self._message = bytearray(min(self._length, 2 * len(message)))
            self._message[: self._filled] = message

    def data_ended(self, *, is_last: bool) -> None:
        if is_last:
            self.remote_done()
        elif not self.is_over:
            self._replenish()

    def _begin(self, prefix: bytearray | memoryview) -> None:
        length = int.from_bytes(prefix[1:], "big")
        largest = self._inbox.largest_message
        if prefix[0] > 1:
            self.refuse(Status(Code.INTERNAL, f"a message with the flag {prefix[0]}"))
        elif prefix[0]:
            self.refuse(Status(Code.UNIMPLEMENTED, "a compressed message: only identity is taken"))
        elif largest is not None and length > largest:
            words = f"{self._inbox.side}: Received message larger than max ({length} vs. {largest})"
            self.refuse(Status(Code.RESOURCE_EXHAUSTED, words))
        elif length == 0:
            self._deliver(b"")
        else:
            self._length, self._filled = length, 0
            self._message = bytearray(min(length, LARGEST_AT_ONCE))

    def refuse(self, status: Status) -> None:
        """End the stream at both sides, for what the peer sent, and tell the receiver."""
        raise NotImplementedError

    def _deliver(self, message: Message) -> None:
        if self._is_reading and not self._held:
            self._tell(message)
        else:
            self._held.append(message)

    def _tell(self, message: Message) -> None:
        if self.receiver is None or self.is_over:
            return
        try:
            self.receiver.message_received(message)
        except Exception as error:  # noqa: BLE001 - a bug of the receiver is told, and ends its stream only
            self.connection.report(self, error)

    # The window

    def _replenish(self) -> None:
        """Give back what was read. A message on its way is granted whole, as gRPC does it: its memory is there already,
        and so the window at rest need not be as large as the largest message."""
        if not self._is_reading or self.is_remote_done:
            return
        wanted = self._inbox.window
        if self._message is not None:
            wanted = min(wanted + self._length - self._filled, LARGEST_WINDOW)
        if wanted - self.window >= self._inbox.window // 2:
            self.connection.send_control(window_update(self.number, wanted - self.window))
            self.window = wanted

    def _after_reading(self) -> None:
        if not self._is_reading or self._held or self.is_over:
            return
        if self.is_remote_done:
            self._tell_end()
        else:
            self._replenish()

    # Ends

    def remote_done(self) -> None:
        """END_STREAM was read."""
        self.is_remote_done = True
        if self.is_over:
            return
        if self._message is not None or self._head:
            self.refuse(Status(Code.INTERNAL, "the stream ended within a message"))
        else:
            self._after_reading()

    def _tell_end(self) -> None:
        raise NotImplementedError

    def over(self, status: Status) -> None:
        """Tell the receiver, if it was not told, and forget everything."""
        receiver = None if self.is_over else self.receiver
        self.close()
        if receiver is not None:
            receiver.ended(status)

    def let_go(self) -> None:
        """Tell nothing more; what waits is still sent."""
        self.is_over = True
        self.receiver = self._message = None
        self._held.clear()

    def close(self) -> None:
        self.let_go()
        self._queue.clear()
        self.queued = 0
        self.is_end_sent = True

    # What the connection sends of it

    @property
    def has_to_send(self) -> bool:
        """What the stream's own window lets through."""
        if self.queued:
            return self.send_window > 0
        return self.is_local_done and not self.is_end_sent

    def widen(self, increment: int) -> None:
        """Raises StreamFault when the window would be larger than any may be (RFC 9113, 6.9.1)."""
        self.send_window += increment
        if self.send_window > LARGEST_WINDOW:
            raise StreamFault(self.number, ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE over the largest window")

    def take_out(self, parts: list[bytes | memoryview], most: int, largest_frame: int) -> int:
        """Put DATA of up to `most` bytes into `parts`, as far as the stream's window goes; how many it were."""
        taken = 0
        most = min(most, self.send_window, self.queued)
        while taken < most:
            size = min(most - taken, largest_frame)
            parts.append(header(size, DATA, 0, self.number))
            self._collect(parts, size)
            taken += size
        self.send_window -= taken
        self.queued -= taken
        return taken

    def _collect(self, parts: list[bytes | memoryview], size: int) -> None:
        while size:
            item = self._queue[0]
            if len(item) <= size:
                parts.append(item)
                self._queue.popleft()
                size -= len(item)
            else:
                rest = memoryview(item)
                parts.append(rest[:size])
                self._queue[0] = rest[size:]
                return

    def sent(self) -> None:
        """Some of it went out: the writer may go on."""
        if self._is_writer_paused and self.queued <= LOW_WATER:
            self._is_writer_paused = False
            if self.receiver is not None:
                self.receiver.resume_writing()

    def last_frames(self) -> bytes:
        """What goes behind the last message, with END_STREAM."""
        raise NotImplementedError
