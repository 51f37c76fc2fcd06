"""Bad input at the start: one clear line, exit 255, and nothing is left behind or even started."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agents import AgentProcess
from tests.support.eventually import eventually
from tests.support.fakes import FakeEnvoy

MakeAgent = Callable[..., AgentProcess]


def refused(running: AgentProcess, fake_envoy: FakeEnvoy) -> str:
    """The one line on standard error of an agent that must not start."""
    assert running.start().wait() == 255
    lines = running.errors.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), running.errors
    assert lines[0].removeprefix("Error: ") in running.log, "the log says it too, as Istio's agent does"
    assert running.left_behind() == []
    assert fake_envoy.starts == []
    return lines[0]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as held:
        held.bind(("0.0.0.0", 0))
        held.listen()
        yield held


def test_a_missing_binary(agent: MakeAgent, fake_envoy: FakeEnvoy, tmp_path: Path) -> None:
    line = refused(agent(binary=tmp_path / "nowhere"), fake_envoy)
    assert f"{tmp_path}/nowhere is not there" in line and "binaryPath (from mesh file mesh.yaml)" in line


def test_a_binary_that_is_not_executable(agent: MakeAgent, fake_envoy: FakeEnvoy, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!/bin/sh\n")
    assert "is not executable; try: chmod +x" in refused(agent(binary=tmp_path / "text"), fake_envoy)


def test_a_binary_of_another_kind(agent: MakeAgent, fake_envoy: FakeEnvoy, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"\x00\x01\x02")
    (tmp_path / "noise").chmod(0o755)
    assert "can't be executed: Exec format error" in refused(agent(binary=tmp_path / "noise"), fake_envoy)


@pytest.mark.parametrize("name", ["status", "admin", "ready", "prometheus", "outbound", "inbound"])
def test_a_taken_port_is_told_with_its_holder(
    agent: MakeAgent, fake_envoy: FakeEnvoy, listener: socket.socket, name: str
) -> None:
    running = agent()
    port = listener.getsockname()[1]
    running.ports = running.ports._replace(**{name: port})
    running.env |= {
        "ENVOY_STATUS_PORT": str(running.ports.ready),
        "ENVOY_PROMETHEUS_PORT": str(running.ports.prometheus),
    }
    line = refused(running, fake_envoy)
    assert f"port {port} (" in line and f"in use by pid {os.getpid()} (" in line


def test_a_config_path_that_can_not_be_made(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent()
    (running.directory / "file").write_text("")
    running.config_path = running.directory / "file" / "proxy"
    assert f"configPath {running.config_path}: " in refused(running, fake_envoy)


def test_a_missing_config_dir(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent("--configDir", "elsewhere")
    assert "--configDir elsewhere: No such file or directory" in refused(running, fake_envoy)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{", "own.j2: the result is not JSON"),
        ("{}\n{% if %}", "own.j2:2: Expected an expression"),
        ('{"a":\n {{ nobody | tojson }}}', "own.j2:2: 'nobody' is undefined"),
        ('{"a": {{ nodeID }}}', "own.j2:1: value"),
        (None, "own.j2: can't be read: No such file or directory"),
    ],
)
def test_a_broken_template(agent: MakeAgent, fake_envoy: FakeEnvoy, template: str | None, message: str) -> None:
    running = agent("--templateFile", "own.j2")
    if template is not None:
        (running.directory / "own.j2").write_text(template)
    assert message in refused(running, fake_envoy)


def test_a_template_that_envoy_refuses_is_told_in_envoys_words(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(invalid="no such field: wings")
    running = agent("--templateFile", "own.j2")
    (running.directory / "own.j2").write_text("{}")
    line = refused(running, fake_envoy)
    assert "Envoy refuses the bootstrap (exit code 1)" in line and "no such field: wings" in line


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"drainDuration": "500ms"}, "drainDuration (from mesh file mesh.yaml): 0.5s must be at least 1s"),
        ({"statusPort": 0}, "statusPort (from mesh file mesh.yaml): 0 is not a port"),
        ({"proxyAdminPort": 70000}, "proxyAdminPort (from mesh file mesh.yaml): 70000 is not a port"),
        ({"concurrency": "many"}, "mesh file mesh.yaml: concurrency: 'many' is not an integer"),
        ({"interceptionMode": "MAGIC"}, "interceptionMode: 'MAGIC' is unknown; use one of REDIRECT, TPROXY, NONE"),
        ({"discoveryAddress": "nowhere"}, "discoveryAddress (from mesh file mesh.yaml): 'nowhere' is not an address"),
        ({"proxyMetadata": {"A": True}}, "proxyMetadata: value true of 'A' is not a text: put it in quotes"),
    ],
)
def test_bad_proxy_config(agent: MakeAgent, fake_envoy: FakeEnvoy, fields: dict[str, object], message: str) -> None:
    running = agent()
    running.write_mesh(**fields)
    assert message in refused(running, fake_envoy)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"PROXY_CONFIG": "a: ["}, "PROXY_CONFIG: not valid YAML: line "),
        ({"PROXY_CONFIG": "[1]"}, "PROXY_CONFIG: expected a mapping of fields, got list"),
        ({"ISTIO_PROMETHEUS_ANNOTATIONS": ""}, "ISTIO_PROMETHEUS_ANNOTATIONS"),
        ({"ISTIO_PROMETHEUS_ANNOTATIONS": '{"port": "15090"}'}, "15090"),
        ({"ISTIO_META_LABELS": "x"}, "ISTIO_META_LABELS"),
        ({"ISTIO_META_ENVOY_STATUS_PORT": "1"}, "ISTIO_META_ENVOY_STATUS_PORT"),
        ({"ISTIO_META_POD_PORTS": "x"}, "ISTIO_META_POD_PORTS"),
        ({"ISTIO_META_DNS_CAPTURE": ""}, "ISTIO_META_DNS_CAPTURE: '' is not a boolean"),
    ],
)
def test_bad_variables(agent: MakeAgent, fake_envoy: FakeEnvoy, env: dict[str, str], message: str) -> None:
    assert message in refused(agent(env=env), fake_envoy)


def test_a_bootstrap_that_only_envoy_can_refuse_is_a_settings_error(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    fake_envoy.switch(exit_code=1, invalid="max_active_downstream_connections: wrong")
    running = agent().start()
    assert running.wait() == 255
    line = "Error: Envoy refuses the bootstrap (exit code 1): error initializing configuration"
    assert running.errors.startswith(line) and len(running.errors.splitlines()) == 1
    assert "max_active_downstream_connections: wrong" in running.errors
    assert len(fake_envoy.starts) == 1
    assert running.left_behind() == []


def test_bad_flags_end_before_anything_else(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    for flag, message in (
        ("--crashWindow=5", "'5' is not a duration: write a number with a unit"),
        ("--onEnvoyExit=panic", "'panic' is not one of"),
        ("--maxCrashes=0", "0 is too small: the least is 1"),
        ("--log_output_level=loud", "unknown level 'loud'"),
    ):
        running = agent(flag)
        assert running.start().wait() == 255
        assert message in running.errors and len(running.errors.splitlines()) == 1, running.errors
    assert fake_envoy.starts == []


def test_an_unknown_role(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start(role="sidecat")
    assert running.wait() == 255
    assert "invalid proxy Type: sidecat" in running.errors


def test_what_is_only_odd_is_warned_about(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent("--unknown=1", env={"MINIMUM_DRAIN_DURATION": "5", "ISTIO_DUAL_STACK": "maybe"})
    running.write_mesh(drainDurations="5s")
    running.start().until_ready()
    eventually(lambda: running.lines("unknown flag '--unknown=1' is ignored"))
    assert running.lines("unknown ProxyConfig field 'drainDurations' is ignored; did you mean drainDuration?")
    assert running.lines("MINIMUM_DRAIN_DURATION='5' is not a duration: using the default, 5s")
    assert running.lines("ISTIO_DUAL_STACK='maybe' is not a boolean: using the default, false")
    assert running.stop() == 0
