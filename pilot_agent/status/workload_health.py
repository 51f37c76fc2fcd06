"""Whether the workload of a virtual machine is healthy: checks it as `readinessProbe` says, and tells each change.

Nobody but the agent probes there, and istiod takes an unhealthy workload out of its endpoints. Owns the checks and the
counting; how istiod is told (istio.v1.HealthInformation on the ADS stream) is whoever is behind `HealthReports`.
Called by `supervise`, which also owns the children that a command check starts.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from pilot_agent.clock import Clock
from pilot_agent.log import Scope
from pilot_agent.status.probe_dial import Dialer, Place, ProbeFailed, describe
from pilot_agent.status.readiness import Gate
from pilot_agent.status.workload_probe import ExecCheck, GrpcCheck, HttpCheck, TcpCheck, WorkloadProbe

USER_AGENT = b"istio-probe/1.0"

_ENVOY_POLL_SECONDS = 0.5

Own = Callable[[int, Callable[[], bool]], None]
"""Takes a child's pid and what reaps it: `supervise.reaper.Reaper.own`."""


class HealthReports(Protocol):
    """Who wants to know, such as the xDS proxy.

    Called from the event loop with every change, and with every new reason while the workload is unhealthy; must not
    wait. `message` is empty when healthy.
    """

    def report(self, healthy: bool, message: str) -> None: ...


class HealthReport(NamedTuple):
    is_healthy: bool
    message: str


class Surroundings(NamedTuple):
    """`host` is asked where the probe names none: the first address of the node, or `localhost`.

    `envoy` is the gate that is open while Envoy serves, None where there is no Envoy.
    """

    host: str
    envoy: Gate | None
    own: Own
    clock: Clock
    log: Scope
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


class WorkloadHealth:
    def __init__(self, probe: WorkloadProbe, reports: HealthReports, surroundings: Surroundings) -> None:
        self._probe, self._reports, self._around = probe, reports, surroundings
        self._successes = self._failures = 0
        self.latest: HealthReport | None = None
        """What was reported last, for who comes later; None before the first report."""

    async def run(self) -> None:
        """Check until cancelled. The first check waits for Envoy: that it is not up yet says nothing of the workload,
        and with Istio's agent makes every start an outage.
        """
        clock, pause = self._around.clock, self._around.pause
        await pause(self._probe.initial_delay)
        while self._envoy_reason() is not None:
            await pause(_ENVOY_POLL_SECONDS)
        due = clock.monotonic()
        while True:
            self._take(await self._check())
            # A slow check delays the next one, and is not made up for by several.
            due = max(due + self._probe.period, clock.monotonic())
            await pause(due - clock.monotonic())

    def _envoy_reason(self) -> str | None:
        return self._around.envoy.reason() if self._around.envoy is not None else None

    async def _check(self) -> str | None:
        """None when healthy, else why not."""
        reason = self._envoy_reason()
        if reason is not None:
            return f"envoy: {reason}"
        try:
            async with asyncio.timeout(self._probe.timeout) as deadline:
                await self._ask()
        except TimeoutError as error:
            return f"no answer within {self._probe.timeout} s" if deadline.expired() else describe(error)
        except (ProbeFailed, OSError) as error:
            return describe(error)
        except Exception as error:  # noqa: BLE001  (our own mistake must not end the reports)
            self._around.log.error(f"the workload's check failed in itself: {error!r}")
            return f"the check failed in itself: {describe(error)}"
        return None

    async def _ask(self) -> None:
        check = self._probe.check
        if isinstance(check, HttpCheck):
            await check_http(check, self._around.host, self._around.log)
        elif isinstance(check, TcpCheck):
            await self._unbound().touch(Place(check.host or self._around.host, check.port))
        elif isinstance(check, GrpcCheck):
            from pilot_agent.status.probe_h2 import check_health

            await check_health(self._unbound(), Place(self._around.host, check.port), check.service, USER_AGENT)
        else:
            await run_command(check, self._around.own)

    def _unbound(self) -> Dialer:
        return Dialer(self._around.log, is_source_bound=False)

    def _take(self, problem: str | None) -> None:
        if problem is None:
            self._successes, self._failures = self._successes + 1, 0
            if self._successes >= self._probe.successes and (self.latest is None or not self.latest.is_healthy):
                self._tell(HealthReport(True, ""))
            return
        self._successes, self._failures = 0, self._failures + 1
        is_told_unhealthy = self.latest is not None and not self.latest.is_healthy
        report = HealthReport(False, problem)
        if (is_told_unhealthy or self._failures >= self._probe.failures) and report != self.latest:
            self._tell(report)

    def _tell(self, report: HealthReport) -> None:
        self.latest = report
        if report.is_healthy:
            self._around.log.info("the workload is healthy")
        else:
            self._around.log.warn(f"the workload is unhealthy: {report.message}")
        self._reports.report(report.is_healthy, report.message)


async def check_http(check: HttpCheck, default_host: str, log: Scope) -> None:
    """GET over HTTP/1.1, any certificate, redirects followed anywhere; 200 to 399 is healthy.

    Raises ProbeFailed or OSError.
    """
    from pilot_agent.status.probe_http import Ask, HttpClient, escaped

    place = Place(check.host or default_host, check.port)
    headers = [(name.encode("latin-1", "replace"), value.encode("utf-8", "replace")) for name, value in check.headers]
    if not any(name.lower() == b"user-agent" for name, _ in headers):
        headers.insert(0, (b"User-Agent", USER_AGENT))
    authority = next((value for name, value in headers if name.lower() == b"host"), place.authority)
    headers = [(name, value) for name, value in headers if name.lower() != b"host"]
    client = HttpClient(Dialer(log))
    answer = await client.follow(
        Ask(place, check.is_tls, escaped(check.path), authority, headers), lambda _host, _onward: True
    )
    if not 200 <= answer.status < 400:
        raise ProbeFailed(f"HTTP status {answer.status}")


async def run_command(check: ExecCheck, own: Own) -> None:
    """Run it in a process group of its own; that ends when we stop waiting. Raises ProbeFailed unless it ends with 0,
    OSError when it can't be started.
    """
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    nowhere = subprocess.DEVNULL
    # What is short, and reads nothing: the pipes of asyncio's own subprocesses would be more than the call itself.
    child = subprocess.Popen(check.argv, stdin=nowhere, stdout=nowhere, stderr=nowhere, process_group=0)  # noqa: ASYNC220

    def collect() -> bool:
        pid, raw = os.waitpid(child.pid, os.WNOHANG)
        if not pid:
            return False
        child.returncode = os.waitstatus_to_exitcode(raw)
        if not ended.done():
            ended.set_result(child.returncode)
        return True

    own(child.pid, collect)
    try:
        code = await ended
    finally:
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
    if code:
        raise ProbeFailed(f"{check.argv[0]} ended with {f'signal {-code}' if code < 0 else f'code {code}'}")
