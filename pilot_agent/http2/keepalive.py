"""Notices a peer that is not there any more although its connection is: a PING, and a time for its answer.

As gRPC does it (its keepalive guide): after an interval without a sign of life, and only while there are streams.
"""

import asyncio
from typing import Protocol

from pilot_agent.http2 import frames
from pilot_agent.http2.frames import ErrorCode
from pilot_agent.http2.status import Code, Status

WORDS = "keepalive watchdog timeout"
"""gRPC's own."""
_DATA = b"keepaliv"


class Watched(Protocol):
    loop: asyncio.AbstractEventLoop

    def send_control(self, frame: bytes) -> None: ...
    def fail(self, code: ErrorCode, text: str, status: Status | None = None) -> None: ...


class Keepalive:
    """Seconds; never where `interval` is None. The timer is not moved with each read: it looks when it comes."""

    def __init__(self, interval: float | None, timeout: float, connection: Watched) -> None:
        self._interval, self._timeout, self._connection = interval, timeout, connection
        self._time = connection.loop.time
        self._heard = 0.0
        self._asked: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        self._heard = self._time()

    def start(self) -> None:
        if self._timer is None and self._interval is not None:
            self._heard, self._asked = self._time(), None
            self._timer = self._connection.loop.call_later(self._interval, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        assert self._interval is not None
        now = self._time()
        if self._asked is not None and self._heard <= self._asked:
            self._timer = None
            self._connection.fail(ErrorCode.NO_ERROR, WORDS, Status(Code.UNAVAILABLE, WORDS))
            return
        self._asked = None
        left = self._heard + self._interval - now
        if left <= 0:
            self._asked, left = now, self._timeout
            self._connection.send_control(frames.ping(_DATA))
        self._timer = self._connection.loop.call_later(left, self._look)
