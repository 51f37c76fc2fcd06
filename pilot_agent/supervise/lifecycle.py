"""The states of the agent and the transitions between them; every change is logged `from -> to (reason)`.

docs/lifecycle.md has the drawing. Readiness and metrics read from here, nobody else keeps state about it.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

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


class Missing(NamedTuple):
    """What keeps an Envoy that starts from serving, in the order in which it comes; None for what is there."""

    envoy: str | None = None
    config: str | None = None
    workers: str | None = None

    @property
    def first(self) -> str | None:
        return self.envoy or self.config or self.workers

    @classmethod
    def all_of(cls, why: str) -> "Missing":
        """Of an Envoy that does not run, or does not answer yet, nothing else is known."""
        return cls(why, "not known before Envoy answers", "not known before Envoy answers")


class Lifecycle:
    """The one mutable state of the agent. `reason` explains the state to whoever asks why it is not ready.

    `missing` is what the Envoy that serves, or is to serve, lacks; a hot restart, a drain and an end leave it alone.
    """

    def __init__(self, log: Scope, clock: Clock, changed: Callable[[], None] = lambda: None) -> None:
        self._log, self._clock, self._changed = log, clock, changed
        self.state = State.STARTING
        self.reason = "Envoy is not started yet"
        self.missing = Missing.all_of(self.reason)
        self.since = clock.monotonic()

    def to(self, state: State, reason: str) -> None:
        """Raises ValueError for a transition the drawing does not have."""
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"no transition from {self.state.value} to {state.value} ({reason})")
        self._log.info(f"{self.state.value} -> {state.value} ({reason})")
        self.state, self.reason, self.since = state, reason, self._clock.monotonic()
        if state in (State.STARTING, State.RESTARTING):
            self.missing = Missing.all_of(reason)
        elif state is State.SERVING:
            self.missing = Missing()
        self._changed()

    def explain(self, missing: Missing) -> None:
        """What is known by now of an Envoy that does not serve yet: the reason for the state we are in."""
        if missing != self.missing:
            self.missing, self.reason = missing, missing.first or self.reason
            self._changed()

    @property
    def is_ending(self) -> bool:
        return self.state in _ENDING
