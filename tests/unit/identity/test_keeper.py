"""When certificate files are looked at, who is told, and what is counted."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from pilot_agent.errors import IdentityError
from pilot_agent.identity import keeper as keeper_module
from pilot_agent.identity.account import Account
from pilot_agent.identity.keeper import PATIENCE_S, Keeper
from pilot_agent.identity.mounted import Mounted, Reading
from pilot_agent.identity.options import Files
from tests.support.authority import Authority
from tests.support.clocks import ManualClock
from tests.support.eventually_async import eventually_async
from tests.support.recorded_log import RecordedLog

ROOT = Authority().pem
GARBAGE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


class Taken(NamedTuple):
    reading: Reading
    is_news: bool
    is_late: bool


class Stand:
    """A keeper of one root file; `is_good` is what `take` says of a reading without errors."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "root.pem"
        self.account, self.log, self.clock = Account(), RecordedLog(), ManualClock()
        self.taken: list[Taken] = []
        self.is_good = True
        self.keeper: Keeper

    async def take(self, reading: Reading, is_news: bool, is_late: bool) -> bool:
        self.taken.append(Taken(reading, is_news, is_late))
        return self.is_good and not reading.errors

    def run(
        self, scenario: Callable[[], Awaitable[None]], mounted: Mounted | None = None, debounce_s: float = 0.01
    ) -> None:
        async def main() -> None:
            with ThreadPoolExecutor(1) as executor:
                files = mounted or Mounted(Files(root=self.file))
                arguments = (self.account, self.log.scope, self.clock, debounce_s)
                self.keeper = Keeper(files, self.take, executor, *arguments)
                task = asyncio.create_task(self.keeper.run())
                try:
                    await scenario()
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled(), "it ends by being cancelled only"

        asyncio.run(main())

    async def looks(self, count: int) -> None:
        await eventually_async(lambda: len(self.taken) >= count)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def test_it_looks_at_once_and_when_told(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.looks(1)
        stand.file.write_text(ROOT)
        stand.keeper.changed()
        await stand.looks(2)
        stand.keeper.changed()
        await stand.looks(3)

    stand.run(scenario)
    assert [(each.reading.roots, each.is_news) for each in stand.taken] == [
        (None, True),
        ((ROOT.strip(),), True),
        ((ROOT.strip(),), False),
    ]


def test_it_looks_without_being_told_too(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "POLL_S", 0.01)

    async def scenario() -> None:
        await stand.looks(1)
        stand.file.write_text(ROOT)
        await eventually_async(lambda: stand.taken[-1].reading.roots)

    stand.run(scenario)


def test_many_changes_during_a_look_are_one_more_look(stand: Stand) -> None:
    is_reading, may_go_on = threading.Event(), threading.Event()

    class Slow(Mounted):
        def read(self, now: float) -> tuple[Reading, bool]:
            is_reading.set()
            assert may_go_on.wait(10)
            return super().read(now)

    async def scenario() -> None:
        await eventually_async(is_reading.is_set)
        stand.file.write_text(ROOT)
        for _ in range(100):
            stand.keeper.changed()
        may_go_on.set()
        await stand.looks(2)
        stand.keeper.changed()
        await stand.looks(3)

    stand.run(scenario, Slow(Files(root=stand.file)))
    assert len(stand.taken) == 3


def test_something_wrong_is_looked_at_again_soon_and_reported_once(stand: Stand) -> None:
    stand.file.write_text(GARBAGE)

    async def scenario() -> None:
        await stand.looks(3)
        stand.file.write_text(ROOT)
        await eventually_async(lambda: not stand.taken[-1].reading.errors)

    stand.run(scenario)
    assert (stand.account.file_failures, stand.account.file_changes) == (1, 1)
    assert stand.account.failures == {"pem": 1}
    assert stand.log.lines == [
        f"error the root file {stand.file} has no usable certificate in it ({len(GARBAGE)} bytes); "
        "what was good before stays in use"
    ]


def test_what_is_not_as_it_should_be_is_looked_at_again_soon_too(stand: Stand) -> None:
    stand.is_good = False
    stand.run(lambda: stand.looks(3))
    assert (stand.account.file_failures, stand.log.lines) == (0, [])


def test_no_debounce_is_no_busy_loop(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float | None] = []
    timeout = asyncio.timeout

    def noting(delay: float | None) -> asyncio.Timeout:
        delays.append(delay)
        return timeout(delay)

    monkeypatch.setattr(asyncio, "timeout", noting)
    stand.is_good = False
    stand.run(lambda: stand.looks(4), debounce_s=0.0)
    for delay, base in zip(delays, (0.01, 0.02, 0.04), strict=False):
        assert delay is not None
        assert base * 0.8 <= delay <= base


def test_late_is_after_the_patience_and_ends_with_something_good(stand: Stand) -> None:
    stand.is_good = False

    async def scenario() -> None:
        await stand.looks(1)
        stand.clock.advance(PATIENCE_S - 1)
        count = len(stand.taken)
        await stand.looks(count + 2)
        assert not any(each.is_late for each in stand.taken)
        stand.clock.advance(1)
        await eventually_async(lambda: stand.taken[-1].is_late)
        stand.is_good = True
        await eventually_async(lambda: stand.keeper._failing_since is None)
        stand.is_good = False
        count = len(stand.taken)
        stand.keeper.changed()
        await stand.looks(count + 2)
        assert not any(each.is_late for each in stand.taken[count:])

    stand.run(scenario)


def test_what_is_left_out_of_the_roots_is_warned_of_once(stand: Stand) -> None:
    stand.file.write_text(GARBAGE + ROOT)

    async def scenario() -> None:
        await stand.looks(1)
        stand.keeper.changed()
        await stand.looks(2)

    stand.run(scenario)
    (line,) = stand.log.lines
    assert line.startswith(f"warn certificate 1 of the root file {stand.file} is left out: ")
    assert (stand.account.file_failures, stand.account.file_changes) == (0, 1)


def test_when_it_looked_last_is_noted(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.looks(1)
        assert stand.account.checked_at == 1000.0
        stand.clock.advance(5)
        stand.keeper.changed()
        await stand.looks(2)

    stand.run(scenario)
    assert stand.account.checked_at == 1005.0


def test_both_parts_of_a_set_are_counted(stand: Stand, tmp_path: Path) -> None:
    (tmp_path / "cert-chain.pem").write_text("x")
    (tmp_path / "root-cert.pem").write_text("x")
    stand.run(lambda: stand.looks(1), Mounted(Files.of_directory(tmp_path)))
    assert stand.account.failures == {"file_missing": 1, "pem": 1}
    assert isinstance(stand.taken[0].reading.pair, IdentityError)
