"""Reads one source of a scrape over HTTP into its lane. Imports aiohttp, so it is loaded late; called by `scrape`.

Counts what a source did wrong; what the scraper did (hung up, did not read) is not counted against it.
"""

import asyncio
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from pilot_agent.log import Scope
from pilot_agent.metrics import protobuf
from pilot_agent.metrics.account import SourceAccount
from pilot_agent.metrics.formats import (
    OPENMETRICS_FAMILY_BYTES,
    Cutter,
    Format,
    is_openmetrics,
    is_protobuf,
    is_text,
)
from pilot_agent.metrics.joining import Origin
from pilot_agent.metrics.merge import Lane, Merge
from pilot_agent.metrics.protobuf import FamilyDecoder

CHUNK_BYTES = 64 * 1024
_ERROR_CHARACTERS = 200


class SourceFailed(Exception):
    """The source answered, but not with something that can be merged."""


@dataclass(slots=True)
class Allowance:
    """What one scrape may still take of all its sources together, in bytes."""

    whole: int
    taken: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What one scrape asks of every source. `format`: the answer's; `deadline` is in the event loop's time;
    `body_bytes`: the most of one source, `allowance`: of all."""

    headers: Mapping[str, str]
    format: Format
    deadline: float
    body_bytes: int
    allowance: Allowance


class Source:
    def __init__(self, account: SourceAccount, log: Scope) -> None:
        self.account, self._log = account, log

    async def read(self, session: aiohttp.ClientSession, url: str, request: Request, merge: Merge[Origin]) -> None:
        """Everything from connecting to the last byte. Raises nothing but CancelledError."""
        loop = asyncio.get_running_loop()
        started, reader = loop.time(), _Reading(self.account, merge, request)
        problem: str | None = None
        try:
            async with asyncio.timeout_at(request.deadline):
                await reader.run(session, url)
        except TimeoutError:
            # A lane that nobody empties is the scraper's slowness, not the source's.
            problem = None if reader.is_held_up else "timed out"
        except Exception as error:  # noqa: BLE001  (a source drops out alone, whatever happens to it)
            problem = describe(error)
        finally:
            reader.finish()
            self.account.seconds, self.account.bytes = loop.time() - started, reader.received
        self._settle(url, problem)

    def _settle(self, url: str, problem: str | None) -> None:
        account = self.account
        account.scrapes += 1
        if problem is not None:
            account.failures += 1
            account.last_error = problem
        if problem == account.problem:
            return
        account.problem = problem
        if problem is None:
            self._log.info(f"metrics of {account.name} are back", url=url.partition("?")[0])
        else:
            self._log.warn(f"metrics of {account.name} are left out: {problem}", url=url.partition("?")[0])


class _Reading:
    def __init__(self, account: SourceAccount, merge: Merge[Origin], request: Request) -> None:
        self._account, self._merge, self._request = account, merge, request
        self._lane: Lane[Origin] | None = None
        self._cutter = Cutter(OPENMETRICS_FAMILY_BYTES) if request.format.is_openmetrics else Cutter()
        self._decoder: FamilyDecoder | None = None
        self._is_whole = False
        self.received = 0

    @property
    def is_held_up(self) -> bool:
        return self._lane is not None and self._lane.is_full

    async def run(self, session: aiohttp.ClientSession, url: str) -> None:
        # `encoded`: what a caller or an annotation wrote reaches the source as it was written.
        headers = dict(self._request.headers)
        if self._account.kind != "envoy":
            headers["Accept"] += f",{protobuf.ACCEPT}"  # Envoy would take it, whatever it weighs
        async with session.get(URL(url, encoded=True), headers=headers) as response:
            if response.status != 200:
                raise SourceFailed(f"status {response.status}")
            self._lane = self._merge.open(self._origin(response.headers.get("Content-Type")))
            while chunk := await response.content.read(CHUNK_BYTES):
                await self._pass_on(self._lane, chunk)
        if self._decoder is not None and not self._decoder.is_between_families:
            raise SourceFailed("the protobuf ends within a family")
        self._is_whole = True

    def _origin(self, kind: str | None) -> Origin:
        is_open = is_openmetrics(kind)
        if is_protobuf(kind):
            self._decoder = FamilyDecoder()
        elif not is_open and not is_text(kind):
            raise SourceFailed(f"content type {str(kind)[:100]!r}; it is neither text, OpenMetrics nor protobuf")
        if self._request.format.is_openmetrics:
            self._account.is_text_only = not is_open
        # Envoy's lines are its own code's; an application may be anything that listens on its port.
        return Origin(self._account, is_open, is_trusted=self._account.kind == "envoy")

    async def _pass_on(self, lane: Lane[Origin], chunk: bytes) -> None:
        request = self._request
        self.received += len(chunk)
        request.allowance.taken += len(chunk)
        if self.received > request.body_bytes:
            raise SourceFailed(f"more than {request.body_bytes} bytes")
        if request.allowance.taken > request.allowance.whole:
            raise SourceFailed(f"more than {request.allowance.whole} bytes of all sources together")
        try:
            block = self._cutter.feed(self._decoder.feed(chunk) if self._decoder is not None else chunk)
        except ValueError as error:
            raise SourceFailed(str(error)) from None
        if block:
            await lane.put(block)

    def finish(self) -> None:
        if self._lane is None:
            self._merge.give_up()
        else:
            self._lane.end(self._cutter.rest(is_whole=self._is_whole))


def describe(error: BaseException) -> str:
    """A short, steady text: the same trouble must read the same at every scrape, or each would be logged."""
    if isinstance(error, SourceFailed):
        return str(error)
    if isinstance(error, aiohttp.TooManyRedirects):
        return "too many redirects"
    if isinstance(error, aiohttp.ClientConnectorError):
        # asyncio's own text names address and port; the number is the same for each of the addresses tried.
        return f"can't connect: {os.strerror(error.os_error.errno) if error.os_error.errno else error.os_error}"
    if isinstance(error, aiohttp.ClientPayloadError | ConnectionError | aiohttp.ServerDisconnectedError):
        return "the connection broke"
    if isinstance(error, aiohttp.InvalidURL):
        return "a redirect to no URL"  # its text is the URL, and a URL may carry a password
    # A query may hold a token; metrics and logs are read by more people than the application's configuration.
    return re.sub(r"\?\S+", "?...", f"{type(error).__name__}: {error}")[:_ERROR_CHARACTERS]


class Loopback(AbstractResolver):
    """`localhost` is both loopback addresses, whatever /etc/hosts says; other names (redirects) go the usual way."""

    def __init__(self) -> None:
        self._others = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host != "localhost":
            return await self._others.resolve(host, port, family)
        addresses = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, address in addresses
            if family in (kind, socket.AF_UNSPEC)
        ]

    async def close(self) -> None:
        await self._others.close()


def open_session() -> aiohttp.ClientSession:
    """No proxy, no cookies, no time limits of its own, and no connection kept.

    A kept connection would still lead to the old Envoy after a hot restart, and a new one costs 0.1 ms on loopback.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True, resolver=Loopback()),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        read_bufsize=CHUNK_BYTES,
        # Compressing what goes over loopback costs both sides more than it saves.
        headers={"Accept-Encoding": "identity"},
        skip_auto_headers=("User-Agent",),
    )
