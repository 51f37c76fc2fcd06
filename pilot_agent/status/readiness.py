"""Whether the proxy may get traffic, and if not, why: asks the gates, remembers since when, logs each change once.

What a gate watches (Envoy, the configuration, a shutdown) belongs to whoever wired it in. `front` asks for every probe.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from pilot_agent.clock import Clock
from pilot_agent.log import Scope


class Gate(Protocol):
    """One condition for being ready.

    `reason` is called for every probe: it looks at what is known and never waits. A text that moves by itself (a
    countdown) would be logged each time it is asked.
    """

    @property
    def name(self) -> str: ...

    def reason(self) -> str | None:
        """None when this gate is open, else why it is not."""


class GateReport(NamedTuple):
    """`since`: seconds for which the gate has been open, or closed, as far as it was looked at; `at`: the wall clock's
    time when that began."""

    name: str
    is_open: bool
    reason: str | None
    since: float
    at: float

    def described(self) -> dict[str, Any]:
        """For JSON: {"name", "state": "open" or "closed", "reason", "since_seconds", "since": RFC 3339}."""
        return {
            "name": self.name,
            "state": "open" if self.is_open else "closed",
            "reason": self.reason,
            "since_seconds": round(self.since, 3),
            "since": timestamp(self.at),
        }


def timestamp(wall: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC, to the millisecond."""
    # To the integer first: two roundings of one number can disagree about the second.
    seconds, milliseconds = divmod(round(wall * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def _no_notes() -> Sequence[str]:
    return ()


class Readiness:
    """`notes` gives lines for the verbose report that do not make the proxy unready, such as a refused local file."""

    def __init__(
        self,
        gates: Sequence[Gate],
        log: Scope,
        clock: Clock,
        notes: Callable[[], Sequence[str]] = _no_notes,
    ) -> None:
        self._gates, self._log, self._clock, self._notes = tuple(gates), log, clock, notes
        self._said: str | None = None
        self._has_spoken = False
        self._changed_at: dict[str, tuple[bool, float, float]] = {}

    def reason(self) -> str | None:
        """None when ready, else the first closed gate and its reason: `envoy: exited with code 1`."""
        found = None
        for gate in self._gates:
            reason = self._ask(gate)
            if reason is not None:
                found = f"{gate.name}: {reason}"
                break
        if found != self._said or not self._has_spoken:
            self._say(found)
        return found

    def note_change(self) -> None:
        """Tell that something may have changed, so that a flip is logged, and dated, even when nobody probes."""
        self.reason()
        self.report()

    def report(self) -> list[GateReport]:
        """Every gate in order, closed ones behind the first included."""
        now = self._clock.monotonic()
        lines = []
        for gate in self._gates:
            reason = self._ask(gate)
            was_open, since, at = self._changed_at.get(gate.name, (None, now, 0.0))
            if was_open is not (reason is None):
                since, at = now, self._clock.wall()
                self._changed_at[gate.name] = (reason is None, since, at)
            lines.append(GateReport(gate.name, reason is None, reason, now - since, at))
        return lines

    def described(self) -> dict[str, Any]:
        """The body of `/healthz/ready` for `Accept: application/json`: {"ready", "gates", "notes"}."""
        gates = self.report()
        return {
            "ready": all(gate.is_open for gate in gates),
            "gates": [gate.described() for gate in gates],
            "notes": list(self._notes()),
        }

    def verbose(self) -> str:
        """The body of `/healthz/ready?verbose`: a line per gate, then the notes."""
        lines = [
            (f"[+]{gate.name} ok" if gate.is_open else f"[-]{gate.name}: {gate.reason}") + f" (since {gate.since:.1f}s)"
            for gate in self.report()
        ]
        return "".join(f"{line}\n" for line in [*lines, *self._notes()])

    def _ask(self, gate: Gate) -> str | None:
        try:
            return gate.reason()
        except Exception as error:  # noqa: BLE001  (a broken gate is a closed one; it must not take the port with it)
            return f"can't be told: {error!r}"

    def _say(self, reason: str | None) -> None:
        self._said, self._has_spoken = reason, True
        self.report()
        if reason is None:
            self._log.info("ready")
        else:
            self._log.warn(f"not ready: {reason}")
