"""The gates of readiness, in the order in which a start opens them. A gate says why it is closed, or None.

They look at what the supervisor knows; none of them asks anybody.
"""

from collections.abc import Callable, Container, Sequence
from pathlib import Path

from pilot_agent.supervise.lifecycle import Lifecycle, State
from pilot_agent.supervise.watchdog import Pulse, Watchdog


class BootstrapGate:
    """Open from the end of the start's phase `bootstrap` on: it is worked out and written. A change that is refused
    does not close it, Envoy goes on with the last good one."""

    name = "bootstrap"

    def __init__(self, phases: Container[str]) -> None:
        self._phases = phases

    def reason(self) -> str | None:
        return None if "bootstrap" in self._phases else "not written yet"


class EnvoyGate:
    """Open while an Envoy runs and its admin interface answers, hot restarts and drains included."""

    name = "envoy"

    def __init__(self, lifecycle: Lifecycle, pulse: Pulse, watchdog: Watchdog, is_running: Callable[[], bool]) -> None:
        """`is_running`: whether the Envoy that serves, or is to serve, has not ended."""
        self._lifecycle, self._pulse, self._watchdog, self._is_running = lifecycle, pulse, watchdog, is_running

    def reason(self) -> str | None:
        lifecycle = self._lifecycle
        if lifecycle.missing.envoy is not None:
            state = lifecycle.state
            is_on_its_way = state in (State.STARTING, State.RESTARTING)
            return f"{state.value}: {lifecycle.missing.envoy}" if is_on_its_way else lifecycle.missing.envoy
        if not self._is_running() and not lifecycle.is_ending:
            return "it has ended"  # the run loop has not got round to it yet
        # Of an Envoy that is counted as hung the watchdog knows more, but the pulse knows sooner that it is back.
        return (self._watchdog.reason or self._pulse.reason) if self._pulse.is_silent else None


class ConfigGate:
    """Open when Envoy has got its clusters and its listeners."""

    name = "config"

    def __init__(self, lifecycle: Lifecycle, problem: Callable[[], str | None] = lambda: None) -> None:
        """`problem`: why there may be none, such as an istiod that can't be reached."""
        self._lifecycle, self._problem = lifecycle, problem

    def reason(self) -> str | None:
        missing = self._lifecycle.missing.config
        problem = self._problem() if missing is not None else None
        return f"{missing}; {problem}" if problem is not None else missing


class WorkersGate:
    """Open when Envoy is LIVE and its workers take connections."""

    name = "workers"

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def reason(self) -> str | None:
        return self._lifecycle.missing.workers


class CertificatesGate:
    """Open while there is a certificate to serve with, or none of ours is needed. An old one that can't be renewed
    leaves it open until it expires."""

    name = "certificates"

    def __init__(self, reason: Callable[[], str | None]) -> None:
        self.reason = reason


class GrpcBootstrapGate:
    """Open while the certificates that gRPC's xDS bootstrap names are there (status.md, section 3b)."""

    name = "grpc-bootstrap"

    def __init__(self, certificates: Sequence[Path]) -> None:
        self._certificates = certificates

    def reason(self) -> str | None:
        missing = [path.name for path in self._certificates if not path.exists()]
        return f"not there yet in {self._certificates[0].parent}: {', '.join(missing)}" if missing else None


class NameTableGate:
    """Open where no DNS proxy is wanted, and else once istiod has sent its first table."""

    name = "nametable"

    def __init__(self, reason: Callable[[], str | None]) -> None:
        self.reason = reason


class TerminatingGate:
    """Closed from the moment a stop was asked for: Envoy itself keeps saying LIVE while it drains."""

    name = "terminating"

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def reason(self) -> str | None:
        return f"{self._lifecycle.state.value}: {self._lifecycle.reason}" if self._lifecycle.is_ending else None
