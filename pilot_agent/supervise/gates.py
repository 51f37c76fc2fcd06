"""The gates of readiness that the supervisor owns. A gate says why it is closed, or None."""

from pilot_agent.supervise.lifecycle import Lifecycle, State
from pilot_agent.supervise.watchdog import Watchdog


class EnvoyGate:
    """Open while an Envoy serves and answers, hot restarts and drains included."""

    name = "envoy"

    def __init__(self, lifecycle: Lifecycle, watchdog: Watchdog) -> None:
        self._lifecycle, self._watchdog = lifecycle, watchdog

    def reason(self) -> str | None:
        if self._lifecycle.state in (State.STARTING, State.RESTARTING):
            return f"{self._lifecycle.state.value}: {self._lifecycle.reason}"
        return self._watchdog.reason


class TerminationGate:
    """Closed from the moment a stop was asked for: Envoy itself keeps saying LIVE while it drains."""

    name = "termination"

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def reason(self) -> str | None:
        return f"{self._lifecycle.state.value}: {self._lifecycle.reason}" if self._lifecycle.is_ending else None
