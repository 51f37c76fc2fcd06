"""Port 15020 as one thing: the front, and behind it aiohttp, loaded when a request first needs it.

`supervise` makes it from a socket bound before Envoy was spawned, and closes it last of all. Routes are `server`'s.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pilot_agent.clock import Clock
from pilot_agent.log import Scope
from pilot_agent.status.front import Connection, Front, Limits
from pilot_agent.status.readiness import Readiness
from pilot_agent.status.sockets import BACKLOG

if TYPE_CHECKING:
    from pilot_agent.status.control import Control
    from pilot_agent.status.debug import Facts
    from pilot_agent.status.server import Backend, Probes, Scraper

_LAST_WORDS_SECONDS = 1.0


@contextmanager
def _without_certificate_store() -> Iterator[None]:
    """aiohttp reads all of the system's CA certificates at its import, for clients that verify servers.

    Nothing here does, and it costs 75 ms of CPU and 2 MiB for good. Without them verification fails closed.
    """
    load = ssl.SSLContext.load_default_certs
    ssl.SSLContext.load_default_certs = lambda *_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        ssl.SSLContext.load_default_certs = load  # type: ignore[method-assign]


class StatusServer:
    """Serves `sock` from `start()` to `close()`, all through the agent's own shutdown."""

    def __init__(
        self,
        sock: socket.socket,
        readiness: Readiness,
        scraper: "Scraper",
        control: "Control",
        log: Scope,
        clock: Clock,
        *,
        are_metrics_local_only: bool = False,
        limits: Limits | None = None,
        probes: "Probes | None" = None,
        facts: "Facts | None" = None,
    ) -> None:
        """`sock` is listening and belongs to this server from now on.

        `are_metrics_local_only` is METRICS_LOCALHOST_ACCESS_ONLY. Without `probes` there is nothing of the application.
        """
        self._sock, self._readiness, self._scraper, self._control, self._log = sock, readiness, scraper, control, log
        self._are_metrics_local_only = are_metrics_local_only
        self._limits, self._probes, self._facts = limits or Limits(), probes, facts
        self._front = Front(readiness, clock, self._need_backend, self._count_handed_over, self._limits)
        self._backend: Backend | None = None
        self._loading: asyncio.Task[None] | None = None
        self._waiting: list[Connection] = []
        self._listener: asyncio.Server | None = None

    @property
    def front(self) -> Front:
        return self._front

    @property
    def has_backend(self) -> bool:
        """Whether aiohttp is loaded."""
        return self._backend is not None

    @property
    def is_loading(self) -> bool:
        return self._loading is not None

    @property
    def connections(self) -> int:
        return self._front.connections + self._count_handed_over()

    async def start(self) -> None:
        """Serve what already waits in the backlog, and everything after it."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self._front), sock=self._sock, backlog=BACKLOG)

    def preload(self) -> None:
        """Load what a scrape needs (0.3 s of CPU, 14 MiB), in a thread. Returns at once."""
        if self._backend is None and self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._load(), name="status backend")

    async def close(self) -> None:
        """Stop listening, end every connection, and wait a second or two at most for the last bytes to leave."""
        if self._listener is not None:
            self._listener.close()
        self._sock.close()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        await self._front.close(_LAST_WORDS_SECONDS)
        if self._backend is not None:
            await self._backend.close(_LAST_WORDS_SECONDS)
        await self._scraper.close()

    def _count_handed_over(self) -> int:
        return self._backend.connections if self._backend is not None else 0

    def _need_backend(self, connection: Connection) -> None:
        if self._backend is not None:
            connection.hand_over(self._backend.protocol())
            return
        self._waiting.append(connection)
        self.preload()

    async def _load(self) -> None:
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="status-import")
        try:
            make = await asyncio.get_running_loop().run_in_executor(thread, self._import)
            self._backend = make()
        except Exception as error:  # noqa: BLE001  (probes go on; the next request tries again)
            self._log.error(f"status port: can't load the HTTP server, only plain readiness is served: {error!r}")
        finally:
            thread.shutdown(wait=False)
            self._loading = None
            waiting, self._waiting = self._waiting, []
        for connection in waiting:
            if self._backend is not None:
                connection.hand_over(self._backend.protocol())
            else:
                connection.refuse()

    def _import(self) -> "Callable[[], Backend]":
        with _without_certificate_store():
            from pilot_agent.status.server import Backend

        self._scraper.load()
        if self._probes is not None:
            self._probes.load()
        return lambda: Backend(
            self._readiness,
            self._scraper,
            self._control,
            self._log,
            are_metrics_local_only=self._are_metrics_local_only,
            idle_seconds=self._limits.idle_seconds,
            probes=self._probes,
            facts=self._facts,
        )
