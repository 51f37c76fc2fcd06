"""The HTTP server behind the front: which path goes where, and who may ask. Imports aiohttp, so it is loaded late.

Paths are compared as they came, byte for byte: nothing is decoded or cleaned and then served, because a request that
Envoy let through on its prefix `/healthz/ready` arrives here from loopback (reference: status port, security).
"""

import asyncio
import ipaddress
import logging
import posixpath
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import NamedTuple, Protocol
from urllib.parse import quote, urlsplit

from aiohttp import web

from pilot_agent.log import Scope
from pilot_agent.status.compression import LEAST_BYTES, Compression, Encoder
from pilot_agent.status.control import Control, ControlHandlers
from pilot_agent.status.debug import DebugHandlers, Facts
from pilot_agent.status.readiness import Readiness

_WRITE_PATIENCE_SECONDS = 30.0
_NOSNIFF = {"X-Content-Type-Options": "nosniff"}
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_PROBE_TREES = ("/app-health/", "/app-lifecycle/")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Scraper(Protocol):
    """The merged metrics. `load` does the slow imports and is called in a thread; `stream` ends when it is closed.

    `in_flight_limit`: scrapes at once; each holds connections and buffers. `refuse` counts one too many.
    """

    @property
    def in_flight_limit(self) -> int: ...

    def content_type(self, accept: str) -> str: ...

    def refuse(self) -> None: ...

    def load(self) -> None: ...

    def stream(self, headers: Mapping[str, str], query: str) -> AsyncGenerator[bytes, None]: ...

    async def close(self) -> None: ...


class Probes(Protocol):
    """The application's probes and lifecycle handlers.

    `answer` gets every path below `/app-health/` and `/app-lifecycle/` as it came, without its query, from any peer.
    """

    def load(self) -> None:
        """The slow imports; called in a thread."""

    async def answer(self, path: str, request: web.BaseRequest) -> web.StreamResponse: ...


class Route(NamedTuple):
    """`method` None: any."""

    handler: Handler
    is_local_only: bool = False
    method: str | None = None


