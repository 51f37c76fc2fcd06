"""One GET of a probe: over HTTP/1.1 or, where TLS agrees on it, HTTP/2; redirects as the caller wants them.

Owns what is read of an answer (status, Location, the first 10 KiB) and kept connections; which headers go out is the
caller's. Imports h11 and h2, so it is loaded late. Called by `probes` and `workload_health`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import h11

from pilot_agent.status.probe_dial import Dialer, Place, ProbeFailed, Wire, tls_context
from pilot_agent.status.probe_h2 import Http2Failed, exchange

BODY_BYTES = 10 * 1024
MOST_REQUESTS = 10

_CHUNK_BYTES = 64 * 1024
_HEAD_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CREDENTIALS = frozenset({b"authorization", b"cookie", b"cookie2", b"proxy-authorization", b"www-authenticate"})
_IN_A_TARGET = "".join(character for character in map(chr, range(0x21, 0x7F)) if character not in '"#<>')

Header = tuple[bytes, bytes]


class Ask(NamedTuple):
    """`target`: path and query. `authority` is the Host header, and not among `headers`."""

    place: Place
    is_tls: bool
    target: str
    authority: bytes
    headers: Sequence[Header]

    @property
    def url(self) -> str:
        return f"http{'s' if self.is_tls else ''}://{self.place.authority.decode()}{self.target}"


class Answer(NamedTuple):
    """`body`: its beginning, BODY_BYTES at most; empty for any 3xx."""

    status: int
    location: str
    body: bytes


class HttpClient:
    def __init__(self, dialer: Dialer, *, http2: bool = False, keepalive: bool = False) -> None:
        self._dialer, self._keepalive = dialer, keepalive
        self._tls = tls_context(http2=http2)
        self._idle: dict[tuple[Place, bool], Wire] = {}

    async def follow(self, ask: Ask, may_follow: Callable[[str, str], bool]) -> Answer:
        """GET, and GET again where it leads as long as `may_follow(host, next host)`.

        Raises ProbeFailed, and OSError when it can't connect. The deadline is the caller's.
        """
        for _ in range(MOST_REQUESTS):
            answer = await self.get(ask)
            if answer.status not in _REDIRECTS or not answer.location:
                return answer
            onward = _redirected(ask, answer.location)
            if not may_follow(ask.place.host, onward.place.host):
                return answer
            ask = onward
        raise ProbeFailed(f"{MOST_REQUESTS} redirects, one after the other")

    async def get(self, ask: Ask) -> Answer:
        """One exchange, on a kept connection if there is one, and again on a new one when that was over by then."""
        kept = self._idle.pop((ask.place, ask.is_tls), None)
        if kept is not None and kept.is_usable:
            try:
                return await self._ask(kept, ask)
            except (_NothingCame, ConnectionError):
                pass
        elif kept is not None:
            kept.close()
        return await self._ask(await self._dialer.dial(ask.place, self._tls if ask.is_tls else None), ask)

    def close(self) -> None:
        for wire in self._idle.values():
            wire.close()
        self._idle.clear()

    async def _ask(self, wire: Wire, ask: Ask) -> Answer:
        is_reusable = is_done = False
        try:
            if wire.protocol == "h2":
                answer = await _over_http2(wire, ask)
            else:
                answer, is_reusable = await _over_http1(wire, ask, self._keepalive)
            is_done = True
        finally:
            if not is_done:
                wire.reset()
        if not is_reusable or (ask.place, ask.is_tls) in self._idle:
            wire.close()
        else:
            self._idle[ask.place, ask.is_tls] = wire
        return answer


class _NothingCame(ProbeFailed):
    """The connection was closed before the first byte of an answer."""


async def _over_http1(wire: Wire, ask: Ask, keepalive: bool) -> tuple[Answer, bool]:
    """The answer, and whether the connection can carry another request."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
    headers = [(b"Host", ask.authority), *ask.headers, *([] if keepalive else [(b"Connection", b"close")])]
    try:
        request = connection.send(h11.Request(method=b"GET", target=ask.target.encode(), headers=headers))
        wire.writer.write((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
        answer = await _read_answer(wire, connection)
    except h11.ProtocolError as error:
        raise ProbeFailed(f"not HTTP: {error}"[:200]) from None
    return answer, keepalive and connection.our_state is h11.DONE and connection.their_state is h11.DONE


async def _read_answer(wire: Wire, connection: h11.Connection) -> Answer:
    status, location, body, received = 0, "", bytearray(), 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await wire.reader.read(_CHUNK_BYTES)
            if not data and not received:
                raise _NothingCame("the connection was closed without an answer")
            received += len(data)
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
            location = next((value for name, value in event.headers if name == b"location"), b"").decode("latin-1")
            if 300 <= status < 400:
                return Answer(status, location, b"")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) >= BODY_BYTES:
                return Answer(status, location, bytes(body[:BODY_BYTES]))
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, location, bytes(body))
        elif not isinstance(event, h11.InformationalResponse):
            raise ProbeFailed("the connection was switched to another protocol, or closed")


async def _over_http2(wire: Wire, ask: Ask) -> Answer:
    head = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", ask.authority),
        (b":path", ask.target.encode()),
    ]
    head += [(name.lower(), value) for name, value in ask.headers]
    try:
        reply = await exchange(wire, head, b"", BODY_BYTES)
    except Http2Failed as error:
        raise ProbeFailed(str(error)) from None
    code = reply.headers.get(b":status", b"")
    if len(code) != 3 or not code.isdigit() or code < b"200":
        raise ProbeFailed("an answer without a final status")
    status = int(code)
    location = reply.headers.get(b"location", b"").decode("latin-1")
    return Answer(status, location, b"" if 300 <= status < 400 else reply.body)


def escaped(path: str) -> str:
    """A path and query as it may stand in a request: what is not allowed there is escaped, `%` stays."""
    return quote(path.partition("#")[0], safe=_IN_A_TARGET, errors="surrogateescape")


def _redirected(ask: Ask, location: str) -> Ask:
    """Raises ProbeFailed for a Location that leads nowhere."""
    try:
        url = urlsplit(urljoin(ask.url, location))
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        raise ProbeFailed("a redirect to what is no URL") from None
    if url.scheme not in ("http", "https"):
        raise ProbeFailed("a redirect to what is not HTTP")
    target = escaped((url.path or "/") + (f"?{url.query}" if url.query else ""))
    # A relative Location keeps the Host header that was asked for, as Go's client does.
    is_relative = not urlsplit(location).netloc
    authority = ask.authority if is_relative else url.netloc.rpartition("@")[2].encode("latin-1", "replace")
    headers = ask.headers
    if host.lower() != ask.place.host.lower():
        headers = [(name, value) for name, value in headers if name.lower() not in _CREDENTIALS]
    return Ask(Place(host, port), url.scheme == "https", target, authority, headers)
