"""The agent's child for keys and certificates, seen from outside: it comes and goes, and it alone loads the library."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pilot_agent.files.publish import publish_all
from pilot_agent.identity.local_ca import create
from tests.process.test_identity import ALWAYS, until_certified, until_renewed
from tests.process.test_pid1 import UNSHARE, needs_root, zombies
from tests.support.agents import AgentProcess
from tests.support.eventually import eventually
from tests.support.fake_istiod import FakeIstiod
from tests.support.identities import described, failures, gate, prepare
from tests.support.proc_tree import proc_tree

MakeAgent = Callable[..., AgentProcess]


@pytest.fixture
def istiod(tmp_path: Path) -> Iterator[FakeIstiod]:
    fake = FakeIstiod(tmp_path).start()
    yield fake
    fake.stop()


def children(running: AgentProcess) -> list[int]:
    return [
        each.pid for each in proc_tree(running.process.pid) if "crypto_server" in each.command and not each.is_zombie
    ]


def has_cryptography(pid: int) -> bool:
    return "/cryptography/" in Path(f"/proc/{pid}/maps").read_text()


def test_the_agent_in_a_mesh_never_loads_cryptography(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = prepare(agent(), istiod, **ALWAYS).start()
    first = until_certified(running)
    (child,) = children(running)
    assert has_cryptography(child) and not has_cryptography(running.pid)
    until_renewed(running, first)
    assert not has_cryptography(running.pid)
    assert running.stop() == 0
    assert not psutil.pid_exists(child)


def test_the_agent_with_a_local_ca_never_loads_cryptography(agent: MakeAgent, tmp_path: Path) -> None:
    authority = tmp_path / "authority"
    create(authority, "cluster.local", 3600, time.time(), publish_all)
    running = agent("--caDir", str(authority), env={"SECRET_TTL": "4s"}).start()
    first = until_certified(running)
    assert described(running)["key"] == "RSA 2048"
    until_renewed(running, first)
    assert not has_cryptography(running.pid)
    assert running.stop() == 0


def test_killed_over_and_over_it_costs_no_certificate(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = prepare(agent(), istiod, **ALWAYS).start()
    latest = until_certified(running)
    for _ in range(3):
        for child in children(running):
            os.kill(child, signal.SIGKILL)
        until_renewed(running, latest)
        latest = until_certified(running)
    assert running.process.poll() is None
    assert running.stop() == 0


def test_killed_at_a_first_key_it_is_one_line_a_count_and_another_try(agent: MakeAgent, istiod: FakeIstiod) -> None:
    """A key of 8192 bits takes long enough to be hit."""
    slow = {"ECC_SIGNATURE_ALGORITHM": "", "WORKLOAD_RSA_KEY_SIZE": "8192"}
    running = prepare(agent(), istiod, **slow).start()
    (child,) = eventually(lambda: children(running))
    eventually(lambda: gate(running))  # the status port answers after the call was made
    os.kill(child, signal.SIGKILL)
    eventually(lambda: running.lines("no certificate: "), within=15)
    (line,) = running.lines("no certificate: ")
    assert "the child process for keys and certificates failed at make_request: killed by signal 9" in line
    eventually(lambda: failures(running, "crypto") >= 1)
    eventually(lambda: [each for each in children(running) if each != child], within=15)
    assert running.stop() == 0


def test_an_agent_that_is_killed_leaves_none_behind(agent: MakeAgent, istiod: FakeIstiod) -> None:
    slow = {"ECC_SIGNATURE_ALGORITHM": "", "WORKLOAD_RSA_KEY_SIZE": "8192"}
    running = prepare(agent(), istiod, **slow).start()
    (child,) = eventually(lambda: children(running))
    running.process.kill()
    running.process.wait()
    eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


@needs_root
def test_it_comes_and_goes_and_its_ends_are_no_orphans(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = prepare(agent(), istiod, SECRET_TTL="14s", SECRET_GRACE_PERIOD_RATIO_JITTER="0").start(*UNSHARE)
    first = until_certified(running)
    (child,) = children(running)
    os.kill(child, signal.SIGKILL)
    eventually(lambda: not zombies(running))
    until_renewed(running, first)
    assert children(running)
    eventually(lambda: not children(running), within=15)
    eventually(lambda: not zombies(running))
    assert running.metric("istio_agent_reaped_orphans_total") == 0
    assert running.stop() == 0
