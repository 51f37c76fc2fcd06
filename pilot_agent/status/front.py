"""First contact on port 15020: answers readiness probes itself, hands every other connection to aiohttp.

Owns the limits on connections and headers, and nothing of routing. aiohttp costs 0.3 s of CPU to import, which is
several starts of Envoy, so a probe must not wait for it (docs/decisions/0002-probe-fast-path.md). Called by `port`.
"""

import asyncio
import re
import time
from collections.abc import Callable
from typing import NamedTuple, cast

from pilot_agent.clock import Clock
from pilot_agent.status.readiness import Readiness


class Limits(NamedTuple):
    """What one peer may hold. Seconds and bytes; `connections` counts those handed to aiohttp too.

    512 connections leave half of the usual 1,024 descriptors to the rest of the agent.
    """

    header_bytes: int = 16 * 1024
    header_seconds: float = 10.0
    idle_seconds: float = 75.0
    connections: int = 512


# The whole block must be plain, well-formed HTTP/1 to be answered here. Anything doubtful is aiohttp's to judge:
# two parsers that see the same bytes differently are how requests get smuggled.
_PROBE = re.compile(
    rb"(GET|HEAD) /healthz/ready HTTP/1\.([01])\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
)
_ODD = re.compile(rb"\n(?:content-length|transfer-encoding|expect|upgrade|accept:[^\r]*json)", re.IGNORECASE)
_CONNECTION = re.compile(rb"\nconnection:([^\r]*)", re.IGNORECASE)
_START = re.compile(rb"[A-Z]{1,20}(?: |\Z)")

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_NO_BACKEND = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Probe(NamedTuple):
    """A readiness request that can be answered here."""

    has_body: bool
    is_http_10: bool
    keeps_alive: bool


def parse_probe(block: bytes) -> Probe | None:
    """The probe in a complete header block, or None when it is anything but exactly that."""
    head = _PROBE.fullmatch(block)
    if head is None or _ODD.search(block):
        return None
    is_http_10 = head[2] == b"0"
    options = {option.strip(b" \t").lower() for value in _CONNECTION.findall(block) for option in value.split(b",")}
    if not options <= {b"close", b"keep-alive"}:
        return None
    keeps_alive = b"close" not in options and (not is_http_10 or b"keep-alive" in options)
    return Probe(head[1] == b"GET", is_http_10, keeps_alive)


