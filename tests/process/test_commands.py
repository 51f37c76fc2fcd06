"""The other commands beside a running agent, each as a process of its own: exit codes, outputs, and what they leave."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pilot_agent import __version__
from tests.support.agents import AgentProcess
from tests.support.eventually import eventually
from tests.support.fakes import FakeEnvoy

MakeAgent = Callable[..., AgentProcess]

PROGRAM = (sys.executable, "-m", "pilot_agent.commands.main")
SECRET = "hush-hush"


@pytest.fixture
def agent(agent: MakeAgent, fake_envoy: FakeEnvoy) -> Iterator[MakeAgent]:
    """As everywhere; but here it is not about the agent's end, so those that still run are asked to end."""
    made: list[AgentProcess] = []

    def make(*flags: str, env: dict[str, str] | None = None) -> AgentProcess:
        made.append(agent(*flags, env=env))
        return made[-1]

    yield make
    fake_envoy.switch(active_connections=0)  # what a drain waits for
    for each in made:
        if each.log_file.exists() and each.process.poll() is None:
            assert each.stop() == 0


class Ended:
    """A command that ran to its end in the directory and the environment of an agent."""

    def __init__(self, running: AgentProcess, *args: str) -> None:
        self._popen = subprocess.Popen(
            [*PROGRAM, *args],
            cwd=running.directory,
            env={**os.environ, **running.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> tuple[int, str, str]:
        out, err = self._popen.communicate(timeout=60)
        return self._popen.returncode, out, err

    def first_line(self) -> str:
        assert self._popen.stdout is not None
        return self._popen.stdout.readline()


def run(running: AgentProcess, *args: str) -> tuple[int, str, str]:
    return Ended(running, *args).result()


def settings_of(running: AgentProcess) -> list[str]:
    """The flags the agent itself was started with."""
    return ["--configDir", "mesh", "--meshConfig", "mesh.yaml", *running.flags]


def drain(running: AgentProcess, *args: str) -> Ended:
    ports = [f"--statusPort={running.ports.status}", f"--adminPort={running.ports.admin}"]
    return Ended(running, "drain", *ports, *args)


def test_version(agent: MakeAgent) -> None:
    code, out, err = run(agent(), "version", "--short")
    assert (code, out, err) == (0, f"{__version__}\n", "")


def test_wait_ends_when_the_agent_is_ready(agent: MakeAgent) -> None:
    running = agent().start()
    url = f"http://localhost:{running.ports.status}/healthz/ready"
    code, out, err = run(running, "wait", "--url", url, "--periodMillis=10")
    assert (code, err) == (0, "")
    assert out.endswith("\tinfo\tEnvoy is ready!\n")
    assert running.is_ready()


def test_wait_gives_up_with_the_agents_reason(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(never_ready=True)
    running = agent().start()
    eventually(lambda: fake_envoy.starts)
    url = f"http://localhost:{running.ports.status}/healthz/ready"

    def reason() -> str:
        code, _, err = run(running, "wait", "--url", url, "--timeoutSeconds=0", "--requestTimeoutMillis=5000")
        assert code == 255 and err.count("\n") == 1
        return err

    eventually(lambda: "HTTP status code 503: " in reason())


@pytest.fixture
def requestable(agent: MakeAgent, fake_envoy: FakeEnvoy) -> AgentProcess:
    """An agent on one of the ports that `request` takes; nothing of Istio listens on this one."""
    running = agent()
    running.ports = running.ports._replace(status=15004)
    return running.start().until_ready()


def test_request_reaches_the_agent(requestable: AgentProcess, fake_envoy: FakeEnvoy) -> None:
    code, out, err = run(requestable, "request", "--debug-port=15004", "GET", "/healthz/ready")
    assert (code, err) == (0, "") and out.endswith("\n")
    code, _, err = run(requestable, "request", "--debug-port=15004", "GET", "drain")
    assert code == 255
    assert err.startswith("Error: received unsuccessful status code 405: ")
    assert run(requestable, "request", "--debug-port=15004", "POST", "drain") == (0, "OK\n", "")
    assert [request.partition("?")[0] for request in fake_envoy.requests()] == ["POST /drain_listeners"]


# drain


def test_drain_asks_and_goes(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(active_connections=3)
    running = agent().start().until_ready()
    code, out, err = drain(running).result()
    assert (code, err) == (0, "") and len(out.splitlines()) == 1
    assert fake_envoy.requests() == ["POST /drain_listeners?inboundonly&graceful&skip_exit"]
    assert running.process.poll() is None, "a drain ends nobody"


def test_drain_waits_for_the_connections_and_says_how_many_are_left(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(active_connections=2)
    running = agent().start().until_ready()
    waiting = drain(running, "--wait")
    assert "Envoy drains" in waiting.first_line()
    assert "2 connections are left" in waiting.first_line()
    fake_envoy.switch(active_connections=0)
    code, out, err = waiting.result()
    assert (code, err) == (0, "")
    assert out.endswith("drained: no connection is left\n")


def test_drain_fails_with_the_number_of_those_that_stay(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(active_connections=4)
    running = agent().start().until_ready()
    code, _, err = drain(running, "--wait", "--timeoutSeconds=0").result()
    assert (code, err) == (255, "Error: not drained within 0 seconds: 4 connections are left\n")


def test_connections_to_readiness_do_not_keep_a_drain_waiting(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent()
    fake_envoy.switch(active_connections=9, listener_name=f"0.0.0.0_{running.ports.ready}")
    running.start().until_ready()
    assert drain(running, "--wait", "--timeoutSeconds=0").result()[0] == 0


def test_drain_without_an_agent_is_an_error(agent: MakeAgent) -> None:
    code, out, err = drain(agent(), "--wait").result()
    assert (code, out) == (255, "")
    assert err.startswith("Error: POST http://localhost:") and err.endswith("/drain: connection refused\n")


# config and bootstrap


def test_bootstrap_prints_what_the_agent_gave_to_envoy(agent: MakeAgent) -> None:
    running = agent("--proxyLogLevel=info", env={"ISTIO_META_NETWORK": "n1", "POD_NAME": "web"})
    running.start().until_ready()
    used = json.loads((running.config_path / "envoy-rev.json").read_text())
    before = sorted((path, path.stat().st_mtime_ns) for path in running.config_path.rglob("*"))
    code, out, err = run(running, "bootstrap", *settings_of(running))
    assert (code, err) == (0, "")
    assert json.loads(out) == used
    assert sorted((path, path.stat().st_mtime_ns) for path in running.config_path.rglob("*")) == before


def test_bootstrap_makes_no_directory(agent: MakeAgent) -> None:
    running = agent()
    running.write_mesh()
    assert run(running, "bootstrap", *settings_of(running))[0] == 0
    assert not running.config_path.exists()


def test_a_check_that_fails_says_what_envoy_says(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(invalid="no such field: wings")
    running = agent()
    running.write_mesh()
    code, out, err = run(running, "bootstrap", "--check", *settings_of(running))
    assert (code, out) == (255, "")
    assert err.startswith("Error: Envoy refuses the bootstrap (exit code 1): ") and "no such field: wings" in err
    assert err.count("\n") == 1


def config(running: AgentProcess, *args: str) -> dict[str, Any]:
    code, out, err = run(running, "config", "-o", "json", *settings_of(running), *args)
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_config_says_what_the_running_agent_logged(agent: MakeAgent) -> None:
    running = agent("--preDrainDelay=1s").start().until_ready()
    found = config(running)
    assert running.lines('FLAG: --preDrainDelay="1s"')
    assert found["flags"]["preDrainDelay"] == {"value": "1s", "source": "flag"}
    assert running.lines("proxy config: drainDuration=1s (from mesh file mesh.yaml)")
    assert found["proxyConfig"]["drainDuration"] == {"value": "1s", "source": "mesh file mesh.yaml"}
    assert found["envoy"]["binary"]["value"] == str(running.binary)


def test_config_and_bootstrap_print_no_secret_of_the_settings(agent: MakeAgent) -> None:
    running = agent(
        env={"ISTIO_META_API_TOKEN": SECRET, "XDS_HEADER_Authorization": SECRET, "CA_HEADER_X": f"Bearer {SECRET}"}
    )
    running.write_mesh(tracing={"lightstep": {"address": "a.b:80", "accessToken": SECRET}})
    for output in ("table", "json"):
        code, out, err = run(running, "config", "--all", "-o", output, *settings_of(running))
        assert code == 0 and SECRET not in out + err
    code, _, err = run(running, "config", "--all", "--configDir", "nowhere", "--meshConfig", "mesh.yaml", "gateway")
    assert code == 255 and SECRET not in err


PLACES = {
    "PROXY_CONFIG": {
        "proxyMetadata": {"MY_TOKEN": SECRET, "NESTED": json.dumps({"password": SECRET})},
        "runtimeValues": {"api_key": SECRET},
    },
    "ISTIO_METAJSON_X": {"DEEP": {"private_key": SECRET}},
    "ISTIO_KUBE_APP_PROBERS": {"/x": {"httpHeaders": [{"name": "Authorization", "value": SECRET}]}},
}


@pytest.mark.parametrize("args", [(), ("--all",), ("-ojson",), ("--all", "-ojson", "--strict")], ids=" ".join)
def test_config_prints_no_secret_inside_of_a_value(agent: MakeAgent, args: tuple[str, ...]) -> None:
    running = agent(env={name: json.dumps(value) for name, value in PLACES.items()})
    running.write_mesh()
    _, out, err = run(running, "config", *settings_of(running), *args)
    assert all(name in out for name in PLACES)
    assert "(hidden)" in out
    assert SECRET not in out + err


@pytest.mark.parametrize("command", ["config", "bootstrap"])
@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("PROXY_CONFIG", {"tracing": {"lightstep": {"accessToken": [SECRET]}}}, "accessToken"),
        ("PROXY_CONFIG", {"proxyMetadata": {"MY_TOKEN": [SECRET]}}, "proxyMetadata"),
    ],
)
def test_an_error_names_the_field_of_a_secret_and_not_the_secret(
    agent: MakeAgent, command: str, variable: str, value: object, told: str
) -> None:
    running = agent(env={variable: json.dumps(value)})
    running.write_mesh()
    code, out, err = run(running, command, *settings_of(running))
    assert (code, out, err.count("\n")) == (255, "", 1)
    assert err.startswith("Error: ") and told in err
    assert SECRET not in err


def test_in_mesh_mode_bootstrap_prints_what_the_agent_gave_to_envoy_too(
    agent: MakeAgent, fake_envoy: FakeEnvoy
) -> None:
    running = agent("--stockEnvoy", "--domain=shop.local")
    running.is_local = False
    running.write_mesh(meshId="mine", terminationDrainDuration="0s")
    running.start()
    eventually(lambda: fake_envoy.starts)
    code, out, err = run(running, "bootstrap", "--meshConfig", "mesh.yaml", *running.flags)
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((running.config_path / "envoy-rev.json").read_text())


def test_strict_is_a_failure_behind_the_whole_output(agent: MakeAgent) -> None:
    running = agent()
    running.write_mesh(drainDurations="5s")
    code, out, err = run(running, "config", "--strict", *settings_of(running))
    assert code == 255
    assert "did you mean drainDuration?" in out
    assert err == "Error: 1 warning, which --strict takes for errors\n"


@pytest.mark.parametrize("command", ["config", "bootstrap"])
def test_what_proxy_refuses_they_refuse_in_the_same_words(agent: MakeAgent, command: str) -> None:
    running = agent()
    running.write_mesh(drainDuration="500ms")
    assert running.start().wait() == 255
    assert run(running, command, *settings_of(running)) == (255, "", running.errors)


@pytest.mark.parametrize("command", ["wait", "request", "version", "drain", "config", "bootstrap", "completion"])
def test_an_unknown_flag_is_an_error_of_every_command_but_proxy(agent: MakeAgent, command: str) -> None:
    code, out, err = run(agent(), command, "--nosuch")
    assert (code, out) == (255, "")
    assert err.startswith("Error: unknown flag: --nosuch")
