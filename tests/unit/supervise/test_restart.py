"""When Envoy is started again, and when no more."""

import pytest

from pilot_agent.supervise.restart import FIRST_DELAY_S, LONGEST_DELAY_S, STABLE_AFTER_S, RestartPolicy

JITTER = 0.2


def delays(policy: RestartPolicy, count: int, *, start: float = 0.0, step: float = 0.0) -> list[float | None]:
    """What the policy says to `count` crashes, each of an Envoy that ran for a second."""
    return [policy.next_delay(start + number * step, 1.0) for number in range(count)]


def test_at_once_the_first_time_then_ever_later() -> None:
    first, *later = delays(RestartPolicy(100, 300.0), 12)
    assert first == 0.0
    expected = FIRST_DELAY_S
    for delay in later:
        assert delay is not None
        assert expected * (1 - JITTER) <= delay <= expected
        expected = min(LONGEST_DELAY_S, expected * 2)
    assert expected == LONGEST_DELAY_S, "the sequence reached its end"


def test_delays_of_many_agents_differ() -> None:
    seconds = {delays(RestartPolicy(100, 300.0), 2)[1] for _ in range(20)}
    assert len(seconds) > 1


@pytest.mark.parametrize("most", [1, 2, 10])
def test_too_many_crashes_in_the_window_mean_giving_up(most: int) -> None:
    found = delays(RestartPolicy(most, 300.0), most, step=299.0 / most)
    assert [delay is None for delay in found] == [False] * (most - 1) + [True]


def test_crashes_before_the_window_do_not_count() -> None:
    policy = RestartPolicy(3, 100.0)
    assert None not in [policy.next_delay(moment, 1.0) for moment in (0.0, 50.0, 100.0, 150.0, 200.0)]
    assert policy.crashes_in_window == 2
    assert policy.next_delay(249.9, 1.0) is None
    assert policy.crashes_in_window == 3


def test_the_window_is_half_open() -> None:
    assert RestartPolicy(2, 100.0).next_delay(0.0, 1.0) is not None
    policy = RestartPolicy(2, 100.0)
    policy.next_delay(0.0, 1.0)
    assert policy.next_delay(99.999, 1.0) is None
    policy = RestartPolicy(2, 100.0)
    policy.next_delay(0.0, 1.0)
    assert policy.next_delay(100.0, 1.0) is not None


def test_a_stable_run_starts_the_sequence_anew() -> None:
    policy = RestartPolicy(100, 1e9)
    delays(policy, 9)
    assert policy.next_delay(1000.0, STABLE_AFTER_S) == 0.0
    second = policy.next_delay(1001.0, 1.0)
    assert second is not None
    assert second <= FIRST_DELAY_S


def test_a_run_that_is_not_quite_stable_does_not() -> None:
    policy = RestartPolicy(100, 1e9)
    delays(policy, 5)
    delay = policy.next_delay(1000.0, STABLE_AFTER_S - 0.001)
    assert delay is not None
    assert delay > FIRST_DELAY_S


def test_a_stable_run_does_not_make_the_crashes_forgotten() -> None:
    policy = RestartPolicy(3, 300.0)
    assert [policy.next_delay(moment, STABLE_AFTER_S) for moment in (0.0, 100.0, 200.0)] == [0.0, 0.0, None]