class Backend:
    """aiohttp's server without a socket of its own: it is given connections through `protocol()`."""

    def __init__(
        self,
        readiness: Readiness,
        scraper: Scraper,
        control: Control,
        log: Scope,
        *,
        are_metrics_local_only: bool,
        idle_seconds: float,
        probes: Probes | None = None,
        facts: Facts | None = None,
    ) -> None:
        self._readiness, self._scraper, self._log = readiness, scraper, log
        self._probes = probes
        self._scrapes_running = 0
        self._compression = Compression()
        self._control = ControlHandlers(control, log)
        metrics = Route(self._metrics, is_local_only=are_metrics_local_only)
        self._routes = {
            "/": Route(self._page, is_local_only=True, method="GET"),
            "/healthz/ready": Route(self._ready),
            "/stats/prometheus": metrics,
            "/metrics": metrics,
            "/drain": Route(self._control.drain, is_local_only=True, method="POST"),
            "/quitquitquit": Route(self._control.quit, is_local_only=True, method="POST"),
        }
        if facts is not None:
            debug = DebugHandlers(facts)
            self._routes["/debug/status"] = Route(debug.status, is_local_only=True, method="GET")
            self._routes["/debug/certs"] = Route(debug.certs, is_local_only=True, method="GET")
            self._routes["/debug/xds"] = Route(debug.xds, is_local_only=True, method="GET")
            self._routes["/debug/shutdown"] = Route(debug.shutdown, is_local_only=True, method="GET")
            self._routes["/debug/ndsz"] = Route(debug.name_table, is_local_only=True)
        self._server = web.Server(
            self._dispatch,
            handler_cancellation=True,  # a scraper that hangs up must not leave us reading its sources
            keepalive_timeout=idle_seconds,
            lingering_time=1.0,
            max_headers=64,
            access_log=None,
            # What peers send wrong is answered with 400 and not logged: anybody can send it. Our own errors are logged
            # by `_dispatch`.
            logger=logging.Logger("status", logging.CRITICAL + 1),
        )

    @property
    def connections(self) -> int:
        return len(self._server.connections)

    def protocol(self) -> asyncio.Protocol:
        return self._server()

    async def close(self, patience: float) -> None:
        """End every connection; `patience`: seconds for the answers under way."""
        await self._control.close()
        self._server.pre_shutdown()
        await self._server.shutdown(patience)

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = split_target(request.raw_path)
        try:
            return self._packed(request, await self._answer(request, path, query))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # one request's error is not the port's
            self._log.error(f"status port: {request.method} {path} failed: {error!r}")
            if _has_begun(request):
                raise ConnectionResetError("the answer had begun") from error
            return _refuse(500, "Internal Server Error")

    def _packed(self, request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
        """A whole answer compressed as the client takes it, where there is enough to gain; streams do it themselves."""
        if not isinstance(response, web.Response) or response.prepared:
            return response
        response.headers.setdefault("Vary", "Accept-Encoding")
        body = response.body
        if request.method == "HEAD" or not isinstance(body, bytes) or len(body) < LEAST_BYTES:
            return response
        encoding = self._compression.choose(request.headers.getall("Accept-Encoding", []))
        if encoding is not None and "Content-Encoding" not in response.headers:
            encoder = self._compression.encoder(encoding)
            response.body = encoder.compress(body) + encoder.flush()
            response.headers["Content-Encoding"] = encoding
        return response

    async def _answer(self, request: web.BaseRequest, path: str, query: str) -> web.StreamResponse:
        if (clean := clean_path(path)) != path:
            return _redirect(clean, query)
        if self._probes is not None:
            if path.startswith(_PROBE_TREES):
                return await self._probes.answer(path, request)
            if f"{path}/" in _PROBE_TREES:
                return _redirect(f"{path}/", query)
        route = self._routes.get(path)
        is_local_only = path.startswith("/debug/") if route is None else route.is_local_only
        if is_local_only and not is_loopback(_peer(request)):
            return _refuse(403, "Only requests from localhost are allowed")
        if is_local_only and is_of_another_site(path, request.headers):
            return _refuse(403, "Requests of another site's page are not allowed")
        if route is None:
            return _refuse(404, "404 page not found")
        if route.method is not None and request.method != route.method:
            return _refuse(405, "Method Not Allowed", Allow=route.method)
        return await route.handler(request)

    async def _ready(self, request: web.BaseRequest) -> web.StreamResponse:
        reason = self._readiness.reason()
        _, _, query = split_target(request.raw_path)
        if wants_json(request.headers.getall("Accept", ())):
            described = self._readiness.described()
            return web.json_response(described, status=503 if reason else 200, headers=_NOSNIFF)
        if "verbose" in (part.partition("=")[0] for part in query.split("&")):
            return web.Response(status=503 if reason else 200, text=self._readiness.verbose(), headers=_NOSNIFF)
        if reason is None:
            return web.Response()
        return _refuse(503, reason)

    async def _page(self, _request: web.BaseRequest) -> web.StreamResponse:
        from pilot_agent.status import page  # read when somebody looks

        return web.Response(body=page.page(), headers=page.headers())

    async def _metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        # No await between this and the first step of `stream`: both decide the format, by the same facts.
        kind = self._scraper.content_type(request.headers.get("Accept", ""))
        response = web.StreamResponse(headers={"Content-Type": kind, "Vary": "Accept-Encoding"})
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        if self._scrapes_running >= (limit := self._scraper.in_flight_limit):
            self._scraper.refuse()
            return _refuse(429, f"{limit} scrapes are running already", Vary="Accept-Encoding")
        _, _, query = split_target(request.raw_path)
        self._scrapes_running += 1
        try:
            async with aclosing(self._scraper.stream(request.headers, query)) as chunks:
                await self._send(request, response, chunks)
        finally:
            self._scrapes_running -= 1
        # aiohttp sends the head of an answer that had no chunk.
        return response

    async def _send(
        self, request: web.BaseRequest, response: web.StreamResponse, chunks: AsyncGenerator[bytes, None]
    ) -> None:
        """Every chunk as it comes, compressed if the client wants that and there is enough to gain."""
        encoding = self._compression.choose(request.headers.getall("Accept-Encoding", []))
        encoder: Encoder | None = None
        head = b""
        async for chunk in chunks:
            if not response.prepared:
                head += chunk
                if encoding is not None and len(head) < LEAST_BYTES:
                    continue
                if encoding is not None:
                    encoder = self._compression.encoder(encoding)
                    response.headers["Content-Encoding"] = encoding
                await response.prepare(request)
                chunk, head = head, b""  # noqa: PLW2901
            if data := encoder.compress(chunk) if encoder else chunk:
                await self._write(request, response, data)
        if data := encoder.flush() if encoder else head:
            await response.prepare(request)
            await self._write(request, response, data)

    async def _write(self, request: web.BaseRequest, response: web.StreamResponse, chunk: bytes) -> None:
        try:
            async with asyncio.timeout(_WRITE_PATIENCE_SECONDS):
                await response.write(chunk)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the scraper does not read") from None


def split_target(target: str) -> tuple[str, str, str]:
    """The path, `?` and the query of a request target, nothing decoded; an absolute URL loses its scheme and host."""
    if target[:7].lower() == "http://":
        slash = target.find("/", 7)
        target = target[slash:] if slash >= 0 else "/"
    return target.partition("?")


def clean_path(path: str) -> str:
    """`path` without `//`, `.` and `..`, as Go's ServeMux redirects to it."""
    if not path.startswith("/"):
        return path
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith(("/", "/.", "/..")) and clean != "/" else clean


def wants_json(accepts: Iterable[str]) -> bool:
    """Whether the Accept fields name application/json, with a weight above 0; wildcards don't."""
    for each in ",".join(accepts).lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        if kind == "application/json":
            return not any(re.fullmatch(r"q\s*=\s*0(\.0*)?", each) for each in parameters)
    return False


def is_loopback(host: str) -> bool:
    """Whether a TCP peer's address is this machine's loopback; IPv4 mapped into IPv6 counts as IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        # Python 3.11 does not call ::ffff:127.0.0.1 a loopback address.
        return address.ipv4_mapped.is_loopback if address.ipv4_mapped else address.is_loopback
    return address.is_loopback


def is_of_another_site(path: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser on this machine asks on behalf of somebody else's page: its peer is loopback, its site is not.

    A page says where it is from when it sends a POST (Origin); one whose name was made to point here asks for that name
    (Host), which matters where there is something to read. Elsewhere programs, and Envoy, may call us as they like.
    """
    origin = headers.get("Origin")
    if origin is not None and not is_own_host(urlsplit(origin).netloc):
        return True
    is_readable = path == "/" or path.startswith("/debug/")
    return is_readable and not is_own_host(headers.get("Host", "localhost"))


def is_own_host(authority: str) -> bool:
    """`localhost`, or an address of loopback, with or without a port."""
    try:
        host = urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return False
    return host == "localhost" or is_loopback(host)


def _peer(request: web.BaseRequest) -> str:
    name = request.transport.get_extra_info("peername") if request.transport is not None else None
    return str(name[0]) if isinstance(name, tuple) else ""


def _refuse(status: int, text: str, **headers: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers=_NOSNIFF | headers)


def _redirect(path: str, query: str) -> web.Response:
    location = path + (f"?{query}" if query else "")
    return web.Response(status=307, headers={"Location": quote(location, safe=_PRINTABLE, errors="surrogateescape")})


def _has_begun(request: web.BaseRequest) -> bool:
    return request.writer.output_size > 0
