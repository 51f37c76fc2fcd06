"""Ending: one deadline, a second signal shortens it, and Envoy never outlives the agent."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.agents import AgentProcess
from tests.support.eventually import eventually
from tests.support.fakes import FakeEnvoy

MakeAgent = Callable[..., AgentProcess]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_cleanly(agent: MakeAgent, fake_envoy: FakeEnvoy, number: signal.Signals) -> None:
    running = agent().start().until_ready()
    running.signal(number)
    assert running.wait() == 0
    assert fake_envoy.requests() == ["POST /drain_listeners?inboundonly&graceful"]
    assert [event["signal"] for event in fake_envoy.events("signal")] == [signal.SIGTERM]
    assert running.left_behind() == []
    assert running.errors == ""


def test_a_router_drains_everything(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start(role="router").until_ready()
    assert running.stop() == 0
    assert fake_envoy.requests() == ["POST /drain_listeners?graceful"]


def test_connections_hold_the_end_until_they_are_gone_and_15020_answers(
    agent: MakeAgent, fake_envoy: FakeEnvoy
) -> None:
    fake_envoy.switch(active_connections=3)
    running = agent("--terminationDeadline", "60s").start().until_ready()
    running.signal(signal.SIGTERM)
    eventually(lambda: running.fetch("/healthz/ready") == (503, "terminating: draining: SIGTERM\n"))
    assert running.fetch("/metrics")[0] == 200
    eventually(fake_envoy.requests)
    fake_envoy.switch(active_connections=0)
    assert running.wait() == 0
    assert running.lines("until: no connection is left")


def test_the_deadline_ends_a_drain_that_does_not_end(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(active_connections=3)
    running = agent("--terminationDeadline", "500ms").start().until_ready()
    assert running.stop() == 0
    assert running.lines("until: the deadline is over")


def test_a_second_signal_shortens_the_wait(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(active_connections=3)
    running = agent("--terminationDeadline", "10m").start().until_ready()
    running.signal(signal.SIGTERM)
    eventually(fake_envoy.requests)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert running.lines("until: a second signal")


def test_an_envoy_that_ignores_sigterm_is_killed(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(ignore_term=True)
    running = agent().start().until_ready()
    assert running.stop() == 0
    assert running.lines("killed by signal 9 (SIGKILL)")


def test_a_hung_admin_port_does_not_hold_up_the_end(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(hang_after=0.5)
    running = agent("--terminationDeadline", "3s").start().until_ready()
    eventually(lambda: not _admin_answers(running))
    assert running.stop() == 0


def _admin_answers(running: AgentProcess) -> bool:
    try:
        return running.fetch("/ready", port=running.ports.admin, timeout=0.2)[0] == 200
    except OSError:
        return False


def test_envoy_dying_during_the_drain_ends_it(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(active_connections=3)
    running = agent("--terminationDeadline", "10m").start().until_ready()
    running.signal(signal.SIGTERM)
    eventually(fake_envoy.requests)
    os.kill(running.envoys()[0], signal.SIGKILL)
    assert running.wait() == 0
    assert running.lines("until: Envoy ended by itself")


def test_pre_drain_delay_comes_before_the_drain_with_readiness_false(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent("--preDrainDelay", "1s", "--terminationDeadline", "30s").start().until_ready()
    running.signal(signal.SIGTERM)
    eventually(lambda: running.fetch("/healthz/ready")[0] == 503)
    assert fake_envoy.requests() == []
    assert running.wait() == 0
    assert fake_envoy.requests() == ["POST /drain_listeners?inboundonly&graceful"]


def test_quitquitquit_stops_without_a_drain(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent("--terminationDeadline", "10m").start().until_ready()
    assert running.fetch("/quitquitquit", method="POST") == (200, "OK")
    assert running.wait() == 0
    assert fake_envoy.requests() == []


def test_drain_keeps_listeners_open_and_is_not_repeated_by_the_stop(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start().until_ready()
    assert running.fetch("/drain", method="POST") == (200, "OK")
    assert running.is_ready()
    assert running.stop() == 0
    assert fake_envoy.requests() == ["POST /drain_listeners?inboundonly&graceful&skip_exit"]


def test_a_drain_is_the_envoys_own_and_not_of_the_next_one(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start().until_ready()
    assert running.fetch("/drain", method="POST") == (200, "OK")
    os.kill(running.envoys()[0], signal.SIGKILL)
    eventually(lambda: len(fake_envoy.starts) == 2)
    running.until_ready()
    assert running.stop() == 0
    assert fake_envoy.requests()[1:] == ["POST /drain_listeners?inboundonly&graceful"]


def test_a_drain_that_envoy_does_not_take_is_told(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(hang_after=0.3)
    running = agent("--terminationDeadline", "500ms").start().until_ready()
    eventually(lambda: not _admin_answers(running))
    status, body = running.fetch("/drain", method="POST")
    assert status == 500 and body.startswith("drain failed: Envoy did not take the request")
    assert running.stop() == 0


def test_a_second_signal_is_not_held_up_by_a_silent_envoy(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(hang_after=0.3)
    running = agent("--terminationDeadline", "10m").start().until_ready()
    eventually(lambda: not _admin_answers(running))
    running.signal(signal.SIGTERM)
    eventually(lambda: running.lines("shutdown begins"))
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert running.lines("until: a second signal") and not running.lines("drain request failed")


def test_envoy_dies_with_an_agent_that_is_killed(agent: MakeAgent) -> None:
    running = agent().start().until_ready()
    envoy = running.envoys()[0]
    running.signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    # Gone, or a zombie that its new parent has not looked at yet.
    eventually(lambda: not os.path.exists(f"/proc/{envoy}/exe") or not os.readlink(f"/proc/{envoy}/exe"))
    # What a killed agent could not take away, its next start on the same path does.
    left = Path("/dev/shm") / f"envoy_shared_memory_{(running.config_path / 'envoy-base-id').read_text()}0"
    assert left.exists()
    running.start().until_ready()
    assert not left.exists()
    assert running.stop() == 0
    assert [path for path in running.config_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("delay", [0.03 * step for step in range(1, 15)])
def test_sigterm_at_every_phase_of_the_start(agent: MakeAgent, delay: float) -> None:
    running = agent().start()
    time.sleep(delay)  # not a synchronisation: the moment is the parameter
    running.signal(signal.SIGTERM)
    code = running.wait()
    # Before the interpreter reached our first line, the kernel's default applies, and nothing exists yet.
    assert code == 0 or (code == -signal.SIGTERM and running.log == "")
    assert running.left_behind() == []
    assert "Traceback" not in running.errors


def test_other_signals_do_what_the_table_says(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start().until_ready()
    running.signal(signal.SIGUSR2)
    eventually(lambda: running.lines("SIGUSR2: serving; [+]bootstrap ok (since "))
    running.signal(signal.SIGUSR1)
    eventually(lambda: [event["signal"] for event in fake_envoy.events("signal")] == [signal.SIGUSR1])
    running.signal(signal.SIGHUP)
    eventually(lambda: running.lines("SIGHUP: looking at all settings again"))
    assert running.is_ready()
    running.signal(signal.SIGQUIT)
    assert running.wait() == 0
    assert fake_envoy.requests() == []
