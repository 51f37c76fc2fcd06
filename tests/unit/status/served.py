"""A status port on a free port of this machine, with parts that tests can turn."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pilot_agent.errors import AdminError
from pilot_agent.status.front import Limits
from pilot_agent.status.port import StatusServer
from pilot_agent.status.readiness import Readiness
from pilot_agent.status.server import Probes
from pilot_agent.status.sockets import bind
from tests.support.clocks import ManualClock
from tests.support.recorded_log import RecordedLog


@dataclass
class Switch:
    """A gate."""

    name: str = "envoy"
    text: str | None = None

    def reason(self) -> str | None:
        return self.text


@dataclass
class Blocks:
    """A scraper that sends given blocks, then waits for `may_end`."""

    blocks: Sequence[bytes] = (b"one 1\n", b"two 2\n")
    may_end: asyncio.Event | None = None
    error: Exception | None = None
    load_error: Exception | None = None
    queries: list[str] = field(default_factory=list)
    started: int = 0
    finished: int = 0
    in_flight_limit: int = 64
    refused: int = 0

    def content_type(self, accept: str) -> str:
        if "openmetrics" in accept:
            return "application/openmetrics-text; version=1.0.0; charset=utf-8"
        return "text/plain; version=0.0.4; charset=utf-8"

    def refuse(self) -> None:
        self.refused += 1

    def load(self) -> None:
        if self.load_error is not None:
            raise self.load_error

    async def stream(self, headers: Mapping[str, str], query: str) -> AsyncGenerator[bytes, None]:
        self.started += 1
        self.queries.append(query)
        try:
            for block in self.blocks:
                yield block
            if self.may_end is not None:
                await self.may_end.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.finished += 1

    async def close(self) -> None:
        pass


@dataclass
class Asked:
    """A control that writes down what it was asked."""

    drains: int = 0
    quits: int = 0
    may_answer: asyncio.Event | None = None
    error: AdminError | None = None

    async def drain(self) -> str:
        self.drains += 1
        if self.may_answer is not None:
            await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return "OK: draining"

    def quit(self) -> str:
        self.quits += 1
        return "OK: stopping"


@dataclass
class Served:
    port: int
    server: StatusServer
    gate: Switch
    readiness: Readiness
    scraper: Blocks
    control: Asked
    clock: ManualClock
    log: RecordedLog


@asynccontextmanager
async def served(
    *,
    scraper: Blocks | None = None,
    control: Asked | None = None,
    limits: Limits | None = None,
    are_metrics_local_only: bool = False,
    notes: Sequence[str] = (),
    probes: Probes | None = None,
) -> AsyncIterator[Served]:
    log, clock, gate, sock = RecordedLog(), ManualClock(), Switch(), bind(0)
    readiness = Readiness([gate], log.scope, clock, lambda: notes)
    scraper, control = scraper or Blocks(), control or Asked()
    port = sock.getsockname()[1]
    server = StatusServer(
        sock,
        readiness,
        scraper,
        control,
        log.scope,
        clock,
        are_metrics_local_only=are_metrics_local_only,
        limits=limits,
        probes=probes,
    )
    await server.start()
    try:
        yield Served(port, server, gate, readiness, scraper, control, clock, log)
    finally:
        await server.close()
