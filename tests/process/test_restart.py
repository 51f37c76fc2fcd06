"""An Envoy that ends by itself: restarted with a back-off, given up on in the end, and told of truthfully."""

import itertools
import os
import signal
from collections.abc import Callable

import pytest

from tests.support.agents import AgentProcess
from tests.support.eventually import eventually
from tests.support.fakes import FakeEnvoy

MakeAgent = Callable[..., AgentProcess]


def test_a_killed_envoy_is_back_at_epoch_0_with_a_new_generation(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start().until_ready()
    first = running.envoys()[0]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: running.envoys() not in ([], [first]))
    running.until_ready()
    starts = fake_envoy.starts
    assert [start["epoch"] for start in starts] == [0, 0]
    assert starts[0]["base_id"] != starts[1]["base_id"]
    assert running.metric('istio_agent_envoy_restarts_total{reason="crash"}') == 1
    assert running.lines("killed by signal 9 (SIGKILL)")
    assert running.stop() == 0


def test_readiness_is_false_with_the_reason_while_envoy_is_down(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.sequence(
        {"crash_after": 0.3, "crash_code": 9}, {"exit_code": 9}, {"exit_code": 9}, {"never_ready": True}
    )
    running = agent().start()
    eventually(lambda: "restarting" in running.fetch("/healthz/ready")[1] or len(fake_envoy.starts) == 4)
    eventually(lambda: len(fake_envoy.starts) == 4)
    status, body = running.fetch("/healthz/ready")
    assert status == 503
    assert body.startswith(("envoy: starting: ", "config: no configuration received yet: "))
    assert running.lines("not ready: envoy: restarting: Envoy epoch 0") and running.lines("exit code 9")
    assert running.stop() == 0


def test_crashes_back_off_and_are_given_up_with_envoys_own_code(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(exit_code=37)
    running = agent("--maxCrashes", "5").start()
    assert running.wait() == 37
    starts = fake_envoy.starts
    assert len(starts) == 5
    gaps = [later["at"] - earlier["at"] for earlier, later in itertools.pairwise(starts)]
    # At once, then 0.1 s, 0.2 s, 0.4 s, each shortened by a fifth at most: lower bounds only, machines may be slow.
    assert all(gap >= least for gap, least in zip(gaps, (0.0, 0.08, 0.16, 0.32), strict=True))
    assert running.lines("giving up: Envoy ended 5 times within 300s")
    assert running.left_behind() == []


def test_giving_up_on_an_envoy_that_ends_with_0_is_not_a_success(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(exit_code=0)
    assert agent("--maxCrashes", "2").start().wait() == 1


@pytest.mark.parametrize("code", [0, 1, 7, 127, 255])
def test_on_envoy_exit_exit_hands_on_the_code(agent: MakeAgent, fake_envoy: FakeEnvoy, code: int) -> None:
    fake_envoy.switch(exit_code=code)
    running = agent("--onEnvoyExit=exit").start()
    assert running.wait() == code
    assert len(fake_envoy.starts) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_on_envoy_exit_exit_tells_the_signal(agent: MakeAgent, fake_envoy: FakeEnvoy, number: int) -> None:
    fake_envoy.switch(kill_self=int(number))
    assert agent("--onEnvoyExit=exit").start().wait() == 128 + number


def test_the_last_words_of_envoy_are_in_the_log(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    early = "[2026-11-23 23:24:00.123][42][critical][main] [source/server/server.cc:1] the listener exploded"
    fake_envoy.switch(exit_code=1, stderr=[early, "Segmentation fault, address 0x0"])
    running = agent("--onEnvoyExit=exit").start()
    assert running.wait() == 1
    assert running.lines("its last words: the listener exploded")
    assert [line.split("\t")[1:] for line in running.lines("\tthe listener exploded")] == [
        ["error", "envoy main", "the listener exploded"]
    ]
    assert [line.split("\t")[1:3] for line in running.lines("Segmentation fault")] == [["warn", "envoy"]]


def test_a_hung_envoy_is_counted_and_makes_the_proxy_unready(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(hang_after=0.5)
    running = agent("--hungCheckInterval", "100ms", "--hungChecks", "2").start().until_ready()
    hangs = "envoy: Envoy hangs: its admin interface left 2 or more checks in a row without an answer\n"
    eventually(lambda: running.fetch("/healthz/ready") == (503, hangs))
    assert running.lines("not ready: envoy: its admin interface does not answer"), "known before it counts as hung"
    assert running.metric("istio_agent_envoy_hung_checks_total") >= 2
    assert running.lines("Envoy hangs") and running.lines("threads: ")
    assert len(fake_envoy.starts) == 1, "it is restarted only if asked"
    assert running.stop() == 0


def test_a_hung_envoy_is_restarted_if_asked(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.sequence({"hang_after": 0.5}, {})
    running = agent("--hungCheckInterval", "100ms", "--hungChecks", "1", "--restartHungEnvoy").start().until_ready()
    eventually(lambda: len(fake_envoy.starts) == 2, within=10)
    running.until_ready()
    assert running.metric('istio_agent_envoy_restarts_total{reason="hung"}') == 1
    assert running.stop() == 0


def test_settings_mended_during_a_crash_loop_are_used(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.sequence(*[{"exit_code": 1}] * 3, {})
    running = agent()
    running.start()
    eventually(lambda: len(fake_envoy.starts) >= 1)
    running.write_mesh(concurrency=3)
    running.until_ready()
    assert fake_envoy.flag(fake_envoy.starts[-1], "--concurrency") == "3"
    assert running.stop() == 0
