"""One connection of HTTP/2 as both sides have it (RFC 9113): settings, windows, header blocks, pings, errors, ends.

`server` and `client` say what a header block begins. What is to be sent is gathered and written once per turn of the
event loop; when the socket takes no more, it waits in its streams.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Generic, NamedTuple, TypeVar, cast

from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from pilot_agent.http2 import frames
from pilot_agent.http2.budget import Budget
from pilot_agent.http2.fields import Fields
from pilot_agent.http2.frames import ConnectionFault, ErrorCode, StreamFault
from pilot_agent.http2.keepalive import Keepalive
from pilot_agent.http2.outgoing import Outgoing, Turn
from pilot_agent.http2.reader import FrameReader, Sink
from pilot_agent.http2.status import Code, Status
from pilot_agent.http2.stream import Inbox, Stream

LARGEST_BLOCK = 64 * 1024
"""Bytes of a header block, as it comes and unpacked."""
MOST_CONTINUATIONS = 64
CONTROL_RESERVE = 1024
"""Of the buffer, behind the largest header block."""
CONNECTION_WINDOW = 1 << 30
"""Never the limit: each stream has its own."""
LONGEST_BACKLOG = 1 << 20
"""Bytes of answers to a peer that does not read them."""
LINGER_S = 1.0
"""For a GOAWAY to go out before the connection is cut."""
REMEMBERED = 1000
"""Streams that are gone, so that what was on its way to them is no error."""


class Config(NamedTuple):
    """Sizes in bytes, times in seconds. `largest_message` None: any. No keepalive where its interval is None.

    The window is a stream's at rest; the buffer is at least a header block's. `turn`: None for one of its own.
    """

    largest_message: int | None = 4 * 1024 * 1024
    window: int = 256 * 1024
    max_frame: int = frames.SMALLEST_MAX_FRAME
    buffer: int = LARGEST_BLOCK + CONTROL_RESERVE
    most_streams: int = 1000
    keepalive_interval: float | None = None
    keepalive_timeout: float = 20.0
    turn: Turn | None = None


class Gone(Enum):
    """How a stream ended that is not there any more."""

    RESET_BY_US = auto()
    RESET_BY_PEER = auto()
    ENDED = auto()


S = TypeVar("S", bound=Stream)


class Connection(FrameReader, Generic[S]):
    """The transport is there from `connection_made` on. Nothing here raises into the event loop but bugs."""

    side = ""
    is_server = False

    def __init__(self, config: Config) -> None:
        super().__init__(
            max(config.buffer, LARGEST_BLOCK + CONTROL_RESERVE), config.max_frame, wants_preface=self.is_server
        )
        self.config = config
        self.loop = asyncio.get_running_loop()
        self.inbox = Inbox(config.window, config.largest_message, self.side)
        self.transport: asyncio.Transport | None = None
        self.streams: dict[int, S] = {}
        self.goaway: str | None = None
        """What the peer said when it wanted to end."""
        self.end: str | None = None
        """Why there is no connection any more."""
        self._is_closing = False
        self._told_last: int | None = None
        self._gone: OrderedDict[int, Gone] = OrderedDict()
        self._last_of_peer = 0
        self._decoder, self._encoder = Decoder(LARGEST_BLOCK), Encoder()
        self._block = bytearray()
        self._block_of = self._block_frames = 0
        self._block_ends = self._has_settings = False
        self._window = CONNECTION_WINDOW
        # The peer's
        self.initial_window = frames.DEFAULT_WINDOW
        self.most_streams_out = frames.LARGEST_STREAM
        self._turn = config.turn or Turn()
        self.outgoing = Outgoing(self.loop, self._turn, self._close_if_done)
        time = self.loop.time
        self._resets = Budget("reset streams", 1000, 33.0, time)
        self._replies = Budget("PING and SETTINGS", 1000, 100.0, time)
        self._idle = Budget("frames that say nothing", 10_000, 1000.0, time)
        self._keepalive = Keepalive(config.keepalive_interval, config.keepalive_timeout, self)
        self._linger: asyncio.TimerHandle | None = None
        self._takers: tuple[Callable[[int, int, memoryview], None], ...] = (
            self._take_headers,
            self._take_priority,
            self._take_rst_stream,
            self._take_settings,
            self._take_push_promise,
            self._take_ping,
            self._take_goaway,
            self._take_window_update,
            self._take_continuation,
        )

    # asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.outgoing.begin(self.transport)
        settings = {
            frames.INITIAL_WINDOW_SIZE: self.config.window,
            frames.MAX_FRAME_SIZE: self.config.max_frame,
            frames.MAX_HEADER_LIST_SIZE: LARGEST_BLOCK,
        }
        settings |= (
            {frames.MAX_CONCURRENT_STREAMS: self.config.most_streams} if self.is_server else {frames.ENABLE_PUSH: 0}
        )
        opening = b"" if self.is_server else frames.PREFACE
        widened = frames.window_update(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW)
        self.send_control(opening + frames.settings(settings) + widened)

    def buffer_updated(self, nbytes: int) -> None:
        self._keepalive.heard()
        self._turn.begin()
        try:
            super().buffer_updated(nbytes)
        finally:
            self._turn.end()

    def pause_writing(self) -> None:
        self.outgoing.is_blocked = True

    def resume_writing(self) -> None:
        self.outgoing.unblock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self.outgoing.forget()
        self._keepalive.stop()
        if self._linger is not None:
            self._linger.cancel()
        # gRPC's own words, which people search for.
        why = "Socket closed" if exc is None else f"connection error: {getattr(exc, 'strerror', None) or exc}"
        self._end_streams(Status(Code.UNAVAILABLE, why))
        self._takers, self._view = (), memoryview(b"")  # else held until the next garbage collection
        self.lost()

    def lost(self) -> None:
        """The connection is not there any more."""

    # Ends

    @property
    def is_over(self) -> bool:
        return self._is_over

    def close_when_done(self) -> None:
        """Take no more streams, and close when those there are have ended."""
        if self._is_closing or self._is_over:
            return
        self._is_closing, self._told_last = True, self._last_of_peer
        self.send_control(frames.goaway(self._told_last, ErrorCode.NO_ERROR))
        self._close_if_done()

    def abort(self) -> None:
        """At once, whatever is on its way."""
        self._is_over = True
        if self.transport is not None:
            self.transport.abort()

    def fail(self, code: ErrorCode, text: str, status: Status | None = None) -> None:
        """GOAWAY, and the end of the connection with all its streams, which are told `status`."""
        if self._is_over:
            return
        self._is_over = True
        last = self._last_of_peer if self._told_last is None else self._told_last
        self.outgoing.add(frames.goaway(last, code, text))
        self.outgoing.end()
        self._end_streams(status or Status(Code.INTERNAL, f"HTTP/2 {code.name}: {text}"))
        self._close()

    def _fail(self, fault: ConnectionFault) -> None:
        self.fail(fault.code, fault.text)

    def _close(self) -> None:
        if self.transport is not None and self._linger is None:
            self._linger = self.loop.call_later(LINGER_S, self.transport.abort)
            self.transport.close()

    def _close_if_done(self) -> None:
        if self._is_closing and not self.streams and not self._is_over:
            self._is_over = True
            self.outgoing.end()
            self._close()

    def _end_streams(self, status: Status) -> None:
        self.end = self.end or status.message
        if self.goaway is not None:
            status = Status(status.code, f"{self.goaway}; {status.message}")
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.over(status)

    # Streams

    def reset(self, number: int, code: ErrorCode) -> None:
        """RST_STREAM, for a stream that is there."""
        if self.streams.get(number) is not None:
            self.forget(number, Gone.RESET_BY_US)
            self.send_control(frames.rst_stream(number, code))
            self._close_if_done()

    def forget(self, number: int, how: Gone) -> None:
        self.streams.pop(number, None)
        self.outgoing.drop(number)
        self._gone[number] = how
        if len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        if not self.streams:
            self._keepalive.stop()

    def add(self, stream: S) -> None:
        self.streams[stream.number] = stream
        self._keepalive.start()

    def report(self, stream: Stream, error: Exception) -> None:
        """A receiver raised: a bug, which ends its stream."""
        self.loop.call_exception_handler({"message": "the receiver of a stream failed", "exception": error})
        receiver = stream.receiver
        stream.cancel(ErrorCode.INTERNAL_ERROR)
        if receiver is not None:
            receiver.ended(Status(Code.INTERNAL, f"the receiver failed: {error!r}"))

    def is_idle(self, number: int) -> bool:
        """Whether nobody has opened that stream yet."""
        raise NotImplementedError

    def fields_received(self, number: int, fields: Fields, *, ends: bool) -> None:
        """A whole header block. Raises ConnectionFault, StreamFault."""
        raise NotImplementedError

    def _stream(self, number: int, what: str) -> S | None:
        """None for one that is gone. Raises ConnectionFault for one that never was."""
        found = self.streams.get(number)
        if found is None and (number == 0 or self.is_idle(number)):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on the stream {number}, which nobody has opened")
        return found

    def late(self, number: int, what: str) -> None:
        """DATA or HEADERS for a stream that is gone (section 5.1). Raises ConnectionFault or StreamFault, unless we
        were the ones to reset it: then the peer could not know."""
        how = self._gone.get(number)
        if how is Gone.RESET_BY_US:
            self._idle.spend()
        elif how is Gone.ENDED:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"{what} on the stream {number}, which has ended")
        else:
            raise StreamFault(number, ErrorCode.STREAM_CLOSED, f"{what} on a closed stream")

    def _fault(self, fault: StreamFault) -> None:
        """A stream error."""
        self._resets.spend()
        stream = self.streams.get(fault.stream)
        self.forget(fault.stream, Gone.RESET_BY_US)
        self.send_control(frames.rst_stream(fault.stream, fault.code))
        if stream is not None:
            stream.over(Status(Code.INTERNAL, f"HTTP/2 {fault}"))
        self._close_if_done()

    # Frames

    def _check_gate(self, kind: int, flags: int, stream: int) -> None:
        if not self._has_settings and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is no SETTINGS")
        if self._block_of and (kind != frames.CONTINUATION or stream != self._block_of):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block that another frame comes between")

    def _data(self, stream: int, length: int, *, is_last: bool) -> Sink | None:
        self._window -= length
        if self._window < CONNECTION_WINDOW // 2:
            self.send_control(frames.window_update(0, CONNECTION_WINDOW - self._window))
            self._window = CONNECTION_WINDOW
        if not length and not is_last:
            self._idle.spend()
        try:
            return self._data_of(stream, length)
        except StreamFault as fault:
            self._fault(fault)
            return None

    def _data_of(self, number: int, length: int) -> Sink | None:
        stream = self._stream(number, "DATA")
        if stream is None:
            self.late(number, "DATA")
            return None
        if stream.is_remote_done:
            raise StreamFault(number, ErrorCode.STREAM_CLOSED, "DATA behind the end of the stream")
        if not stream.may_receive_data:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "DATA before HEADERS")
        stream.window -= length
        if stream.window < 0:
            raise StreamFault(number, ErrorCode.FLOW_CONTROL_ERROR, "DATA over the window")
        return stream

    def _frame(self, kind: int, flags: int, stream: int, payload: memoryview) -> None:
        try:
            self._takers[kind - 1](flags, stream, payload)
        except StreamFault as fault:
            self._fault(fault)

    def _unknown(self) -> None:
        self._idle.spend()

    def _take_headers(self, flags: int, number: int, payload: memoryview) -> None:
        start, end = 0, len(payload)
        if flags & frames.PADDED:
            if not end:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without the length of its padding")
            start, end = 1, end - payload[0]
        if flags & frames.PRIORITIZED:
            start += 5
        if start > end:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS shorter than their padding and priority")
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        self._block += payload[start:end]
        self._block_of, self._block_ends, self._block_frames = number, bool(flags & frames.END_STREAM), 0
        self._end_block(flags)

    def _take_continuation(self, flags: int, number: int, payload: memoryview) -> None:
        if number != self._block_of or number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without a header block before it")
        self._block_frames += 1
        self._block += payload
        if self._block_frames > MOST_CONTINUATIONS:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many CONTINUATION")
        self._end_block(flags)

    def _end_block(self, flags: int) -> None:
        if len(self._block) > LARGEST_BLOCK:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a header block over {LARGEST_BLOCK} bytes")
        self._is_gated = not flags & frames.END_HEADERS
        if self._is_gated:
            return
        number, self._block_of = self._block_of, 0
        block = bytes(self._block)
        self._block.clear()
        try:
            fields = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError as error:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, str(error)) from None
        except (HPACKError, ValueError, IndexError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"a header block: {error}") from None
        self.fields_received(number, cast(Any, fields), ends=self._block_ends)

    def _take_priority(self, flags: int, number: int, payload: memoryview) -> None:  # noqa: ARG002
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise StreamFault(number, ErrorCode.FRAME_SIZE_ERROR, f"PRIORITY of {len(payload)} bytes")
        self._idle.spend()

    def _take_rst_stream(self, flags: int, number: int, payload: memoryview) -> None:  # noqa: ARG002
        code = frames.number_of(payload, "RST_STREAM")
        stream = self._stream(number, "RST_STREAM")
        self._resets.spend()
        if stream is None:
            return
        self.forget(number, Gone.RESET_BY_PEER)
        self.was_reset(stream, code)
        self._close_if_done()

    def was_reset(self, stream: S, code: int) -> None:
        raise NotImplementedError

    def _take_settings(self, flags: int, number: int, payload: memoryview) -> None:
        if number != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS on the stream {number}")
        if flags & frames.ACK:
            if len(payload):
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload")
            return
        self._replies.spend()
        for setting, value in frames.settings_of(payload):
            self._set(setting, value)
        if not self._has_settings:
            self._has_settings, self._is_gated = True, False
            self.ready()
        self._reply(frames.SETTINGS_ACK)

    def ready(self) -> None:
        """The peer's settings have come."""

    def _set(self, setting: int, value: int) -> None:
        """One of the peer's settings (section 6.5.2)."""
        if setting == frames.INITIAL_WINDOW_SIZE:
            self._set_initial_window(value)
        elif setting == frames.MAX_FRAME_SIZE:
            if not frames.SMALLEST_MAX_FRAME <= value <= frames.LARGEST_MAX_FRAME:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE of {value}")
            self.outgoing.largest_frame = value
        elif setting == frames.HEADER_TABLE_SIZE:
            self._encoder.header_table_size = min(value, 4096)
        elif setting == frames.MAX_CONCURRENT_STREAMS:
            self.most_streams_out = value
        elif setting == frames.ENABLE_PUSH and (value > 1 or (value and not self.is_server)):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_ENABLE_PUSH of {value}")

    def _set_initial_window(self, value: int) -> None:
        if value > frames.LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"SETTINGS_INITIAL_WINDOW_SIZE of {value}")
        change, self.initial_window = value - self.initial_window, value
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > frames.LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS widen a stream's window over the largest")
            self.wants_to_send(stream)

    def _take_push_promise(self, flags: int, number: int, payload: memoryview) -> None:  # noqa: ARG002
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody asked for")

    def _take_ping(self, flags: int, number: int, payload: memoryview) -> None:
        if number != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"PING on the stream {number}")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
        if not flags & frames.ACK:
            self._replies.spend()
            self._reply(frames.ping(bytes(payload), is_ack=True))

    def _take_goaway(self, flags: int, number: int, payload: memoryview) -> None:  # noqa: ARG002
        if number != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"GOAWAY on the stream {number}")
        self._idle.spend()
        last, code, debug = frames.goaway_of(payload)
        self.goaway = f"GOAWAY received; Error code: {code}; Debug Text: {debug[:500]}"
        self.was_told_to_go(last)

    def was_told_to_go(self, last: int) -> None:
        """The peer will look at no stream above `last` that we opened."""

    def _take_window_update(self, flags: int, number: int, payload: memoryview) -> None:  # noqa: ARG002
        increment = frames.number_of(payload, "WINDOW_UPDATE") & frames.LARGEST_WINDOW
        if number:
            stream = self._stream(number, "WINDOW_UPDATE")
            if stream is None:
                self._idle.spend()
            elif not increment:
                raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            else:
                stream.widen(increment)
                self.wants_to_send(stream)
            return
        if not increment:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        self.outgoing.widen(increment)

    # Sending

    def send_control(self, frame: bytes) -> None:
        """A frame that no window holds back."""
        if not self._is_over:
            self.outgoing.add(frame)

    def encode(self, fields: Sequence[tuple[bytes, ...]]) -> bytes:
        """A header block, which must be the next one to be sent: both sides keep the same table."""
        return self._encoder.encode(cast(Any, fields))

    def wants_to_send(self, stream: Stream) -> None:
        if stream.has_to_send and stream.number in self.streams and not self._is_over:
            self.outgoing.let_wait(stream)

    def _reply(self, frame: bytes) -> None:
        """Raises ConnectionFault when the peer reads none of our answers."""
        if self.outgoing.backlog > LONGEST_BACKLOG:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "our answers are not read")
        self.send_control(frame)
