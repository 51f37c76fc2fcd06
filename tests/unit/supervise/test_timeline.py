"""The timeline of a shutdown: empty before it, then each step with its time."""

from pilot_agent.supervise import timeline
from pilot_agent.supervise.timeline import Timeline
from tests.support.clocks import ManualClock


def test_nothing_is_told_before_a_stop_was_asked_for() -> None:
    made = Timeline(ManualClock())
    made.note("connections", "3")
    assert made.described() == {"state": "not stopping", "plan": "", "steps": []}


def test_each_step_has_the_seconds_since_the_stop_was_asked_for() -> None:
    clock = ManualClock()
    made = Timeline(clock)
    made.begin("SIGTERM")
    made.plan = "drain at +0 s"
    clock.advance(1.25)
    made.note("connections", "3")
    assert made.described() == {
        "state": "stopping",
        "plan": "drain at +0 s",
        "steps": [
            {"at_seconds": 0.0, "step": "asked to stop", "detail": "SIGTERM"},
            {"at_seconds": 1.25, "step": "connections", "detail": "3"},
        ],
    }


def test_a_long_drain_does_not_fill_the_memory() -> None:
    made = Timeline(ManualClock())
    made.begin("SIGTERM")
    for count in range(timeline.MOST_STEPS * 2):
        made.note("connections", str(count))
    assert len(made.steps) == timeline.MOST_STEPS
    assert made.steps[-1].detail == str(timeline.MOST_STEPS * 2 - 1)
    made.note("Envoy has ended")
    assert made.steps[-1].step == "Envoy has ended", "what comes after it is told"
