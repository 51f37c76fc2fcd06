"""Shutdowns: the plan that follows from the settings, and each rule that ends the waiting."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from pilot_agent.clock import Clock, SystemClock
from pilot_agent.envoy.admin import Admin
from pilot_agent.envoy.drain import ACTIVE_CONNECTIONS_PATH, DrainOptions
from pilot_agent.errors import AdminError
from pilot_agent.supervise import shutdown
from pilot_agent.supervise.shutdown import (
    ADMIN_TIMEOUT_S,
    UNBOUNDED_DRAIN_S,
    Drained,
    Plan,
    Shutdown,
    plan_for,
    post_drain,
)
from pilot_agent.values import Duration
from tests.support.clocks import ManualClock
from tests.support.recorded_log import RecordedLog
from tests.unit.settings.told import told

# Plans

ON_ZERO = {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true"}
LOCAL = {"config_dir": "mesh"}


def limited(seconds: float, **more: Any) -> dict[str, Any]:
    return {"termination_deadline": Duration.of(seconds), **more}


@pytest.mark.parametrize(
    ("config", "settings", "drained_for", "deadline", "ends_on_zero", "minimum"),
    [
        ({}, {}, None, 5, False, 5),
        ({"terminationDrainDuration": "20s"}, {}, None, 20, False, 5),
        ({"terminationDrainDuration": "0s"}, {}, None, 0, False, 5),
        ({}, {"env": ON_ZERO}, None, UNBOUNDED_DRAIN_S, True, 5),
        ({}, {"env": {**ON_ZERO, "MINIMUM_DRAIN_DURATION": "1s"}}, None, UNBOUNDED_DRAIN_S, True, 1),
        ({"terminationDrainDuration": "20s"}, {"env": ON_ZERO}, None, 20, True, 5),
        ({"terminationDrainDuration": "5s"}, {"env": ON_ZERO}, None, 5, True, 5),
        ({}, LOCAL, None, 5, True, 0),
        ({"terminationDrainDuration": "20s"}, LOCAL, None, 20, True, 0),
        ({}, {**LOCAL, "env": {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "false"}}, None, 5, False, 0),
        ({}, limited(30, env=ON_ZERO), None, 30, True, 5),
        ({}, limited(30, **LOCAL), None, 30, True, 0),
        ({}, limited(2), None, 2, False, 5),
        ({}, limited(30), None, 5, False, 5),
        ({}, {}, 2.0, 3, False, 5),
        ({}, {}, 60.0, 0, False, 5),
        ({}, limited(30, env=ON_ZERO), 10.0, 20, True, 5),
    ],
)
def test_the_plan_that_follows_from_the_settings(
    config: dict[str, Any],
    settings: dict[str, Any],
    drained_for: float | None,
    deadline: float,
    ends_on_zero: bool,
    minimum: float,
) -> None:
    plan = plan_for(told(config, **settings), drained_for)
    assert (plan.deadline, plan.ends_on_zero, plan.minimum) == (deadline, ends_on_zero, minimum)
    assert plan.pre_drain_delay == 0


def test_other_parts_of_the_plan() -> None:
    env = {"ENVOY_STATUS_PORT": "16021", "ENVOY_SECURE_METRICS_PORT": "16091"}
    plan = plan_for(told(env=env, pre_drain_delay=Duration.of(1.5)), None)
    assert plan.pre_drain_delay == 1.5
    assert sorted(plan.own_ports) == [15090, 16021, 16091]
    assert plan.drain == DrainOptions(inbound_only=True, skip_exit=False)
    assert plan_for(told(role="router"), None).drain == DrainOptions(inbound_only=False, skip_exit=False)


def plan(**changes: Any) -> Plan:
    return Plan(0.0, 0.0, 100.0, True, DrainOptions(True, False), (15021,))._replace(**changes)


@pytest.mark.parametrize(
    ("planned", "timeline"),
    [
        (
            plan(minimum=5.0, deadline=3600.0, pre_drain_delay=0.5),
            "readiness is false now, drain at +0.5 s, end on zero connections from +5 s on, "
            "SIGTERM to Envoy at +3600 s at the latest, SIGKILL 1 s later",
        ),
        (
            plan(ends_on_zero=False, deadline=5.0),
            "readiness is false now, drain at +0 s, SIGTERM to Envoy at +5 s at the latest, SIGKILL 1 s later",
        ),
    ],
)
def test_the_plan_in_one_line(planned: Plan, timeline: str) -> None:
    assert planned.timeline() == timeline


# Waiting


def active(count: int) -> str:
    return f"listener.0.0.0.0_8080.downstream_cx_active: {count}\nlistener.0.0.0.0_15021.downstream_cx_active: 7\n"


class Envoy:
    """Plays the admin interface, the process and the signals of one shutdown.

    `answers` are given one by one, the last for ever; an Exception is raised, None is silence, and something callable
    is called first.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, float]] = []
        self.posted = 0
        self.log = RecordedLog()
        self.noted: list[tuple[str, str]] = []
        self.exited: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.hurry = asyncio.Event()

    async def call(self, path: str, *, method: str = "GET", timeout: float = 1.0) -> str:
        self.asked.append((method, path, timeout))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            answer = answer(self)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async def post(self) -> None:
        self.posted += 1

    async def drain(self, planned: Plan, clock: Clock, post: Callable[[], Any] | None = None) -> Drained:
        ending = Shutdown(planned, cast(Admin, self), clock, self.log.scope, self.hurry, self._note)
        return await ending.drain(post or self.post, self.exited)

    def _note(self, step: str, detail: str) -> None:
        self.noted.append((step, detail))

    def end(self) -> str:
        self.exited.set_result("facts")
        return active(1)

    def signalled_again(self) -> str:
        self.hurry.set()
        return active(1)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "CONNECTION_CHECK_S", 0.0)


