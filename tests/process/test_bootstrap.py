"""From settings to the Envoy that is started: its files, its environment, its user, what must be found out first."""

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.support.agents import AgentProcess
from tests.support.eventually import eventually
from tests.support.fakes import FakeEnvoy

MakeAgent = Callable[..., AgentProcess]

OVERRIDE = {"admin": {"profile_path": "$(HOST_IP)"}}
LIGHTSTEP = {"lightstep": {"address": "lightstep.shop:8080", "accessToken": "the-very-secret"}}
STOCK = ["envoy.bootstrap.internal_listener"]


def started(running: AgentProcess, fake_envoy: FakeEnvoy, number: int = 1) -> dict[str, Any]:
    eventually(lambda: len(fake_envoy.starts) >= number or running.process.poll() is not None)
    assert running.process.poll() is None, running.errors + running.log
    return fake_envoy.starts[number - 1]


def mesh_mode(running: AgentProcess) -> AgentProcess:
    running.is_local = False
    running.write_mesh(terminationDrainDuration="0s")
    return running


def annotate(running: AgentProcess, **annotations: str) -> None:
    path = running.directory / "etc/istio/pod/annotations"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text("".join(f"sidecar.istio.io/{name}={json.dumps(text)}\n" for name, text in annotations.items()))
    draft.replace(path)


# The override


def test_an_override_goes_onto_envoys_command_line(agent: MakeAgent, fake_envoy: FakeEnvoy, tmp_path: Path) -> None:
    override = tmp_path / "override.json"
    override.write_text(json.dumps(OVERRIDE))
    running = agent(env={"ISTIO_BOOTSTRAP_OVERRIDE": str(override), "HOST_IP": "10.0.0.9"}).start().until_ready()
    wanted = '{"admin":{"profile_path":"10.0.0.9"}}'
    assert fake_envoy.flag(fake_envoy.starts[0], "--config-yaml") == wanted
    assert fake_envoy.flag(fake_envoy.events("validate")[0], "--config-yaml") == wanted, "asked before the start"
    (command,) = running.lines("Envoy command: [")
    assert f"--config-yaml ({len(wanted)} characters of ISTIO_BOOTSTRAP_OVERRIDE)" in command
    override.with_suffix(".draft").write_text('{"admin": {"profile_path": "/other"}}')
    override.with_suffix(".draft").replace(override)
    eventually(lambda: running.lines("has taken over"))
    assert fake_envoy.flag(fake_envoy.starts[1], "--config-yaml") == '{"admin":{"profile_path":"/other"}}'
    assert running.stop() == 0


def test_an_override_that_envoy_refuses_ends_the_start(agent: MakeAgent, fake_envoy: FakeEnvoy, tmp_path: Path) -> None:
    override = tmp_path / "override.json"
    override.write_text('{"admn": {}}')
    fake_envoy.switch(invalid="no such field: 'admn'")
    running = agent(env={"ISTIO_BOOTSTRAP_OVERRIDE": str(override)}).start()
    assert running.wait() == 255
    assert "no such field: 'admn'" in running.errors
    assert not fake_envoy.starts
    assert running.left_behind() == []


