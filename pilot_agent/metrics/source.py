"""Reads one source of a scrape over HTTP into its lane. Imports aiohttp, so it is loaded late; called by `scrape`.

Counts what a source did wrong; what the scraper did (hung up, did not read) is not counted against it.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from pilot_agent.log import Scope
from pilot_agent.metrics.account import SourceAccount
from pilot_agent.metrics.formats import Cutter, is_text
from pilot_agent.metrics.merge import Lane, Merge

CHUNK_BYTES = 64 * 1024


class SourceFailed(Exception):
    """The source answered, but not with something that can be merged."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one scrape asks of every source. `deadline` is in the event loop's time."""

    headers: Mapping[str, str]
    deadline: float
    body_bytes: int


class Source:
    def __init__(self, account: SourceAccount, log: Scope) -> None:
        self.account, self._log = account, log

    async def read(self, session: aiohttp.ClientSession, url: str, request: Request, merge: Merge) -> None:
        """Everything from connecting to the last byte. Raises nothing but CancelledError."""
        loop = asyncio.get_running_loop()
        started, reader = loop.time(), _Reading(merge, request.body_bytes)
        problem: str | None = None
        try:
            async with asyncio.timeout_at(request.deadline):
                await reader.run(session, url, request.headers)
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
        if problem is not None:
            account.failures += 1
            account.last_error = problem
        if problem == account.problem:
            return
        account.problem = problem
        if problem is None:
            self._log.info(f"metrics of {account.name} are back", url=url)
        else:
            self._log.warn(f"metrics of {account.name} are left out: {problem}", url=url)


class _Reading:
    def __init__(self, merge: Merge, body_bytes: int) -> None:
        self._merge, self._body_bytes = merge, body_bytes
        self._lane: Lane | None = None
        self._cutter = Cutter()
        self._is_whole = False
        self.received = 0

    @property
    def is_held_up(self) -> bool:
        return self._lane is not None and self._lane.is_full

    async def run(self, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> None:
        # `encoded`: what a caller or an annotation wrote reaches the source as it was written.
        async with session.get(URL(url, encoded=True), headers=headers) as response:
            if response.status != 200:
                raise SourceFailed(f"status {response.status}")
            if not is_text(kind := response.headers.get("Content-Type")):
                raise SourceFailed(f"content type {kind!r}; only text/plain can be merged")
            self._lane = self._merge.open()
            while chunk := await response.content.read(CHUNK_BYTES):
                await self._pass_on(self._lane, chunk)
        self._is_whole = True

    async def _pass_on(self, lane: Lane, chunk: bytes) -> None:
        self.received += len(chunk)
        if self.received > self._body_bytes:
            raise SourceFailed(f"more than {self._body_bytes} bytes")
        try:
            block = self._cutter.feed(chunk, in_families=self._merge.is_shared)
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
    return f"{type(error).__name__}: {error}"[:200]


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