def test_the_wait_ends_when_no_connection_is_left() -> None:
    async def run() -> None:
        envoy = Envoy(active(2), active(1), active(0))
        drained = await envoy.drain(plan(), ManualClock())
        assert drained.rule == "no connection is left"
        assert envoy.posted == 1
        assert envoy.asked == [("GET", ACTIVE_CONNECTIONS_PATH, ADMIN_TIMEOUT_S)] * 3

    asyncio.run(run())


def test_the_drain_is_posted_before_connections_are_counted() -> None:
    async def run() -> None:
        envoy = Envoy(active(0))
        order: list[str] = []

        async def post() -> None:
            assert not envoy.asked
            order.append("posted")

        await envoy.drain(plan(), ManualClock(), post)
        assert order == ["posted"]
        assert len(envoy.asked) == 1

    asyncio.run(run())


@pytest.mark.parametrize("answer", [active(1), "", AdminError("no answer")])
def test_the_deadline_ends_it_with_connections_left_or_unknown(answer: object) -> None:
    async def run() -> None:
        clock = ManualClock()

        def later(_: Envoy) -> object:
            clock.now += 40.0
            return answer

        envoy = Envoy(later)
        assert await envoy.drain(plan(deadline=100.0), clock) == Drained("the deadline is over", 120.0)
        assert len(envoy.asked) == 3
        unknown = isinstance(answer, Exception)
        assert envoy.log.lines == ["warn active connections are unknown: no answer"] * 3 * unknown

    asyncio.run(run())


def test_a_drain_that_does_not_count_lasts_its_time() -> None:
    async def run() -> None:
        envoy = Envoy(active(0))
        assert await envoy.drain(plan(ends_on_zero=False, deadline=0.0), ManualClock()) == Drained(
            "the drain time is over", 0.0
        )
        assert envoy.posted == 1
        assert envoy.asked == []

    asyncio.run(run())


def test_a_deadline_of_zero_counts_no_connections() -> None:
    async def run() -> None:
        envoy = Envoy(active(0))
        assert (await envoy.drain(plan(deadline=0.0), ManualClock())).rule == "the deadline is over"
        assert envoy.asked == []

    asyncio.run(run())


