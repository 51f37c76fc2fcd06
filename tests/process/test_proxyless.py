"""DISABLE_ENVOY: an application in the mesh by gRPC's own xDS client, a real one, and an agent without an Envoy."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from tests.support.agents import AgentProcess
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS, EDS, LDS, RDS, cluster, endpoints, route
from tests.support.fake_istiod import FakeIstiod
from tests.support.identities import WORKLOAD_CERTS, Mounted, prepare, socket_of
from tests.support.ports import free_port

MakeAgent = Callable[..., AgentProcess]
BOOTSTRAP = "etc/istio/proxy/grpc-bootstrap.json"
CLIENT = """
import sys
import grpc

for target in sys.argv[1:]:
    channel = grpc.insecure_channel(f"xds:///{target}")
    say = channel.unary_unary("/echo.Echo/Say")
    print(say(b"you", timeout=20, wait_for_ready=True).decode(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def istiod(tmp_path: Path) -> Iterator[FakeIstiod]:
    fake = FakeIstiod(tmp_path).start()
    yield fake
    fake.stop()


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a gRPC service that greets."""
    server = grpc.server(ThreadPoolExecutor(2))
    greet: Any = grpc.unary_unary_rpc_method_handler(lambda request, _context: b"hello " + request)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("echo.Echo", {"Say": greet})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


def for_grpc(name: str) -> Any:
    """A listener as istiod makes it for a gRPC client: one that listens nowhere."""
    manager = http_connection_manager_pb2.HttpConnectionManager()
    manager.http_filters.add(name="router").typed_config.Pack(router_pb2.Router())
    manager.rds.route_config_name = "route"
    manager.rds.config_source.ads.SetInParent()
    made = listener_pb2.Listener(name=name)
    made.api_listener.api_listener.Pack(manager)
    return made


def serve(istiod: FakeIstiod, port: int, *targets: str) -> None:
    for target in targets:
        istiod.ads.set(LDS, target, for_grpc(target))
    istiod.ads.set(RDS, "route", route("route", cluster="echo"))
    istiod.ads.set(CDS, "echo", cluster("echo"))
    made = endpoints("echo", port)
    made.endpoints[0].locality.region = "here"
    made.endpoints[0].load_balancing_weight.value = 1
    istiod.ads.set(EDS, "echo", made)


def proxyless(agent: MakeAgent, istiod: FakeIstiod | None = None, **env: str) -> AgentProcess:
    """No Envoy: the binary it is told does not exist."""
    trust = {"XDS_ROOT_CA": str(istiod.root_file)} if istiod is not None else {}
    running = prepare(agent(binary=Path("/nowhere/envoy")), istiod, DISABLE_ENVOY="true", **trust, **env)
    running.write_mesh(discoveryAddress=istiod.address if istiod is not None else f"localhost:{free_port()}")
    return running


def gates(running: AgentProcess) -> list[str]:
    found = json.loads(running.fetch("/healthz/ready", Accept="application/json")[1])["gates"]
    return [each["name"] for each in found]


def test_a_grpc_client_finds_its_service_through_the_agent(agent: MakeAgent, istiod: FakeIstiod, echo: int) -> None:
    serve(istiod, echo, "one:80", "two:80")
    running = proxyless(agent, istiod).start().until_ready()
    environment = {**os.environ, "GRPC_XDS_BOOTSTRAP": str(running.directory / BOOTSTRAP)}
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, "one:80", "two:80"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert client.stdout is not None
        assert [client.stdout.readline().strip() for _ in range(2)] == ["hello you", "hello you"]
        streams = istiod.ads.open_streams()
        assert {stream.kind for stream in streams} == {"sotw"}
        assert all(stream.metadata["authorization"].startswith("Bearer ") for stream in streams)
        assert {stream.frames[0].node.metadata["GENERATOR"] for stream in streams} == {"grpc"}
        assert json.loads(running.fetch("/debug/xds")[1])["streams"]
    finally:
        _, errors = client.communicate("")
    assert client.returncode == 0, errors
    assert running.stop() == 0


def test_streams_of_one_process_live_side_by_side(agent: MakeAgent, istiod: FakeIstiod) -> None:
    """Newer versions of gRPC open one for each target."""
    serve(istiod, free_port(), "one:80")
    running = proxyless(agent, istiod).start().until_ready()
    socket = running.config_path / "XDS"
    method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
    with grpc.insecure_channel(f"unix:{socket}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        asks: Any = channel.stream_stream(method)
        queues = [_Kept() for _ in range(3)]
        calls = [asks(queue, wait_for_ready=True) for queue in queues]
        eventually(lambda: len(istiod.ads.open_streams()) == 3)
        assert len(json.loads(running.fetch("/debug/xds")[1])["streams"]) == 3
        for queue in queues:
            queue.end()
        for call in calls:
            assert list(call) == []
    assert running.stop() == 0


class _Kept:
    """Requests that never come, until `end`."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def end(self) -> None:
        self._over.set()

    def __iter__(self) -> "_Kept":
        return self

    def __next__(self) -> bytes:
        self._over.wait()
        raise StopIteration


def test_there_are_no_envoy_no_sds_and_none_of_envoys_gates(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = proxyless(agent, istiod).start().until_ready()
    assert running.envoys() == []
    assert gates(running) == ["bootstrap", "grpc-bootstrap", "certificates", "nametable", "terminating"]
    assert not socket_of(running).exists()
    assert not (running.config_path / "envoy-rev.json").exists()
    status = json.loads(running.fetch("/debug/status")[1])
    assert (status["envoy"], status["listeners"]) == (None, [])
    assert "envoy_server_" not in running.fetch("/metrics")[1]
    assert running.metric('istio_agent_scrape_failures_total{type="envoy"}') == 0
    assert running.lines("no Envoy is started: DISABLE_ENVOY")
    assert running.stop() == 0
    assert running.left_behind() == []
    assert not (running.directory / "etc").exists(), "what was made for the bootstrap is taken back"


def test_it_is_ready_at_once_with_nobody_to_issue_a_certificate(agent: MakeAgent) -> None:
    running = proxyless(agent, CA_ADDR=f"localhost:{free_port()}", FILE_MOUNTED_CERTS="false")
    running.start().until_ready()
    assert running.stop() == 0


def test_with_output_certs_it_is_ready_when_the_files_are_there(agent: MakeAgent, istiod: FakeIstiod) -> None:
    istiod.fault = "unavailable"
    running = proxyless(agent, istiod, OUTPUT_CERTS="certs").start()
    missing = "grpc-bootstrap: not there yet in"
    eventually(lambda: running.fetch("/healthz/ready")[1].startswith(missing) if running.lines("xDS proxy") else False)
    assert "cert-chain.pem, key.pem, root-cert.pem" in running.fetch("/healthz/ready")[1]
    istiod.fault = None
    running.until_ready(within=20)
    written = {path.name for path in (running.directory / "certs").iterdir()}
    assert written == {"cert-chain.pem", "key.pem", "root-cert.pem"}
    config = json.loads((running.directory / BOOTSTRAP).read_text())["certificate_providers"]["default"]["config"]
    assert Path(config["private_key_file"]) == running.directory / "certs" / "key.pem"
    (running.directory / "certs" / "key.pem").unlink()
    assert running.fetch("/healthz/ready")[0] == 503
    assert running.stop() == 0


def test_drain_and_quit_answer(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = proxyless(agent, istiod).start().until_ready()
    assert running.fetch("/drain", method="POST") == (200, "OK: no Envoy is run, there is nothing to drain")
    assert running.is_ready()
    assert running.fetch("/quitquitquit", method="POST")[0] == 200
    assert running.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_it_at_once(agent: MakeAgent, istiod: FakeIstiod, number: signal.Signals) -> None:
    running = proxyless(agent, istiod)
    running.env |= {"MINIMUM_DRAIN_DURATION": "60s"}
    running.write_mesh(terminationDrainDuration="60s")
    running.start().until_ready()
    running.signal(number)
    assert running.wait(within=10) == 0


def test_a_changed_address_of_istiod_is_used_and_written(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = proxyless(agent, istiod)
    running.write_mesh(discoveryAddress="localhost:1")
    running.start().until_ready()
    running.write_mesh(discoveryAddress=istiod.address)

    def is_written() -> bool:
        metadata = json.loads((running.directory / BOOTSTRAP).read_text())["node"]["metadata"]
        return bool(metadata["PROXY_CONFIG"]["discoveryAddress"] == istiod.address)

    eventually(is_written, within=15)
    assert running.is_ready()
    assert running.stop() == 0


def test_an_envoy_has_the_bootstrap_of_grpc_beside_it(agent: MakeAgent, istiod: FakeIstiod) -> None:
    """As Istio has it for every proxy; with an empty name there is none."""
    running = prepare(agent(), istiod, XDS_ROOT_CA=str(istiod.root_file))
    running.write_mesh(discoveryAddress=istiod.address)
    running.start()
    eventually((running.directory / BOOTSTRAP).exists)
    assert oct((running.directory / BOOTSTRAP).stat().st_mode & 0o777) == "0o644"
    assert oct((running.directory / BOOTSTRAP).parent.stat().st_mode & 0o777) == "0o700"
    eventually(lambda: running.lines("starting"))
    assert "grpc-bootstrap" in gates(running)
    assert running.stop() == 0
    running.env |= {"GRPC_XDS_BOOTSTRAP": ""}
    running.start()
    eventually(lambda: len(running.lines("xDS proxy listens")) == 2)
    assert "grpc-bootstrap" not in gates(running)
    assert not (running.directory / BOOTSTRAP).exists()
    assert running.stop() == 0


def test_a_bootstrap_nobody_asked_for_is_no_reason_to_fail(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = prepare(agent(), istiod, XDS_ROOT_CA=str(istiod.root_file))
    (running.directory / "etc").write_text("in the way")
    running.start()
    eventually(lambda: running.lines("no bootstrap for gRPC's xDS client: GRPC_XDS_BOOTSTRAP "))
    eventually(lambda: running.lines("xDS proxy listens"))
    assert running.stop() == 0


@pytest.mark.parametrize("more", [{"DISABLE_ENVOY": "true"}, {"GRPC_XDS_BOOTSTRAP": "etc/own/grpc.json"}])
def test_one_that_was_asked_for_must_be_written(agent: MakeAgent, istiod: FakeIstiod, more: dict[str, str]) -> None:
    running = prepare(agent(), istiod, XDS_ROOT_CA=str(istiod.root_file), **more)
    (running.directory / "etc").write_text("in the way")
    running.start()
    assert running.wait() == 255
    assert running.errors.startswith("Error: GRPC_XDS_BOOTSTRAP ")
    assert running.left_behind() == []


def test_local_mode_without_an_envoy_is_refused(agent: MakeAgent) -> None:
    running = agent(env={"DISABLE_ENVOY": "true"}).start()
    assert running.wait() == 255
    assert "DISABLE_ENVOY=true and --configDir" in running.errors


def test_mounted_certificates_need_no_ca(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = proxyless(agent, OUTPUT_CERTS="certs", FILE_MOUNTED_CERTS="false")
    pair = Mounted(running.directory / WORKLOAD_CERTS).rotate()
    running.start().until_ready()
    assert (running.directory / "certs" / "cert-chain.pem").read_text() == pair.chain
    assert running.stop() == 0
