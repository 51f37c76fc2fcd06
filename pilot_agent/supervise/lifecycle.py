"""The states of the agent and the transitions between them; every change is logged `from -> to (reason)`.

docs/lifecycle.md has the drawing. Readiness and metrics read from here, nobody else keeps state about it.
"""

from collections.abc import Callable
from enum import Enum

from pilot_agent.clock import Clock
from pilot_agent.log import Scope


class State(Enum):
    STARTING = "starting"
    SERVING = "serving"
    RESTARTING = "restarting"
    HOT_RESTARTING = "hot restarting"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


_ENDING = {State.DRAINING, State.STOPPING, State.STOPPED}
TRANSITIONS = {
    State.STARTING: {State.SERVING, State.RESTARTING} | _ENDING,
    State.SERVING: {State.RESTARTING, State.HOT_RESTARTING} | _ENDING,
    State.RESTARTING: {State.STARTING} | _ENDING,
    State.HOT_RESTARTING: {State.SERVING, State.RESTARTING} | _ENDING,
    State.DRAINING: {State.STOPPING, State.STOPPED},
    State.STOPPING: {State.STOPPED},
    State.STOPPED: set[State](),
}


class Lifecycle:
    """The one mutable state of the agent. `reason` explains the state to whoever asks why it is not ready."""

    def __init__(self, log: Scope, clock: Clock, changed: Callable[[], None] = lambda: None) -> None:
        self._log, self._clock, self._changed = log, clock, changed
        self.state = State.STARTING
        self.reason = "Envoy is not started yet"
        self.since = clock.monotonic()

    def to(self, state: State, reason: str) -> None:
        """Raises ValueError for a transition the drawing does not have."""
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"no transition from {self.state.value} to {state.value} ({reason})")
        self._log.info(f"{self.state.value} -> {state.value} ({reason})")
        self.state, self.reason, self.since = state, reason, self._clock.monotonic()
        self._changed()

    def explain(self, reason: str) -> None:
        """A better reason for the state we are in."""
        if reason != self.reason:
            self.reason = reason
            self._changed()

    @property
    def is_ending(self) -> bool:
        return self.state in _ENDING
