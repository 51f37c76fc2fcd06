"""Answers `/app-health/...` and `/app-lifecycle/...`: asks the application what kubelet would have asked it.

Kubelet can't ask through Envoy, which wants mTLS of it, so Istio's injector sends its probes here. Owns what is passed
on in each direction, the deadlines and the log; who is probed how is `probe_config`, the wire is `probe_http` and
`probe_h2`. Called by `server`; light to import until `load`.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from pilot_agent import __version__
from pilot_agent.log import Scope
from pilot_agent.status.probe_config import GrpcAction, HttpAction, Prober
from pilot_agent.status.probe_dial import Dialer, Place, ProbeFailed, describe

if TYPE_CHECKING:
    from aiohttp import web

    from pilot_agent.status.probe_http import HttpClient

PROBES_AT_ONCE = 256
"""Beyond this a probe is refused with 503: anybody who reaches the pod may ask, and each holds a connection."""

# What belongs to one connection, or to a body, which a probe has not.
_NOT_PASSED_ON = frozenset(
    b"host connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings "
    b"content-length expect".split()
)


class ProbeOptions(NamedTuple):
    """`instance_ip` may be empty: this machine. `keepalive` and `http2` (for HTTPS) as Istio's variables have them."""

    instance_ip: str
    status_port: int
    legacy_localhost: bool
    keepalive: bool
    http2: bool
    log: Scope

    @property
    def host(self) -> str:
        """Where the application is asked."""
        address = self.instance_ip.removeprefix("[").removesuffix("]")
        return "localhost" if self.legacy_localhost or not address else address


class AppProbes:
    """The hook of the status port for both trees of paths. Credentials are passed on: a pod's own probes hold them."""

    def __init__(self, probers: Mapping[str, Prober], options: ProbeOptions) -> None:
        self._probers, self._options = probers, options
        self._dialer = Dialer(options.log)
        self._client: HttpClient | None = None
        self._running = 0
        self._problems: dict[str, str | None] = {}

    def load(self) -> None:
        """The slow imports, about 0.1 s and 2 MiB; for a thread. Nothing where there is nothing to probe."""
        if self._probers:
            import pilot_agent.status.probe_http  # noqa: F401

    async def answer(self, path: str, request: "web.BaseRequest") -> "web.StreamResponse":
        """`path` as it came; it is decoded before it is looked up, its query does not count."""
        key = unquote(path.partition("?")[0])
        prober = self._probers.get(key)
        if prober is None:
            return _text(400, f"no probe of the application is configured for {key!r}")
        if self._running >= PROBES_AT_ONCE:
            return _text(503, f"{PROBES_AT_ONCE} probes are running already")
        self._running += 1
        try:
            return await self._probe(key, prober, request)
        finally:
            self._running -= 1

    async def close(self) -> None:
        """End kept connections. Probes under way are the server's to cancel."""
        if self._client is not None:
            self._client.close()

    async def _probe(self, key: str, prober: Prober, request: "web.BaseRequest") -> "web.StreamResponse":
        answer: web.Response | None = None
        try:
            async with asyncio.timeout(prober.seconds) as deadline:
                answer = await self._ask(prober, request)
            problem = None
        except TimeoutError as error:
            problem = f"no answer within {prober.seconds} s" if deadline.expired() else describe(error)
        except (ProbeFailed, OSError) as error:
            problem = describe(error)
        self._note(key, problem)
        return answer or _empty(500)

    async def _ask(self, prober: Prober, request: "web.BaseRequest") -> "web.Response":
        action, place = prober.action, Place(self._options.host, prober.action.port)
        if isinstance(action, HttpAction):
            return await self._ask_http(action, place, request)
        if isinstance(action, GrpcAction):
            from pilot_agent.status.probe_h2 import check_health

            caller = next((value for name, value in request.raw_headers if name.lower() == b"user-agent"), b"")
            agent = b" ".join(filter(None, [caller, f"pilot-agent/{__version__}".encode()]))
            await check_health(self._dialer, place, action.service, agent)
        else:
            await self._dialer.touch(place)
        return _empty(200)

    async def _ask_http(self, action: HttpAction, place: Place, request: "web.BaseRequest") -> "web.Response":
        from pilot_agent.status.probe_http import Ask, HttpClient, escaped

        if self._client is None:
            self._client = HttpClient(self._dialer, http2=self._options.http2, keepalive=self._options.keepalive)
        headers = passed_on(request.raw_headers)
        authority = host_header(request.raw_headers, self._options.status_port, place)
        ask = Ask(place, action.is_tls, escaped(action.path), authority, headers)
        # To another host a redirect is not followed and counts as success, as kubelet has it.
        answer = await self._client.follow(ask, lambda host, onward: onward.lower() == host.lower())
        if 300 <= answer.status < 400:
            return _empty(200)
        return _passed_back(answer.status, answer.body)

    def _note(self, key: str, problem: str | None) -> None:
        if problem == self._problems.get(key):
            return
        self._problems[key] = problem
        if problem is None:
            self._options.log.info(f"probe {key}: the application answers again")
        else:
            self._options.log.error(f"probe {key} failed: {problem}")


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that go to the application: all that are not about the caller's own connection, in their order."""
    headers = list(headers)
    named = b",".join(value for name, value in headers if name.lower() == b"connection")
    dropped = _NOT_PASSED_ON | {token.strip().lower() for token in named.split(b",")}
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def host_header(headers: Iterable[tuple[bytes, bytes]], status_port: int, place: Place) -> bytes:
    """The caller's Host, in it the application's port for the status port; `place` where there is no Host."""
    host = next((value for name, value in headers if name.lower() == b"host"), b"")
    if not host:
        return place.authority
    name, colon, port = host.rpartition(b":")
    if colon and port == str(status_port).encode():
        return b"%s:%d" % (name, place.port)
    return host


def _empty(status: int) -> "web.Response":
    from aiohttp import web

    return web.Response(status=status)


def _text(status: int, text: str) -> "web.Response":
    return _passed_back(status, f"{text}\n".encode("utf-8", "backslashreplace"))


def _passed_back(status: int, body: bytes) -> "web.Response":
    """Bytes of the application for whoever asks: named as what no browser runs."""
    from aiohttp import web

    try:
        body.decode()
        kind = "text/plain; charset=utf-8"
    except UnicodeDecodeError:
        kind = "application/octet-stream"
    headers = {"Content-Type": kind, "X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, body=body, headers=headers if body else None)
