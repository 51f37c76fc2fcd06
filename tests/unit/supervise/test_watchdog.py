"""Asking Envoy how it is: until it serves, and whether it still answers."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from pilot_agent.envoy.admin import STARTUP_STATS, Admin, ServerInfo
from pilot_agent.errors import AdminError
from pilot_agent.supervise import watchdog
from pilot_agent.supervise.lifecycle import Missing
from pilot_agent.supervise.watchdog import (
    ANSWER_WITHIN_S,
    EAGER_FOR_S,
    EAGER_POLL_S,
    LONGEST_POLL_S,
    PULSE_EVERY_S,
    SILENT_AFTER_S,
    Pulse,
    Watchdog,
    until_serving,
)
from tests.support.eventually_async import eventually_async

SERVING = dict(zip(STARTUP_STATS, (1, 0, 1, 0, 1, 0), strict=True))
INITIALIZING = {**SERVING, "server.state": 3}
SILENT = AdminError("no answer")


class FakeAdmin:
    """Answers from two lists, each in turn; an exception among them is raised. At the end of a list: cancelled."""

    def __init__(self, stats: list[Any] | None = None, infos: list[Any] | None = None) -> None:
        self._stats, self._infos = stats or [], infos or []
        self.timeouts: set[float] = set()

    def _next(self, answers: list[Any], timeout: float) -> Any:
        self.timeouts.add(timeout)
        if not answers:
            raise asyncio.CancelledError
        answer = answers.pop(0)
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stats(self, names: tuple[str, ...], *, timeout: float) -> dict[str, int]:
        assert names == STARTUP_STATS
        answer: dict[str, int] = self._next(self._stats, timeout)
        return answer

    async def server_info(self, *, timeout: float) -> ServerInfo:
        answer: ServerInfo = self._next(self._infos, timeout)
        return answer

    @property
    def admin(self) -> Admin:
        return cast(Admin, self)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were slept, without sleeping."""
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


def started(admin: FakeAdmin, epoch: int = 0) -> list[str]:
    """What was said to be missing until it served."""
    told: list[Missing] = []
    asyncio.run(until_serving(admin.admin, epoch, told.append))
    return [str(each.first) for each in told]


def info(epoch: int) -> ServerInfo:
    return ServerInfo("LIVE", epoch, "v")


def test_it_asks_until_envoy_serves_and_says_what_is_missing(pauses: list[float]) -> None:
    admin = FakeAdmin([AdminError("connection refused"), {}, INITIALIZING, SERVING])
    assert started(admin) == [
        "connection refused",
        "no configuration received yet: clusters: 0 successful, 0 rejected; listeners: 0 successful, 0 rejected",
        "Envoy is INITIALIZING, not LIVE",
    ]
    assert admin.timeouts == {ANSWER_WITHIN_S}
    assert len(pauses) == 3


def test_the_first_epoch_is_not_asked_for_its_number(pauses: list[float]) -> None:
    assert started(FakeAdmin([SERVING])) == []
    assert pauses == []


def test_a_later_epoch_serves_when_it_answers_itself(pauses: list[float]) -> None:
    admin = FakeAdmin([SERVING] * 4, [info(1), SILENT, info(1), info(2)])
    assert started(admin, 2) == [
        "epoch 1 still answers for epoch 2",
        "no answer",
        "epoch 1 still answers for epoch 2",
    ]


def test_it_asks_eagerly_first_and_ever_less_often_then(pauses: list[float]) -> None:
    started(FakeAdmin([{}] * 300 + [SERVING]))
    eager = [pause for pause in pauses if pause == EAGER_POLL_S]
    assert pauses[: len(eager)] == eager, "eager ones come first"
    assert EAGER_FOR_S <= sum(eager) <= EAGER_FOR_S + 2 * EAGER_POLL_S
    assert pauses == sorted(pauses)
    assert max(pauses) == pauses[-1] == LONGEST_POLL_S


def test_each_gate_of_a_start_is_told_its_own_reason(pauses: list[float]) -> None:
    told: list[Missing] = []
    admin = FakeAdmin([SILENT, {}, INITIALIZING, {**SERVING, "listener_manager.workers_started": 0}, SERVING])
    asyncio.run(until_serving(admin.admin, 0, told.append))
    none = "no configuration received yet: clusters: 0 successful, 0 rejected; listeners: 0 successful, 0 rejected"
    assert told == [
        Missing.all_of("no answer"),
        Missing(None, none, "Envoy does not report its state yet"),
        Missing(None, None, "Envoy is INITIALIZING, not LIVE"),
        Missing(None, None, "Envoy's workers have not started yet"),
    ]


# Silent right now or not


class Pulsed:
    """A pulse whose Envoy answers when the test says so: each question is a future in `pings`."""

    host, port = "127.0.0.1", 15000

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("PULSE_EVERY_S", "SILENT_AFTER_S", "OWN_DELAY_S"):
            monkeypatch.setattr(watchdog, name, 0.001)
        pulsed = self

        class FakeHeartbeat:
            def __init__(self, host: str, port: int) -> None:
                assert (host, port) == (pulsed.host, pulsed.port)

            async def beat(self) -> None:
                answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                pulsed.pings.put_nowait(answer)
                await answer

            def close(self) -> None:
                pulsed.closed += 1

        monkeypatch.setattr(watchdog, "Heartbeat", FakeHeartbeat)
        self.closed = 0
        self.pings: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        self.pulse = Pulse(lambda: cast(Admin, self))
        self.is_serving = True
        self.looks = 0
        """How often the pulse asked whether it serves."""
        self.changes: list[bool] = []

    def _look(self) -> bool:
        self.looks += 1
        return self.is_serving

    def run(self, scenario: Callable[[], Any]) -> None:
        async def run() -> None:
            task = asyncio.create_task(self.pulse.run(self._look, lambda: self.changes.append(self.pulse.is_silent)))
            await scenario()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(run())


