"""The agent as the first process of a container: a pid namespace of its own, and orphans by the thousand."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.agents import AgentProcess
from tests.support.eventually import eventually
from tests.support.fakes import FakeEnvoy
from tests.support.proc_tree import proc_tree

MakeAgent = Callable[..., AgentProcess]

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

# Forks children that fork grandchildren and end: each grandchild is an orphan, given to PID 1, and ends a bit later.
MAKE_ORPHANS = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.05)
        os._exit(3)
    os.wait()
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")


def make_orphans(running: AgentProcess, count: int) -> None:
    """In the pid namespace of the agent, as `kubectl exec` would."""
    enter = ["nsenter", "--target", str(running.pid), "--pid", "--mount"]
    subprocess.run([*enter, sys.executable, "-IS", "-c", MAKE_ORPHANS, str(count)], check=True)


def zombies(running: AgentProcess) -> list[str]:
    return [each.command for each in proc_tree(running.process.pid) if each.is_zombie]


@needs_root
def test_thousands_of_orphans_are_reaped_and_envoys_exit_code_is_kept(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent("--onEnvoyExit=exit").start(*UNSHARE).until_ready()
    make_orphans(running, 3000)
    eventually(lambda: running.metric("istio_agent_reaped_orphans_total") >= 3000)
    eventually(lambda: not zombies(running))
    assert not running.lines("neither PID 1 nor a subreaper")
    fake_envoy.switch(term_code=41)
    os.kill(running.envoys()[0], signal.SIGTERM)
    assert running.wait() == 41
    assert len(fake_envoy.starts) == 1


@needs_root
def test_exit_codes_of_own_children_stay_right_among_orphans(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.sequence(*({"crash_after": 0.3, "crash_code": code} for code in (11, 12, 13)), {})
    running = agent().start(*UNSHARE).until_ready()
    while len(fake_envoy.starts) < 4:
        make_orphans(running, 200)
    running.until_ready()
    for code in (11, 12, 13):
        assert running.lines(f": exit code {code}"), running.log
    assert not running.lines("exit code 0")
    eventually(lambda: not zombies(running))
    assert running.stop() == 0


@needs_root
def test_sigterm_ends_the_agent_as_pid_1(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start(*UNSHARE).until_ready()
    assert running.stop() == 0
    assert fake_envoy.requests() == ["POST /drain_listeners?inboundonly&graceful"]
    assert running.left_behind() == []


def test_not_being_pid_1_is_warned_about_and_works_the_same(agent: MakeAgent) -> None:
    running = agent().start().until_ready()
    assert running.lines("neither PID 1 nor a subreaper: orphaned processes go to PID 1 (")
    assert running.stop() == 0


def test_a_subreaper_reaps_the_orphans_of_its_descendants(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(orphans=50)
    running = agent("--subreaper").start().until_ready()
    assert not running.lines("neither PID 1 nor a subreaper")
    eventually(lambda: running.metric("istio_agent_reaped_orphans_total") >= 50)
    assert running.stop() == 0
