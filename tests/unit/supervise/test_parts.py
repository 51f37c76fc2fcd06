"""Background parts: a failing one is run again, counted and told, and none outlives the agent."""

import asyncio

import pytest

from pilot_agent.supervise import parts
from pilot_agent.supervise.parts import Parts
from tests.support.eventually_async import eventually_async
from tests.support.recorded_log import RecordedLog


class Delays:
    """In place of the back-off: each delay is `seconds`, and how many were asked for is known."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.made = seconds, list[tuple[float, float]]()

    def __call__(self, first: float, ceiling: float) -> "Delays":
        self.made.append((first, ceiling))
        return self

    def next(self) -> float:
        return self.seconds


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> Delays:
    made = Delays(0.0)
    monkeypatch.setattr(parts, "Backoff", made)
    return made


def test_a_part_that_fails_runs_again_and_is_counted_and_told(delays: Delays) -> None:
    async def run() -> None:
        log, runs = RecordedLog(), 0

        async def failing() -> None:
            nonlocal runs
            runs += 1
            if runs <= 3:
                raise RuntimeError(f"number {runs}")
            await asyncio.Event().wait()

        made = Parts(log.scope)
        made.start("watcher", failing)
        await eventually_async(lambda: runs == 4)
        assert made.failures == {"watcher": 3}
        assert log.lines == [
            f"error watcher failed and runs again in 0.0 s: RuntimeError('number {number}')" for number in (1, 2, 3)
        ]
        await made.stop()

    asyncio.run(run())
    assert len(delays.made) == 1, "one back-off per part: the delays grow"


def test_one_failing_part_does_not_disturb_another(delays: Delays) -> None:
    async def run() -> None:
        ticks = failures = 0

        async def failing() -> None:
            nonlocal failures
            failures += 1
            raise OSError("no")

        async def steady() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        made = Parts(RecordedLog().scope)
        made.start("bad", failing)
        made.start("good", steady)
        await eventually_async(lambda: ticks >= 10 and failures >= 3)
        assert made.failures["good"] == 0
        assert made.failures["bad"] >= 3
        await made.stop()

    asyncio.run(run())


@pytest.mark.parametrize("seconds", [0.0, 3600.0], ids=["while it runs", "while it waits to run again"])
def test_stopping_ends_every_part(delays: Delays, seconds: float) -> None:
    delays.seconds = seconds

    async def run() -> None:
        ended: list[str] = []
        log = RecordedLog()

        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)  # its own cleaning up is waited for
                ended.append("waits")

        async def fails() -> None:
            raise RuntimeError

        made = Parts(log.scope)
        made.start("waits", waits)
        if seconds:
            made.start("fails", fails)
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await made.stop()
        assert ended == ["waits"]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(log.lines) == bool(seconds)

    asyncio.run(run())


def test_a_part_that_answers_its_end_with_an_error_is_not_run_again(delays: Delays) -> None:
    """As gRPC was seen to do when its server was stopped while it started: the agent then never ended."""

    async def run() -> None:
        log, runs = RecordedLog(), 0

        async def odd() -> None:
            nonlocal runs
            runs += 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise asyncio.InvalidStateError("invalid state") from None

        made = Parts(log.scope)
        made.start("odd", odd)
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await made.stop()
        assert (runs, made.failures) == (1, {"odd": 0})
        assert log.lines == ["debug odd ended with InvalidStateError('invalid state')"]

    asyncio.run(run())


def test_which_parts_there_are() -> None:
    async def run() -> None:
        made = Parts(RecordedLog().scope)
        assert not made.has("watcher")
        made.start("watcher", asyncio.Event().wait)  # type: ignore[arg-type]
        assert made.has("watcher")
        await made.stop()
        assert made.has("watcher")

    asyncio.run(run())