def test_a_hang_is_known_within_a_second() -> None:
    assert PULSE_EVERY_S + SILENT_AFTER_S + watchdog.OWN_DELAY_S < 1


def test_an_envoy_that_does_not_answer_is_silent_until_the_same_question_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pulsed = Pulsed(monkeypatch)

    async def scenario() -> None:
        first = await pulsed.pings.get()
        await eventually_async(lambda: pulsed.pulse.is_silent)
        assert pulsed.pulse.reason == "its admin interface does not answer"
        assert pulsed.pings.empty(), "one question is enough"
        monkeypatch.setattr(watchdog, "SILENT_AFTER_S", 60.0)
        first.set_result(None)
        await eventually_async(lambda: pulsed.pulse.reason is None)
        (await pulsed.pings.get()).set_exception(SILENT)
        await eventually_async(lambda: pulsed.pulse.is_silent)

    pulsed.run(scenario)
    assert pulsed.changes == [True, False, True]


def test_answers_change_nothing_while_it_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    pulsed = Pulsed(monkeypatch)
    monkeypatch.setattr(watchdog, "SILENT_AFTER_S", 60.0)

    async def scenario() -> None:
        for _ in range(3):
            (await pulsed.pings.get()).set_result(None)
        await pulsed.pings.get()

    pulsed.run(scenario)
    assert pulsed.changes == []


def test_silence_of_an_envoy_that_was_replaced_or_stopped_meanwhile_is_nobodys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pulsed = Pulsed(monkeypatch)
    monkeypatch.setattr(watchdog, "SILENT_AFTER_S", 60.0)

    async def scenario() -> None:
        first = await pulsed.pings.get()
        pulsed.pulse.forget()
        first.set_exception(SILENT)
        second = await pulsed.pings.get()
        pulsed.is_serving = False
        looked = pulsed.looks
        second.set_exception(SILENT)
        await eventually_async(lambda: pulsed.looks > looked + 1)
        pulsed.is_serving = True
        await pulsed.pings.get()

    pulsed.run(scenario)
    assert (pulsed.changes, pulsed.pulse.is_silent) == ([], False)
    assert pulsed.closed == 2, "the one before is closed, and at the end the last"


def test_another_envoy_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    pulsed = Pulsed(monkeypatch)

    async def scenario() -> None:
        await eventually_async(lambda: pulsed.pulse.is_silent)
        pulsed.pulse.forget()
        assert not pulsed.pulse.is_silent

    pulsed.run(scenario)


# Hung or not

Answers = list[Any]


def watched(answers: Answers, checks: int = 3, is_serving: Callable[[], bool] = lambda: True) -> tuple[Watchdog, int]:
    """A watchdog after these answers, and how often it said that something changed."""
    admin = FakeAdmin(infos=answers)
    changes: list[str | None] = []
    dog = Watchdog(lambda: admin.admin, 5.0, checks)

    async def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            await dog.run(is_serving, lambda: changes.append(dog.reason))

    asyncio.run(run())
    return dog, len(changes)


HANGS = "Envoy hangs: its admin interface left 3 or more checks in a row without an answer"


@pytest.mark.parametrize(
    ("answers", "reason", "in_a_row", "total", "changes"),
    [
        ([info(0)] * 3, None, 0, 0, 0),
        ([SILENT] * 2, None, 2, 2, 0),
        ([SILENT] * 3, HANGS, 3, 3, 1),
        ([SILENT] * 5, HANGS, 5, 5, 1),
        ([SILENT, SILENT, info(0), SILENT, SILENT], None, 2, 4, 0),
        ([SILENT] * 4 + [info(0)], None, 0, 4, 2),
        ([SILENT] * 3 + [info(0)] + [SILENT] * 3, HANGS, 3, 6, 3),
    ],
)
def test_checks_in_a_row_without_an_answer(
    pauses: list[float], answers: Answers, reason: str | None, in_a_row: int, total: int, changes: int
) -> None:
    asked = len(answers)
    dog, changed = watched(list(answers))
    assert (dog.reason, dog.silent_in_a_row, dog.silent_checks_total, changed) == (reason, in_a_row, total, changes)
    assert pauses == [5.0] * (asked + 1)


def test_another_envoy_starts_without_a_record(pauses: list[float]) -> None:
    dog, _ = watched([SILENT] * 3)
    dog.forget()
    assert dog.reason is None
    assert dog.silent_checks_total == 3


def test_an_envoy_that_does_not_serve_is_not_asked(pauses: list[float]) -> None:
    serves = iter([False, False, True, True, False, True])
    dog, _ = watched([SILENT], is_serving=lambda: next(serves))
    assert dog.silent_checks_total == 1
    assert len(pauses) == 5


def test_silence_of_an_envoy_that_ended_meanwhile_does_not_count(pauses: list[float]) -> None:
    serving = True

    def ended() -> AdminError:
        nonlocal serving
        serving = False
        return SILENT

    def asked_twice() -> bool:
        nonlocal serving
        before, serving = serving, True
        return before

    dog, _ = watched([ended], checks=1, is_serving=asked_twice)
    assert (dog.silent_checks_total, dog.reason) == (0, None)
