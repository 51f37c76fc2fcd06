"""The supervisor's gates of readiness."""

from typing import Any

import pytest

from pilot_agent.supervise.gates import EnvoyGate, TerminationGate
from pilot_agent.supervise.lifecycle import Lifecycle, State
from pilot_agent.supervise.watchdog import Watchdog
from tests.support.clocks import ManualClock
from tests.support.recorded_log import RecordedLog


def gates(*states: State) -> tuple[EnvoyGate, TerminationGate, Watchdog]:
    lifecycle = Lifecycle(RecordedLog().scope, ManualClock())
    for state in states:
        lifecycle.to(state, f"for {state.value}")
    never: Any = None
    watchdog = Watchdog(never, 5.0, 2)
    return EnvoyGate(lifecycle, watchdog), TerminationGate(lifecycle), watchdog


@pytest.mark.parametrize(
    ("states", "envoy", "termination"),
    [
        ([], "starting: Envoy is not started yet", None),
        ([State.SERVING], None, None),
        ([State.RESTARTING], "restarting: for restarting", None),
        ([State.SERVING, State.HOT_RESTARTING], None, None),
        ([State.SERVING, State.DRAINING], None, "draining: for draining"),
        ([State.SERVING, State.STOPPING], None, "stopping: for stopping"),
        ([State.STOPPED], None, "stopped: for stopped"),
    ],
)
def test_gates_follow_the_state(states: list[State], envoy: str | None, termination: str | None) -> None:
    envoy_gate, termination_gate, _ = gates(*states)
    assert (envoy_gate.reason(), termination_gate.reason()) == (envoy, termination)
    assert (envoy_gate.name, termination_gate.name) == ("envoy", "termination")


def test_a_hung_envoy_closes_its_gate() -> None:
    gate, _, watchdog = gates(State.SERVING)
    watchdog.silent_in_a_row = 1
    assert gate.reason() is None
    watchdog.silent_in_a_row = 2
    assert str(gate.reason()).startswith("Envoy hangs: ")
