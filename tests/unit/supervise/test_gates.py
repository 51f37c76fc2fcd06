"""The supervisor's gates of readiness."""

from pathlib import Path
from typing import Any

import pytest

from pilot_agent.supervise.gates import (
    BootstrapGate,
    ConfigGate,
    EnvoyGate,
    GrpcBootstrapGate,
    TerminatingGate,
    WorkersGate,
)
from pilot_agent.supervise.lifecycle import Lifecycle, Missing, State
from pilot_agent.supervise.watchdog import Pulse, Watchdog
from tests.support.clocks import ManualClock
from tests.support.recorded_log import RecordedLog

UNKNOWN = "not known before Envoy answers"


class Gates:
    def __init__(self, *states: State) -> None:
        self.lifecycle = Lifecycle(RecordedLog().scope, ManualClock())
        for state in states:
            self.lifecycle.to(state, f"for {state.value}")
        never: Any = None
        self.watchdog, self.pulse = Watchdog(never, 5.0, 2), Pulse(never)
        self.is_running = True
        self.envoy = EnvoyGate(self.lifecycle, self.pulse, self.watchdog, lambda: self.is_running)
        self.config, self.workers = ConfigGate(self.lifecycle), WorkersGate(self.lifecycle)
        self.terminating = TerminatingGate(self.lifecycle)

    def reasons(self) -> tuple[str | None, ...]:
        return tuple(each.reason() for each in (self.envoy, self.config, self.workers, self.terminating))


@pytest.mark.parametrize(
    ("states", "reasons"),
    [
        ([], ("starting: Envoy is not started yet", UNKNOWN, UNKNOWN, None)),
        ([State.SERVING], (None, None, None, None)),
        ([State.RESTARTING], ("restarting: for restarting", UNKNOWN, UNKNOWN, None)),
        ([State.SERVING, State.HOT_RESTARTING], (None, None, None, None)),
        ([State.SERVING, State.DRAINING], (None, None, None, "draining: for draining")),
        ([State.SERVING, State.STOPPING], (None, None, None, "stopping: for stopping")),
        ([State.STOPPED], ("Envoy is not started yet", UNKNOWN, UNKNOWN, "stopped: for stopped")),
    ],
)
def test_gates_follow_the_state(states: list[State], reasons: tuple[str | None, ...]) -> None:
    assert Gates(*states).reasons() == reasons


def test_gates_open_one_by_one_during_a_start() -> None:
    gates = Gates()
    gates.lifecycle.explain(Missing.all_of("connection refused"))
    assert gates.reasons() == ("starting: connection refused", UNKNOWN, UNKNOWN, None)
    gates.lifecycle.explain(Missing(config="no configuration received yet", workers="Envoy is INITIALIZING, not LIVE"))
    assert gates.reasons() == (None, "no configuration received yet", "Envoy is INITIALIZING, not LIVE", None)
    gates.lifecycle.explain(Missing(workers="not started"))
    assert gates.reasons() == (None, None, "not started", None)
    gates.lifecycle.to(State.SERVING, "it serves")
    assert gates.reasons() == (None,) * 4


def test_an_envoy_that_has_ended_closes_its_gate_before_anything_is_decided() -> None:
    gates = Gates(State.SERVING)
    gates.is_running = False
    assert gates.envoy.reason() == "it has ended"
    gates.lifecycle.to(State.STOPPING, "SIGTERM")
    assert gates.envoy.reason() is None, "its end is wanted now"


def test_a_silent_envoy_closes_its_gate_and_a_hung_one_says_so_until_it_answers() -> None:
    gates = Gates(State.SERVING)
    gates.watchdog.silent_in_a_row = 2
    assert gates.envoy.reason() is None, "the pulse knows first that it is back"
    gates.pulse.is_silent = True
    assert str(gates.envoy.reason()).startswith("Envoy hangs: ")
    gates.watchdog.silent_in_a_row = 1
    assert gates.envoy.reason() == "its admin interface does not answer"
    assert (gates.config.reason(), gates.workers.reason()) == (None, None)


def test_the_bootstrap_is_there_when_its_phase_has_ended() -> None:
    phases = {"settings": 0.1}
    gate = BootstrapGate(phases)
    assert gate.reason() == "not written yet"
    phases["bootstrap"] = 0.2
    assert gate.reason() is None


def test_the_bootstrap_of_grpc_waits_for_the_certificates_it_names(tmp_path: Path) -> None:
    chain, key = tmp_path / "cert-chain.pem", tmp_path / "key.pem"
    gate = GrpcBootstrapGate([chain, key])
    chain.touch()
    assert gate.reason() == f"not there yet in {tmp_path}: key.pem"
    key.touch()
    assert gate.reason() is None
    assert GrpcBootstrapGate([]).reason() is None