class Front:
    """What the connections of one listener share: the readiness, the limits, the way on to aiohttp."""

    def __init__(
        self,
        readiness: Readiness,
        clock: Clock,
        need_backend: Callable[["Connection"], None],
        count_elsewhere: Callable[[], int],
        limits: Limits,
    ) -> None:
        """`need_backend` is told of a connection that can't be served here; it calls its `hand_over` or `refuse`."""
        self.readiness, self.clock, self.need_backend, self.limits = readiness, clock, need_backend, limits
        self._count_elsewhere = count_elsewhere
        self._open: set[Connection] = set()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._date, self._date_second = b"", -1

    @property
    def connections(self) -> int:
        """Those still answered here."""
        return len(self._open)

    @property
    def held_bytes(self) -> int:
        """Of requests that are not complete, or wait for aiohttp."""
        return sum(each.held_bytes for each in self._open)

    def admit(self, connection: "Connection") -> None:
        self._open.add(connection)
        self._emptied.clear()
        if len(self._open) + self._count_elsewhere() > self.limits.connections:
            # Not the newcomer but whoever is nearest to its own deadline: a crowd of slow peers must not lock out the
            # kubelet.
            min(self._open, key=lambda each: each.deadline).abort()
        if self._sweeper is None and self._open:
            self._sweeper = asyncio.get_running_loop().call_later(1.0, self._sweep_again)

    def forget(self, connection: "Connection") -> None:
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()

    def sweep(self) -> None:
        """Close what is past its deadline. One timer for all: one for each request costs too much."""
        now = self.clock.monotonic()
        for connection in [each for each in self._open if each.deadline <= now]:
            connection.expire()

    async def close(self, patience: float) -> None:
        """End every connection; `patience`: seconds for the peers to read what was written."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._open):
            connection.drop()
        try:
            async with asyncio.timeout(patience):
                await self._emptied.wait()
        except TimeoutError:
            pass  # they don't read
        for connection in list(self._open):
            connection.abort()

    def answer(self, probe: Probe) -> bytes:
        reason = self.readiness.reason()
        head = b"HTTP/1.1 200 OK\r\nDate: " if reason is None else b"HTTP/1.1 503 Service Unavailable\r\nDate: "
        body = b"" if reason is None else f"{reason}\n".encode(errors="replace")
        kind = b"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n" if body else b""
        if not probe.keeps_alive:
            kind += b"Connection: close\r\n"
        elif probe.is_http_10:
            kind += b"Connection: keep-alive\r\n"
        answer = b"%b%b\r\n%bContent-Length: %d\r\n\r\n" % (head, self._http_date(), kind, len(body))
        return answer + body if probe.has_body else answer

    def _http_date(self) -> bytes:
        second = int(self.clock.wall())
        if second != self._date_second:
            self._date_second = second
            self._date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second)).encode()
        return self._date

    def _sweep_again(self) -> None:
        self._sweeper = None
        self.sweep()
        if self._open:
            self._sweeper = asyncio.get_running_loop().call_later(1.0, self._sweep_again)


class Connection(asyncio.Protocol):
    """One connection until it closes or is handed over. `deadline` is monotonic: idle, or for the header under way."""

    __slots__ = ("_front", "_is_waiting", "_is_writing_paused", "_rest", "_transport", "deadline")

    _transport: asyncio.Transport

    def __init__(self, front: Front) -> None:
        self._front = front
        self._rest = b""
        self._is_waiting = self._is_writing_paused = False
        self.deadline = front.clock.monotonic() + front.limits.idle_seconds

    @property
    def held_bytes(self) -> int:
        return len(self._rest)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._front.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's name)
        self._front.forget(self)

    def data_received(self, data: bytes) -> None:
        known = len(self._rest)
        data = self._rest + data if known else data
        if self._is_waiting:
            self._rest = data
            return
        position, answers = 0, []
        # Only what is new is searched: a header that comes byte by byte must not cost the square of its length.
        while (end := data.find(b"\r\n\r\n", max(position, known - 3))) >= 0:
            probe = parse_probe(data[position : end + 4])
            if probe is None:
                break
            position = end + 4
            answers.append(self._front.answer(probe))
            if not probe.keeps_alive:
                self._transport.write(b"".join(answers))
                self.drop()
                return
        if answers:
            self._transport.write(b"".join(answers))
        self._keep(data[position:] if position else data, is_complete=end >= 0, is_new=known == 0 or position > 0)

    def pause_writing(self) -> None:
        # The peer does not read its answers: take no more requests from it.
        self._is_writing_paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        if not self._is_waiting:
            self._transport.resume_reading()

    def hand_over(self, handler: asyncio.Protocol) -> None:
        """Give the connection, and what was read of it, to `handler` for good."""
        self._front.forget(self)
        if self._transport.is_closing():
            return
        self._transport.set_protocol(handler)
        handler.connection_made(self._transport)
        if self._is_writing_paused:
            handler.pause_writing()
        # Before the data: parsing it may pause reading again, and that must stand.
        self._transport.resume_reading()
        handler.data_received(self._rest)
        self._rest = b""

    def refuse(self) -> None:
        """Nobody can serve this connection."""
        self._end_with(_NO_BACKEND)

    def expire(self) -> None:
        if self._is_writing_paused or self._transport.is_closing():
            self.abort()
        elif self._rest and not self._is_waiting:
            self._end_with(_TOO_SLOW)
        else:
            self.drop()

    def drop(self) -> None:
        """Close once the peer has read what was written; the sweeper ends it if the peer never does."""
        self.deadline = self._front.clock.monotonic() + self._front.limits.header_seconds
        self._transport.close()

    def abort(self) -> None:
        self._front.forget(self)
        self._transport.abort()

    def _keep(self, rest: bytes, *, is_complete: bool, is_new: bool) -> None:
        """Hold what is not answered yet: the start of a header, or a request that is not ours."""
        front = self._front
        self._rest = rest
        if not rest:
            self.deadline = front.clock.monotonic() + front.limits.idle_seconds
            return
        if is_new:
            self.deadline = front.clock.monotonic() + front.limits.header_seconds
        if len(rest) > front.limits.header_bytes and not is_complete:
            self._end_with(_TOO_LARGE)
        elif is_complete or not _START.match(rest[:21]) or b"\n\n" in rest:
            self._is_waiting = True
            self._transport.pause_reading()
            front.need_backend(self)

    def _end_with(self, answer: bytes) -> None:
        self._transport.write(answer)
        self.drop()
