"""Deadlines and back-off, on a clock that only the test moves."""

from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.clock import Backoff, Deadline, SystemClock
from tests.support.clocks import ManualClock


def test_a_deadline_counts_down_and_stops_at_zero() -> None:
    clock = ManualClock()
    deadline = Deadline.after(5, clock)
    assert (deadline.left, deadline.is_over) == (5, False)
    clock.now += 4
    assert (deadline.left, deadline.is_over) == (1, False)
    clock.now += 4
    assert (deadline.left, deadline.is_over) == (0, True)


def test_a_deadline_of_nothing_is_over() -> None:
    assert Deadline.after(0, ManualClock()).is_over


def test_sooner_never_gives_more_time() -> None:
    clock = ManualClock()
    deadline = Deadline.after(5, clock)
    assert deadline.sooner(2).left == 2
    assert deadline.sooner(9).left == 5


def test_the_system_clock_does_not_go_back() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.wall() > 1_700_000_000


def test_back_off_doubles_up_to_the_ceiling_and_starts_again_after_a_reset() -> None:
    backoff = Backoff(0.1, 1.0, jitter=0)
    assert [backoff.next() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next() == 0.1


@given(st.floats(0.001, 10), st.floats(10, 100), st.floats(0, 1))
def test_jitter_only_shortens_and_by_no_more_than_its_share(first: float, ceiling: float, jitter: float) -> None:
    backoff = Backoff(first, ceiling, jitter)
    full = first
    for _ in range(8):
        assert full * (1 - jitter) <= backoff.next() <= full
        full = min(ceiling, full * 2)


def test_two_agents_do_not_retry_in_step() -> None:
    assert len({Backoff(1.0, 10.0).next() for _ in range(20)}) > 1
