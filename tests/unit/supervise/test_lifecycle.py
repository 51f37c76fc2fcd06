"""The states of the agent: which follow each other, and who hears of it."""

from itertools import product

import pytest

from pilot_agent.supervise.lifecycle import Lifecycle, State
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
    recorded.lifecycle.explain("no listeners yet")
    recorded.lifecycle.explain("no listeners yet")
    assert recorded.lifecycle.reason == "no listeners yet"
    assert recorded.changes == 1, "only a new reason is told"
    assert recorded.lifecycle.state is State.STARTING