@pytest.mark.parametrize("planned", [plan(), plan(ends_on_zero=False), plan(pre_drain_delay=50.0)])
def test_an_envoy_that_has_ended_is_not_waited_for(planned: Plan) -> None:
    async def run() -> None:
        envoy = Envoy(active(1))
        envoy.end()
        assert (await envoy.drain(planned, SystemClock())).rule == "Envoy ended by itself"
        assert envoy.posted == 0

    asyncio.run(run())


@pytest.mark.parametrize("planned", [plan(), plan(ends_on_zero=False), plan(pre_drain_delay=50.0)])
def test_a_second_signal_that_came_before_ends_it_at_once(planned: Plan) -> None:
    async def run() -> None:
        envoy = Envoy(active(1))
        envoy.signalled_again()
        assert (await envoy.drain(planned, SystemClock())).rule == "a second signal"
        assert envoy.posted == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    ("happens", "rule"), [(Envoy.end, "Envoy ended by itself"), (Envoy.signalled_again, "a second signal")]
)
@pytest.mark.parametrize(
    "planned",
    [
        plan(ends_on_zero=False, deadline=60.0),
        plan(minimum=60.0),
        plan(pre_drain_delay=60.0),
        plan(),
    ],
    ids=["drain time", "minimum", "pre-drain delay", "connections"],
)
def test_what_happens_while_it_waits_ends_it(planned: Plan, happens: Callable[[Envoy], str], rule: str) -> None:
    """The plans wait for a minute: only what happens can end them in time."""

    async def run() -> None:
        envoy = Envoy(active(1), happens) if planned == plan() else Envoy(active(1))
        if planned != plan():
            asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(happens, envoy))
        async with asyncio.timeout(30):
            assert (await envoy.drain(planned, SystemClock())).rule == rule

    asyncio.run(run())


@pytest.mark.parametrize(
    ("happens", "rule"), [(Envoy.end, "Envoy ended by itself"), (Envoy.signalled_again, "a second signal")]
)
def test_a_silent_envoy_does_not_outlast_what_happens(happens: Callable[[Envoy], str], rule: str) -> None:
    async def run() -> None:
        def silent(envoy: Envoy) -> None:
            asyncio.get_running_loop().call_soon(happens, envoy)

        async with asyncio.timeout(30):
            assert (await Envoy(silent).drain(plan(deadline=60.0), SystemClock())).rule == rule

    asyncio.run(run())


def test_a_silent_envoy_does_not_outlast_the_deadline() -> None:
    async def run() -> None:
        async def never() -> None:
            await asyncio.Event().wait()

        async with asyncio.timeout(30):
            assert (await Envoy(None).drain(plan(deadline=0.02), SystemClock())).rule == "the deadline is over"
            quiet = Envoy(active(1))
            assert (await quiet.drain(plan(deadline=0.02), SystemClock(), never)).rule == "the deadline is over"

    asyncio.run(run())


def test_connections_are_noted_when_their_number_changes() -> None:
    async def run() -> None:
        envoy = Envoy(active(2), active(2), AdminError("no"), active(1), active(0))
        await envoy.drain(plan(), SystemClock())
        assert envoy.noted == [("connections", each) for each in ("2", "unknown", "1", "0")]

    asyncio.run(run())


# Asking for the drain


def test_the_drain_is_asked_for_in_time_and_told() -> None:
    async def run() -> None:
        envoy = Envoy("OK")
        assert await post_drain(cast(Admin, envoy), DrainOptions(True, False), envoy.log.scope)
        assert envoy.asked == [("POST", "/drain_listeners?inboundonly&graceful", ADMIN_TIMEOUT_S)]
        assert envoy.log.lines == []
        envoy.answers = [AdminError("connection refused")]
        assert not await post_drain(cast(Admin, envoy), DrainOptions(True, False), envoy.log.scope)
        assert envoy.log.lines == ["warn drain request failed: connection refused"]

    asyncio.run(run())
