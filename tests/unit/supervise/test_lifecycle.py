"""The states of the agent: which follow each other, and who hears of it."""

from itertools import product

import pytest

from pilot_agent.supervise.lifecycle import Lifecycle, Missing, State
from tests.support.clocks import ManualClock
from tests.support.recorded_log import RecordedLog

ALLOWED = {
    State.STARTING: "SERVING RESTARTING DRAINING STOPPING STOPPED",
    State.SERVING: "RESTARTING HOT_RESTARTING DRAINING STOPPING STOPPED",
    State.RESTARTING: "STARTING DRAINING STOPPING STOPPED",
    State.HOT_RESTARTING: "SERVING RESTARTING DRAINING STOPPING STOPPED",
    State.DRAINING: "STOPPING STOPPED",
    State.STOPPING: "STOPPED",
    State.STOPPED: "",
}
WAYS = {
    State.STARTING: [],
    State.SERVING: [State.SERVING],
    State.RESTARTING: [State.RESTARTING],
    State.HOT_RESTARTING: [State.SERVING, State.HOT_RESTARTING],
    State.DRAINING: [State.DRAINING],
    State.STOPPING: [State.STOPPING],
    State.STOPPED: [State.STOPPED],
}
ENDING = {State.DRAINING, State.STOPPING, State.STOPPED}


class Recorded:
    def __init__(self, state: State = State.STARTING) -> None:
        self.log, self.clock, self.changes = RecordedLog(), ManualClock(), 0
        self.lifecycle = Lifecycle(self.log.scope, self.clock, self._changed)
        for step in WAYS[state]:
            self.lifecycle.to(step, "on the way")
        assert self.lifecycle.state is state
        self.log.lines.clear()
        self.changes = 0

    def _changed(self) -> None:
        self.changes += 1


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_each_pair_of_states(before: State, after: State) -> None:
    recorded = Recorded(before)
    lifecycle = recorded.lifecycle
    recorded.clock.now += 5
    if after.name in ALLOWED[before].split():
        lifecycle.to(after, "because")
        assert (lifecycle.state, lifecycle.reason, lifecycle.since) == (after, "because", recorded.clock.now)
        assert recorded.log.lines == [f"info {before.value} -> {after.value} (because)"]
        assert recorded.changes == 1
    else:
        reason, since = lifecycle.reason, lifecycle.since
        with pytest.raises(ValueError) as refused:
            lifecycle.to(after, "because")
        assert str(refused.value) == f"no transition from {before.value} to {after.value} (because)"
        assert (lifecycle.state, lifecycle.reason, lifecycle.since) == (before, reason, since)
        assert (recorded.log.lines, recorded.changes) == ([], 0)
    assert lifecycle.is_ending == (lifecycle.state in ENDING)


def test_the_beginning() -> None:
    lifecycle = Recorded().lifecycle
    assert (lifecycle.state, lifecycle.reason) == (State.STARTING, "Envoy is not started yet")


def test_the_reason_of_a_state_may_become_better() -> None:
    recorded = Recorded()
    missing = Missing(config="no listeners yet", workers="not started")
    recorded.lifecycle.explain(missing)
    recorded.lifecycle.explain(missing)
    assert (recorded.lifecycle.reason, recorded.lifecycle.missing) == ("no listeners yet", missing)
    assert recorded.changes == 1, "only a new reason is told"
    recorded.lifecycle.explain(missing._replace(workers="still not"))
    assert recorded.changes == 2, "a gate behind the first has changed"
    assert recorded.lifecycle.state is State.STARTING


@pytest.mark.parametrize(
    ("states", "missing"),
    [
        ([], Missing.all_of("Envoy is not started yet")),
        ([State.SERVING], Missing()),
        ([State.SERVING, State.HOT_RESTARTING], Missing()),
        ([State.SERVING, State.RESTARTING], Missing.all_of("for restarting")),
        ([State.SERVING, State.RESTARTING, State.STARTING], Missing.all_of("for starting")),
        ([State.SERVING, State.DRAINING, State.STOPPING], Missing()),
        ([State.STOPPING], Missing.all_of("Envoy is not started yet")),
    ],
)
def test_what_is_missing_follows_the_envoy_that_is_to_serve(states: list[State], missing: Missing) -> None:
    lifecycle = Recorded().lifecycle
    for state in states:
        lifecycle.to(state, f"for {state.value}")
    assert lifecycle.missing == missing


def test_the_first_thing_missing_comes_in_the_order_of_a_start() -> None:
    assert Missing("a", "b", "c").first == "a"
    assert Missing(None, "b", "c").first == "b"
    assert Missing(None, None, "c").first == "c"
    assert Missing().first is None