def test_a_missing_override_is_a_warning(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent(env={"ISTIO_BOOTSTRAP_OVERRIDE": "/nowhere/override.json"}).start().until_ready()
    assert running.lines("warn\tISTIO_BOOTSTRAP_OVERRIDE is ignored: /nowhere/override.json can't be read")
    assert fake_envoy.flag(fake_envoy.starts[0], "--config-yaml") is None
    assert running.stop() == 0


# Files, environment, user


def test_the_token_of_lightstep_is_a_file_nobody_else_reads(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = mesh_mode(agent("--stockEnvoy=false"))
    running.write_mesh(tracing=LIGHTSTEP)
    start = started(running.start(), fake_envoy)
    token = running.config_path / "lightstep_access_token.txt"
    assert token.read_text() == "the-very-secret"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    named = start["config"]["tracing"]["http"]["typed_config"]["access_token_file"]
    assert running.directory / named == token
    assert "the-very-secret" not in running.log + running.errors
    assert stat.S_IMODE((running.config_path / "envoy-rev.json").stat().st_mode) == 0o600, "its metadata has it too"
    assert running.stop() == 0
    assert running.left_behind() == []


def test_a_yaml_template_is_published_under_the_name_istio_gives_it(
    agent: MakeAgent, fake_envoy: FakeEnvoy, tmp_path: Path
) -> None:
    template = tmp_path / "own.yaml"
    template.write_text(
        "node:\n  id: {{ nodeID | tojson }}\nadmin:\n  address:\n    socket_address:\n"
        "      address: {{ localhost | tojson }}\n      port_value: {{ config.proxyAdminPort | tojson }}\n"
    )
    running = mesh_mode(agent(env={"ISTIO_BOOTSTRAP": str(template)}))
    start = started(running.start(), fake_envoy)
    assert fake_envoy.flag(start, "-c") == str(running.config_path / "envoy-rev.yaml")
    assert start["config"]["admin"]["address"]["socket_address"]["port_value"] == running.ports.admin
    assert running.stop() == 0
    assert running.left_behind() == []


@pytest.mark.parametrize("policy", ["fips-140-2", "fips-140-3"])
def test_a_fips_policy_restricts_grpcs_ciphers(agent: MakeAgent, fake_envoy: FakeEnvoy, policy: str) -> None:
    running = agent(env={"COMPLIANCE_POLICY": policy}).start().until_ready()
    suites = fake_envoy.starts[0]["env"]["GRPC_SSL_CIPHER_SUITES"].split(":")
    assert len(suites) == 4
    assert all(suite.startswith("ECDHE-") and "-GCM-" in suite for suite in suites)
    assert running.stop() == 0


def test_without_a_policy_envoy_has_the_agents_environment(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent(env={"MINE": "x"}).start().until_ready()
    assert fake_envoy.starts[0]["env"]["MINE"] == "x"
    assert "GRPC_SSL_CIPHER_SUITES" not in fake_envoy.starts[0]["env"]
    assert running.stop() == 0


# What must be found out


def test_statsd_by_name_becomes_its_address(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent()
    running.write_mesh(statsdUdpAddress="localhost:8125")
    running.start().until_ready()
    config = fake_envoy.starts[0]["config"]
    where = config["stats_sinks"][0]["typed_config"]["address"]["socket_address"]
    assert (where["address"], where["port_value"]) == ("127.0.0.1", 8125)
    assert config["node"]["metadata"]["PROXY_CONFIG"]["statsdUdpAddress"] == "127.0.0.1:8125"
    assert running.stop() == 0


def test_statsd_whose_name_has_no_address_is_left_out(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent()
    running.write_mesh(statsdUdpAddress="statsd.invalid:8125")
    running.start().until_ready(within=25)
    assert running.lines("warn\tstatsdUdpAddress: statsd.invalid has no address")
    assert "stats_sinks" not in fake_envoy.starts[0]["config"]
    assert "statsdUdpAddress" not in fake_envoy.starts[0]["config"]["node"]["metadata"]["PROXY_CONFIG"]
    running.write_mesh(statsdUdpAddress="localhost:8125")  # a name that came later is looked up without a restart
    eventually(lambda: running.lines("has taken over"))
    assert "stats_sinks" in fake_envoy.starts[1]["config"]
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("flags", "extensions", "is_kept"),
    [
        ((), STOCK, False),
        ((), [*STOCK, "envoy.bootstrap.workload_discovery"], True),
        ((), [], True),  # it does not say: believed to be Istio's
        (("--stockEnvoy=false",), STOCK, True),
        (("--stockEnvoy",), [*STOCK, "envoy.bootstrap.workload_discovery"], False),
    ],
)
def test_parts_that_only_istios_envoy_can_load(
    agent: MakeAgent, fake_envoy: FakeEnvoy, flags: tuple[str, ...], extensions: list[str], is_kept: bool
) -> None:
    fake_envoy.switch(extensions=extensions)
    running = mesh_mode(agent(*flags, env={"ISTIO_META_ENABLE_HBONE": "true"}))
    start = started(running.start(), fake_envoy)
    names = [each["name"] for each in start["config"]["bootstrap_extensions"]]
    assert ("metadata_discovery" in names) is is_kept
    warnings = running.lines("metadata_discovery is left out: this Envoy is not Istio's build")
    assert len(warnings) == (0 if is_kept else 1)
    assert running.stop() == 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU can't be fewer")
def test_fewer_cpus_are_fewer_worker_threads_and_the_log_says_why(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent().start("taskset", "-c", str(min(os.sched_getaffinity(0)))).until_ready()
    assert fake_envoy.flag(fake_envoy.starts[0], "--concurrency") == "1"
    (line,) = running.lines("proxy config: concurrency=1 (from ")
    assert f"1 of {os.cpu_count()} CPUs" in line
    assert running.stop() == 0


# Sockets of others


@contextmanager
def sds_of_others(path: Path) -> Iterator[None]:
    """A server that opens as gRPC does, on a Unix socket."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = Thread(target=_greet, args=(server,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


def _greet(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"\0\0\0\4\0\0\0\0\0")
            while connection.recv(1024):
                pass  # closing with something unread would reset the connection


def test_a_workload_sds_of_somebody_else_gets_a_cluster_beside_it(
    agent: MakeAgent, fake_envoy: FakeEnvoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = mesh_mode(agent(env={"WORKLOAD_IDENTITY_SOCKET_FILE": "spire"}))
    monkeypatch.chdir(running.directory)  # a Unix socket's path has 107 bytes at most
    secrets = Path("var/run/secrets")
    with sds_of_others(secrets / "workload-spiffe-uds/spire"), sds_of_others(secrets / "credential-uds/socket"):
        start = started(running.start(), fake_envoy)
    clusters = {each["name"]: each for each in start["config"]["static_resources"]["clusters"]}
    assert '{"path": "./var/run/secrets/workload-spiffe-uds/spire"}' in json.dumps(clusters["sds-grpc"])
    assert '{"path": "./var/run/secrets/credential-uds/files-socket"}' in json.dumps(clusters["sds-files-grpc"])
    metadata = start["config"]["node"]["metadata"]
    assert (metadata["file-credential"], metadata["credential"]) == ("true", "true")
    assert running.stop() == 0


def test_a_named_workload_socket_that_nobody_serves_ends_the_start(agent: MakeAgent) -> None:
    running = mesh_mode(agent(env={"WORKLOAD_IDENTITY_SOCKET_FILE": "spire"})).start()
    assert running.wait() == 255
    assert "WORKLOAD_IDENTITY_SOCKET_FILE: there is no socket" in running.errors


# Annotations that change


def test_a_changed_annotation_of_a_log_level_beats_the_flag(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent("--proxyLogLevel=error")
    annotate(running, logLevel="warning", agentLogLevel="default:warn")
    running.start().until_ready()
    assert fake_envoy.flag(fake_envoy.starts[0], "-l") == "error", "at the start the flag counts, as in Istio's agent"
    annotate(running, logLevel="debug", componentLogLevel="upstream:trace", agentLogLevel="default:debug")
    eventually(lambda: running.lines("has taken over"))
    assert fake_envoy.flag(fake_envoy.starts[1], "-l") == "debug"
    assert fake_envoy.flag(fake_envoy.starts[1], "--component-log-level") == "upstream:trace"
    annotate(running, logLevel="debug", componentLogLevel="upstream:trace", agentLogLevel="default:none")
    eventually(lambda: len(fake_envoy.starts) == 3)
    before = len(running.log.splitlines())
    assert running.stop() == 0
    assert not [line for line in running.log.splitlines()[before:] if "\tinfo\t" in line and "envoy" not in line]


def test_a_changed_annotation_of_stats_hands_over(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    running = agent()
    annotate(running, extraStatTags="one")
    running.start().until_ready()
    annotate(running, extraStatTags="one,two")
    eventually(lambda: running.lines("has taken over"))
    tags = [each["tag_name"] for each in fake_envoy.starts[1]["config"]["stats_config"]["stats_tags"]]
    assert {"one", "two"} <= set(tags)
    assert running.stop() == 0


def test_a_cloud_that_was_named_gives_locality_and_platform_metadata(agent: MakeAgent, fake_envoy: FakeEnvoy) -> None:
    env = {"CLOUD_PLATFORM": "gcp", "GCP_METADATA": "shop|42|cluster-1|europe-west1-b", "GCP_ZONE": "europe-west1-b"}
    running = mesh_mode(agent(env=env))
    node = started(running.start(), fake_envoy)["config"]["node"]
    assert node["locality"] == {"region": "europe-west1", "zone": "europe-west1-b"}
    assert node["metadata"]["PLATFORM_METADATA"]["gcp_project"] == "shop"
    assert running.stop() == 0
