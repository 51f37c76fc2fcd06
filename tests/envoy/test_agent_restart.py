"""A real Envoy that dies, and one that hands over under load."""

import json
import os
import re
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.agents import AgentProcess
from tests.support.applications import application
from tests.support.envoy_binary import envoy_binary
from tests.support.envoy_views import epoch
from tests.support.eventually import eventually
from tests.support.load import load
from tests.support.ports import free_port
from tests.unit.mesh.declared import service_entry

MakeAgent = Callable[..., AgentProcess]

PLAIN_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\t(info|warn|warning|error|critical)\t\S.*$")


def answers_through_envoy(running: AgentProcess) -> bool:
    return running.fetch("/healthz/ready", port=running.ports.ready)[0] == 200


def kill_envoy(running: AgentProcess) -> None:
    """kill -9, and wait until another one serves."""
    (killed,) = running.envoys()
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: running.envoys() not in ([], [killed]))
    running.until_ready()
    eventually(lambda: answers_through_envoy(running))


def test_a_killed_envoy_is_back_at_epoch_0(agent: MakeAgent) -> None:
    running = agent("--proxyLogLevel", "info", binary=envoy_binary()).start().until_ready()
    kill_envoy(running)
    assert epoch(running) == 0
    assert running.metric('istio_agent_envoy_restarts_total{reason="crash"}') == 1
    assert running.metric("istio_agent_envoy_last_exit_code") == 128 + signal.SIGKILL
    assert running.stop() == 0
    strange = [line for line in running.log.splitlines() if not PLAIN_LINE.match(line)]
    assert strange == []
    assert len(running.lines("\tenvoy main")) > 10, "what Envoy says is in the agent's log"
    assert running.left_behind() == []


def test_every_line_of_the_log_is_json_if_asked(agent: MakeAgent) -> None:
    running = agent("--log_as_json", "--proxyLogLevel", "info", binary=envoy_binary()).start().until_ready()
    kill_envoy(running)
    assert running.stop() == 0
    lines = [json.loads(line) for line in running.log.splitlines()]
    assert all(line["time"] and line["level"] and line["msg"] for line in lines)
    scopes = {line.get("scope", "").partition(" ")[0] for line in lines}
    assert "envoy" in scopes
    assert any("killed by signal 9" in line["msg"] for line in lines)


# Concurrency goes up: with fewer workers Envoy drops the connections that wait in the queues of those that go.
CHANGES: tuple[dict[str, object], ...] = (
    {"concurrency": 2},
    {"statsCompression": False},
    {"runtimeValues": {"some.key": "true"}},
)


def test_no_request_fails_while_the_mesh_file_changes(agent: MakeAgent) -> None:
    running, port = agent(binary=envoy_binary()), free_port()
    running.write_mesh(interceptionMode="NONE", concurrency=1)
    running.config_dir.mkdir()
    with application("backend") as app:
        (running.config_dir / "app.yaml").write_text(service_entry("app", port=port, target=app.port))
        running.start().until_ready()
        with load(port, "app.example.com", "backend") as clients:
            clients.go_on()
            for number, change in enumerate(CHANGES, 1):
                running.write_mesh(**change)
                eventually(lambda number=number: len(running.lines("has taken over")) == number, within=20)  # type: ignore[misc]
                clients.go_on()
            assert epoch(running) == len(CHANGES)
            # The load goes on until the last old epoch is gone: its end must not cost a request either.
            eventually(lambda: len(running.lines("has left: ")) == len(CHANGES), within=30)
            clients.go_on()
            assert clients.is_on
        assert clients.failures == [], running.log
    assert len(running.lines("has left: exit code 0")) == len(CHANGES)
    assert running.metric('istio_agent_envoy_restarts_total{reason="hot-restart"}') == len(CHANGES)
    assert running.metric("istio_agent_envoy_epoch") == len(CHANGES)
    assert len(running.envoys()) == 1
    assert running.stop() == 0
    assert running.left_behind() == []


def test_a_request_in_flight_outlives_two_changes(agent: MakeAgent) -> None:
    """Envoy keeps two epochs: a third one has the first ended at once, so it must wait until that has drained."""
    running, port = agent(binary=envoy_binary()), free_port()
    running.write_mesh(interceptionMode="NONE")
    running.config_dir.mkdir()
    with application("backend") as app, ThreadPoolExecutor(1) as client:
        (running.config_dir / "app.yaml").write_text(service_entry("app", port=port, target=app.port))
        running.start().until_ready()
        answer = client.submit(running.fetch, "/held", port=port, timeout=60, Host="app.example.com")
        try:
            eventually(lambda: app.ask("/waiting") == "1")
            running.write_mesh(statsCompression=False)
            eventually(lambda: running.lines("has taken over"), within=15)
            running.write_mesh(statsCompression=True)
            eventually(lambda: running.lines("waits until the epoch before has drained"), within=15)
            assert running.metric("istio_agent_envoy_epoch") == 1
        finally:
            app.ask("/release")
        assert answer.result() == (200, "backend")
        eventually(lambda: len(running.lines("has taken over")) == 2, within=30)
    assert len(running.lines("has left: exit code 0")) == 1
    assert running.stop() == 0


@pytest.mark.parametrize(("old_epochs", "is_hung"), [(0, False), (1, False), (1, True)])
def test_envoy_goes_with_an_agent_that_is_killed(agent: MakeAgent, old_epochs: int, is_hung: bool) -> None:
    """`is_hung`: it can't handle the SIGTERM that it asked for, as it can't while it waits for an old epoch."""
    running = agent(binary=envoy_binary()).start().until_ready()
    if old_epochs:
        running.write_mesh(concurrency=1, drainDuration="60s")
        eventually(lambda: running.lines("has taken over"), within=15)
    envoys = running.envoys()
    assert len(envoys) == 1 + old_epochs
    for pid in envoys if is_hung else []:
        os.kill(pid, signal.SIGSTOP)
    running.signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    eventually(lambda: not any(is_running(pid) for pid in envoys))
    # Nobody could take this away: the kernel killed the agent.
    base_id = (running.config_path / "envoy-base-id").read_text()
    Path(f"/dev/shm/envoy_shared_memory_{base_id}0").unlink()


def is_running(pid: int) -> bool:
    """False for a zombie that its new parent has not looked at yet."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False
