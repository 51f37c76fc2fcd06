"""What a shutdown planned, and what it has done so far: for the log's last line and for `/debug/shutdown`."""

from typing import Any, NamedTuple

from pilot_agent.clock import Clock

MOST_STEPS = 200
"""From here on a step of the same kind replaces the last: connections may come and go for an hour."""


class Step(NamedTuple):
    """`at`: seconds since the shutdown was asked for."""

    at: float
    step: str
    detail: str


class Timeline:
    """Empty until `begin`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began: float | None = None
        self.plan = ""
        self.steps: list[Step] = []

    def begin(self, reason: str) -> None:
        self._began = self._clock.monotonic()
        self.note("asked to stop", reason)

    def note(self, step: str, detail: str = "") -> None:
        if self._began is not None:
            if len(self.steps) >= MOST_STEPS and self.steps[-1].step == step:
                self.steps.pop()
            self.steps.append(Step(self._clock.monotonic() - self._began, step, detail))

    def described(self) -> dict[str, Any]:
        """{"state": "not stopping" or "stopping", "plan", "steps": [{"at_seconds", "step", "detail"}]}."""
        steps = [{"at_seconds": round(each.at, 3), "step": each.step, "detail": each.detail} for each in self.steps]
        return {"state": "stopping" if self.steps else "not stopping", "plan": self.plan, "steps": steps}
