"""The start before the event loop: waiting for the pod's network."""

import time

import pytest

from pilot_agent.supervise import prepare
from pilot_agent.supervise.signals import EarlySignals, restore_defaults
from tests.support.clocks import ManualClock


@pytest.mark.parametrize(("seen", "slept"), [([False], 0), ([True, True, False], 2)])
def test_the_start_waits_until_every_interface_has_an_address(
    monkeypatch: pytest.MonkeyPatch, seen: list[bool], slept: int
) -> None:
    answers, clock = iter(seen), ManualClock()
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(prepare, "has_unspecified_address", lambda: next(answers))
    monkeypatch.setattr(time, "sleep", nap)
    signals = EarlySignals()
    try:
        prepare.wait_for_addresses(clock, signals)
    finally:
        restore_defaults()
    assert naps == [0.1] * slept


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr(prepare, "has_unspecified_address", lambda: True)
    monkeypatch.setattr(time, "sleep", clock.advance)
    signals = EarlySignals()
    before = clock.monotonic()
    try:
        prepare.wait_for_addresses(clock, signals)
    finally:
        restore_defaults()
    assert clock.monotonic() - before == pytest.approx(120, abs=0.2)
