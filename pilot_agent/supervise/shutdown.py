"""Ending, under one deadline: drain, wait until the connections are gone or the time is, and tell what happened."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from pilot_agent.clock import Clock, Deadline
from pilot_agent.envoy.admin import Admin
from pilot_agent.envoy.drain import ACTIVE_CONNECTIONS_PATH, DrainOptions, count_connections
from pilot_agent.errors import AdminError
from pilot_agent.log import Scope
from pilot_agent.node.metadata import PORT_VARIABLES
from pilot_agent.settings.model import Settings

ADMIN_TIMEOUT_S = 2.0
GRACE_S = 1.0
CONNECTION_CHECK_S = 0.25
UNBOUNDED_DRAIN_S = 3600.0
"""A drain that ends on zero connections and was given no limit: longer than any grace period, yet not for ever."""


class Plan(NamedTuple):
    """How a shutdown will go; times in seconds from its start."""

    pre_drain_delay: float
    minimum: float
    deadline: float
    ends_on_zero: bool
    drain: DrainOptions
    own_ports: tuple[int, ...]

    def timeline(self) -> str:
        """The plan in one line, for the log."""
        steps = ["readiness is false now"]
        steps.append(f"drain at +{self.pre_drain_delay:g} s")
        if self.ends_on_zero:
            steps.append(f"end on zero connections from +{self.minimum:g} s on")
        steps.append(f"SIGTERM to Envoy at +{self.deadline:g} s at the latest, SIGKILL {GRACE_S:g} s later")
        return ", ".join(steps)


def plan_for(settings: Settings, drained_for: float | None) -> Plan:
    """`drained_for`: seconds since POST /drain began the drain, from where the deadline counts; None without one."""
    config, flags, environment = settings.proxy_config, settings.flags, settings.environment
    deadline = config.termination_drain_duration.seconds
    ends_on_zero = settings.ends_on_zero_connections
    if ends_on_zero and not settings.is_local and config.is_default("terminationDrainDuration"):
        deadline = UNBOUNDED_DRAIN_S  # Istio waits without end here, until kubelet's grace period is over
    if flags.termination_deadline.nanoseconds:
        # Where nothing but the clock ends the drain, a deadline can shorten it; it is no reason to wait longer.
        limit = flags.termination_deadline.seconds
        deadline = limit if ends_on_zero else min(limit, deadline)
    return Plan(
        pre_drain_delay=flags.pre_drain_delay.seconds,
        minimum=settings.minimum_drain.seconds,
        deadline=max(0.0, deadline - (drained_for or 0.0)),
        ends_on_zero=ends_on_zero,
        drain=DrainOptions(settings.is_sidecar, skip_exit=False),
        own_ports=tuple(filter(None, (environment.number(name) for name in PORT_VARIABLES))),
    )


class Drained(NamedTuple):
    """Why the waiting ended, and after how many seconds."""

    rule: str
    seconds: float


class Shutdown:
    """One shutdown. `hurry` is set by a second signal and cuts the waiting short; `note` takes step and detail."""

    def __init__(
        self,
        plan: Plan,
        admin: Admin,
        clock: Clock,
        log: Scope,
        hurry: asyncio.Event,
        note: Callable[[str, str], None],
    ) -> None:
        self._plan, self._admin, self._clock, self._log = plan, admin, clock, log
        self._hurry, self._note = hurry, note
        self._started = clock.monotonic()

    async def drain(self, post_drain: Callable[[], Coroutine[Any, Any, None]], exited: asyncio.Future[Any]) -> Drained:
        """Drain and wait. Ends on: Envoy's own end, a second signal, zero connections, the deadline."""
        deadline = Deadline(self._started + self._plan.deadline, self._clock)
        rule = await self._wait(deadline.sooner(self._plan.pre_drain_delay), exited)
        if rule is None:
            await self._unless_ended(post_drain(), deadline, exited)
            rule = await self._wait_for_connections(deadline, exited)
        return Drained(rule, self._clock.monotonic() - self._started)

    async def _wait_for_connections(self, deadline: Deadline, exited: asyncio.Future[Any]) -> str:
        if not self._plan.ends_on_zero:
            return await self._wait(deadline, exited) or "the drain time is over"
        rule = await self._wait(deadline.sooner(self._plan.minimum), exited)
        said = ""
        while rule is None and not deadline.is_over:
            left = await self._unless_ended(self.active_connections(), deadline, exited)
            now = "unknown" if left is None else str(left)
            if now != said:
                said = now
                self._note("connections", now)
            if left == 0:
                return "no connection is left"
            rule = await self._wait(deadline.sooner(CONNECTION_CHECK_S), exited)
        return rule or "the deadline is over"

    async def _unless_ended(
        self, asking: Coroutine[Any, Any, Any], until: Deadline, exited: asyncio.Future[Any]
    ) -> Any:
        """The answer, or None when the wait ends first: a silent Envoy must not outlast the deadline or a signal."""
        task = asyncio.ensure_future(asking)
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            either: set[asyncio.Future[Any]] = {task, hurry, exited}
            await asyncio.wait(either, timeout=until.left, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            hurry.cancel()
            task.cancel()

    async def active_connections(self) -> int | None:
        """None when Envoy can't say: that counts as still busy, until the deadline."""
        try:
            stats = await self._admin.call(ACTIVE_CONNECTIONS_PATH, timeout=ADMIN_TIMEOUT_S)
        except AdminError as error:
            self._log.warn(f"active connections are unknown: {error}")
            return None
        return count_connections(stats, self._plan.own_ports)

    async def _wait(self, until: Deadline, exited: asyncio.Future[Any]) -> str | None:
        """The reason to wait no longer, or None when `until` came."""
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            either: set[asyncio.Future[Any]] = {hurry, exited}
            await asyncio.wait(either, timeout=until.left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()
        if exited.done():
            return "Envoy ended by itself"
        return "a second signal" if self._hurry.is_set() else None


async def post_drain(admin: Admin, options: DrainOptions, log: Scope) -> bool:
    """Ask Envoy to drain its listeners; whether it took it. Never longer than ADMIN_TIMEOUT_S."""
    try:
        await admin.call(options.path, method="POST", timeout=ADMIN_TIMEOUT_S)
    except AdminError as error:
        log.warn(f"drain request failed: {error}")
        return False
    return True
