"""What the agent says of a real Envoy: gates that close when it hangs or dies, and open when it is back."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.agents import AgentProcess
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually

MakeAgent = Callable[..., AgentProcess]
GATES = ["bootstrap", "envoy", "config", "workers", "certificates", "nametable", "terminating"]


@pytest.fixture
def running(agent: MakeAgent) -> AgentProcess:
    made = agent(binary=envoy_binary())
    made.write_mesh(interceptionMode="NONE")
    return made.start().until_ready()


def gates(running: AgentProcess) -> dict[str, Any]:
    body = json.loads(running.fetch("/healthz/ready", Accept="application/json")[1])
    return {gate["name"]: gate for gate in body["gates"]}


def readiness(running: AgentProcess) -> tuple[int, str]:
    return running.fetch("/healthz/ready")


def test_a_ready_proxy_has_all_gates_open(running: AgentProcess) -> None:
    assert {name: gate["state"] for name, gate in gates(running).items()} == dict.fromkeys(GATES, "open")
    assert list(gates(running)) == GATES
    assert running.stop() == 0


def test_an_envoy_that_is_stopped_is_not_ready_until_it_goes_on(running: AgentProcess) -> None:
    silent = (503, "envoy: its admin interface does not answer\n")
    for _ in range(2):
        (envoy,) = running.envoys()
        os.kill(envoy, signal.SIGSTOP)
        eventually(lambda: readiness(running) == silent)
        assert gates(running)["workers"]["state"] == "open", "only what is wrong is closed"
        os.kill(envoy, signal.SIGCONT)
        eventually(lambda: readiness(running) == (200, ""))
    assert len(running.lines("not ready: envoy: its admin interface does not answer")) == 2, "logged once a time"
    assert running.stop() == 0


def test_an_envoy_that_dies_is_not_ready_until_another_one_serves(running: AgentProcess) -> None:
    (envoy,) = running.envoys()
    os.kill(envoy, signal.SIGKILL)
    eventually(lambda: running.envoys() not in ([], [envoy]))
    running.until_ready()
    assert any("killed by signal 9" in line for line in running.lines("not ready: envoy: restarting: "))
    assert running.stop() == 0
