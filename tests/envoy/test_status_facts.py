"""/debug/status, /debug/shutdown and `pilot-agent status` of a real agent with a real Envoy."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.support.agents import PROJECT, AgentProcess
from tests.support.applications import application
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.status_stand import RECORDED
from tests.unit.mesh.declared import service_entry

MakeAgent = Callable[..., AgentProcess]


def status(running: AgentProcess) -> Any:
    code, body = running.fetch("/debug/status")
    assert code == 200
    return json.loads(body)


def shape(value: Any) -> Any:
    return {name: shape(item) for name, item in value.items()} if isinstance(value, dict) else None


def test_the_facts_have_the_recorded_shape(agent: MakeAgent) -> None:
    running = agent(binary=envoy_binary()).start().until_ready()
    running.fetch("/metrics")
    found = status(running)
    assert list(found) == list(RECORDED)
    for part in ("agent", "config", "memory", "traffic"):
        assert shape(found[part]) == shape(RECORDED[part]), part
    assert set(found["envoy"]) == set(RECORDED["envoy"])
    assert [gate["name"] for gate in found["gates"]] == [gate["name"] for gate in RECORDED["gates"]]
    assert (found["ready"], found["reason"]) == (True, None)
    assert found["envoy"]["pid"] == running.envoys()[0]
    assert "1.40" in found["envoy"]["version"]
    assert found["memory"]["envoy_bytes"] > 10**7
    assert {"name": f"0.0.0.0_{running.ports.ready}", "address": f"0.0.0.0:{running.ports.ready}"} in found["listeners"]
    assert [each["source"] for each in found["scrapes"]][:1] == ["Envoy"]
    assert running.stop() == 0


def test_what_happens_is_in_the_facts(agent: MakeAgent) -> None:
    with application("web") as app:
        running, port = agent(binary=envoy_binary()), free_port()
        running.write_mesh(interceptionMode="NONE")
        running.config_dir.mkdir()
        (running.config_dir / "web.yaml").write_text(service_entry("web", port=port, target=app.port))
        running.start().until_ready()
        for _ in range(3):
            assert running.fetch("/", port=port, Host="web.example.com") == (200, "web")
        eventually(lambda: status(running)["traffic"]["requests_total"] == 3)
        assert status(running)["config"]["services"] == 1
        os.kill(running.envoys()[0], signal.SIGKILL)
        eventually(lambda: status(running)["envoy"]["last_exit"] is not None)
        eventually(lambda: status(running)["ready"])
        assert status(running)["envoy"]["last_exit"]["signal"] == "SIGKILL"
        assert status(running)["envoy"]["restarts"]["crash"] == 1
        (running.config_dir / "broken.yaml").write_text("kind: [")
        eventually(lambda: status(running)["config"]["broken_files"] != [])
        assert "broken.yaml" in status(running)["errors"][0]
        assert running.stop() == 0


def test_an_envoy_that_hangs_does_not_hold_up_the_answer(agent: MakeAgent) -> None:
    running = agent(binary=envoy_binary()).start().until_ready()
    (envoy,) = running.envoys()
    os.kill(envoy, signal.SIGSTOP)
    eventually(lambda: not status(running)["ready"])
    found = status(running)
    assert (found["traffic"], found["listeners"]) == (None, [])
    os.kill(envoy, signal.SIGCONT)
    eventually(lambda: status(running)["ready"])
    assert running.stop() == 0


def test_the_command_prints_them(agent: MakeAgent) -> None:
    running = agent(binary=envoy_binary()).start().until_ready()
    argv = [sys.executable, "-m", "pilot_agent.commands.main", "status", "--port", str(running.ports.status)]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    said = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=30, check=True).stdout
    assert said.startswith("READY\n")
    assert f"pid {running.envoys()[0]}" in said
    assert f"0.0.0.0:{running.ports.prometheus}" in said
    assert running.stop() == 0


def test_the_timeline_of_a_shutdown(agent: MakeAgent) -> None:
    running = agent("--preDrainDelay=30s", "--terminationDeadline=60s", binary=envoy_binary()).start().until_ready()
    assert json.loads(running.fetch("/debug/shutdown")[1]) == {"state": "not stopping", "plan": "", "steps": []}
    running.signal(signal.SIGTERM)

    def steps() -> list[str]:
        return [each["step"] for each in json.loads(running.fetch("/debug/shutdown")[1])["steps"]]

    eventually(lambda: steps() == ["asked to stop", "readiness is false"])
    told = json.loads(running.fetch("/debug/shutdown")[1])
    assert told["state"] == "stopping"
    assert "drain at +30 s" in told["plan"]
    assert told["steps"][0]["detail"] == "SIGTERM"
    running.signal(signal.SIGTERM)
    assert running.wait() == 0


def test_no_secret_is_told(agent: MakeAgent) -> None:
    secret = "hunter2hunter2"
    env = {"XDS_HEADER_authorization": secret, "ISTIO_META_API_TOKEN": secret}
    running = agent(binary=envoy_binary(), env=env)
    running.write_mesh(
        proxyMetadata={"MY_PASSWORD": secret}, tracing={"lightstep": {"address": "l:1", "accessToken": secret}}
    )
    running.start().until_ready()
    for path in ("/debug/status", "/debug/shutdown", "/healthz/ready?verbose", "/metrics"):
        assert secret not in running.fetch(path)[1], path
    assert secret not in running.log + running.errors
    assert running.stop() == 0
