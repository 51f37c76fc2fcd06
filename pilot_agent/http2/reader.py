"""Cuts what a socket gives into frames: one buffer, one pass, no object for a frame.

DATA goes on in pieces as it comes, straight into the message it belongs to where the rest of its frame is larger than
the buffer. Other frames are small, and handed on whole. What they mean is for `connection`.
"""

import asyncio
from typing import Protocol

from pilot_agent.http2.frames import (
    DATA,
    END_STREAM,
    HEADER,
    HEADER_SIZE,
    LARGEST_STREAM,
    PADDED,
    PREFACE,
    ConnectionFault,
    ErrorCode,
)

_LAST_KIND = 9


class Sink(Protocol):
    """Where the DATA of a stream goes. None of these raises: what is wrong with a stream ends the stream."""

    def take(self, data: memoryview) -> None: ...
    def room(self, most: int) -> memoryview | None:
        """Where up to `most` bytes may be written, instead of giving them to `take`; then `filled` tells how many."""
        ...

    def filled(self, size: int) -> None: ...
    def data_ended(self, *, is_last: bool) -> None: ...


class FrameReader(asyncio.BufferedProtocol):
    """`size` is the buffer's, and so bounds every frame but DATA and those of unknown kinds."""

    def __init__(self, size: int, largest_frame: int, *, wants_preface: bool) -> None:
        self._view = memoryview(bytearray(size))
        self._size, self._largest_frame = size, largest_frame
        self._start = self._end = 0
        self._wants_preface = wants_preface
        self._is_gated = True
        """Whether the next frame can't be just any."""
        self._is_over = False
        # Of the DATA frame that is being read, or the unknown one that is passed over:
        self._sink: Sink | None = None
        self._left = self._skip = 0
        self._is_last = False
        self._direct: Sink | None = None

    # What the connection says of frames; each raises ConnectionFault

    def _check_gate(self, kind: int, flags: int, stream: int) -> None:
        raise NotImplementedError

    def _data(self, stream: int, length: int, *, is_last: bool) -> Sink | None:
        """Who gets a DATA frame whose payload is `length` bytes with its padding; None: nobody."""
        raise NotImplementedError

    def _frame(self, kind: int, flags: int, stream: int, payload: memoryview) -> None:
        raise NotImplementedError

    def _unknown(self) -> None:
        raise NotImplementedError

    def _fail(self, fault: ConnectionFault) -> None:
        raise NotImplementedError

    # asyncio.BufferedProtocol

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio's name)
        self._direct = None  # TLS may have asked before, and then had nothing to give
        if self._start < self._end:
            if self._start:
                rest = self._end - self._start
                self._view[:rest] = self._view[self._start : self._end]
                self._start, self._end = 0, rest
            return self._view[self._end :]
        self._start = self._end = 0
        if self._left > self._size and self._sink is not None:
            room = self._sink.room(self._left)
            if room is not None:
                self._direct = self._sink
                return room
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._direct is not None:
                direct, self._direct = self._direct, None
                self._left -= nbytes
                direct.filled(nbytes)
                self._end_data()
            else:
                self._end += nbytes
            self._read()
        except ConnectionFault as fault:
            self._fail(fault)

    def _read(self) -> None:
        while not self._is_over:
            ready = self._end - self._start
            if self._left:
                if not ready:
                    return
                size = min(ready, self._left)
                start = self._start
                self._start += size
                self._left -= size
                if self._sink is not None:
                    self._sink.take(self._view[start : start + size])
                self._end_data()
            elif self._skip:
                if not ready:
                    return
                size = min(ready, self._skip)
                self._start += size
                self._skip -= size
                self._end_data()
            elif not self._read_header(ready):
                return

    def _end_data(self) -> None:
        if not (self._left or self._skip) and self._sink is not None:
            sink, self._sink = self._sink, None
            sink.data_ended(is_last=self._is_last)

    def _read_header(self, ready: int) -> bool:
        """False when more is needed first."""
        if self._wants_preface:
            return self._read_preface(ready)
        if ready < HEADER_SIZE:
            return False
        high, low, kind, flags, stream = HEADER.unpack_from(self._view, self._start)
        length = high << 8 | low
        stream &= LARGEST_STREAM
        if self._is_gated:
            self._check_gate(kind, flags, stream)
        if length > self._largest_frame:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        if kind == DATA:
            return self._begin_data(ready, length, flags, stream)
        if kind > _LAST_KIND:
            self._unknown()
            self._start += HEADER_SIZE
            self._skip = length
            return True
        if ready < HEADER_SIZE + length:
            if HEADER_SIZE + length > self._size:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a frame of kind {kind} with {length} bytes")
            return False
        start = self._start + HEADER_SIZE
        self._start = start + length
        self._frame(kind, flags, stream, self._view[start : self._start])
        return True

    def _read_preface(self, ready: int) -> bool:
        size = min(ready, len(PREFACE))
        if self._view[self._start : self._start + size] != PREFACE[:size]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is no HTTP/2")
        if size < len(PREFACE):
            return False
        self._start += size
        self._wants_preface = False
        return True

    def _begin_data(self, ready: int, length: int, flags: int, stream: int) -> bool:
        body, padding, start = length, 0, HEADER_SIZE
        if flags & PADDED:
            if not length:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "DATA without the length of its padding")
            if ready <= HEADER_SIZE:
                return False
            padding = self._view[self._start + HEADER_SIZE]
            body, start = length - 1 - padding, HEADER_SIZE + 1
            if body < 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"DATA of {length} bytes with padding of {padding}")
        self._start += start
        self._left, self._skip, self._is_last = body, padding, bool(flags & END_STREAM)
        self._sink = self._data(stream, length, is_last=self._is_last)
        self._end_data()
        return True
