"""The local mesh end to end: real pods, rules, agents, Envoys and certificates, and a conversation in every protocol.

Each says who answered, whom the application takes its client for, what Envoy wrote down, and which rules of
ISTIO_OUTPUT moved: 1 Envoy to its application, 2 the pod to itself through its service, 3 the application to its own
address, 4 Envoy to another pod, 9 the application to anywhere else. The other four are test_output_rules'.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot_agent.demo.access_log import AccessLogLine
from pilot_agent.demo.network import missing_for_namespaces
from pilot_agent.demo.pod import PROXY_USER, Pod
from pilot_agent.demo.process import variables
from tests.support import demo_dumps
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.mesh_stage import (
    ELSEWHERE,
    GRPC,
    HTTP,
    HTTP2,
    MINE,
    SECURE,
    STRAY,
    TCP,
    TLS,
    WILD,
    MeshStage,
    interception_status,
    mesh_stage,
    within,
)
from tests.support.speaker import METHOD_MANY, METHOD_ONE
from tests.support.speech import Reply, ask_h2c, ask_http, ask_tcp, ask_tls
from tests.unit.bootstrap.test_golden import UPDATE

pytestmark = pytest.mark.skipif(missing_for_namespaces() is not None, reason=str(missing_for_namespaces()))

HOST = "httpbin.demo.svc.cluster.local"
HEADLESS = "headless.demo.svc.cluster.local"
PASSTHROUGH_SOURCE = {False: "127.0.0.6", True: "::6"}
"""By whether it is IPv6."""

REGISTRY_ONLY = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: sleep, namespace: demo}
spec:
  workloadSelector: {labels: {app: sleep}}
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  egress: [{hosts: ["*/*"]}]
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[MeshStage]:
    envoy_binary()
    with mesh_stage("IPv4") as made:
        yield made


def outbound(port: int, host: str = HOST) -> str:
    return f"outbound|{port}||{host}"


def inbound(port: int) -> str:
    return f"inbound|{port}||"


def identity(reply: Reply) -> dict[str, str]:
    """Who has spoken to whom, as the server's Envoy tells its application."""
    forwarded = reply["headers"]["x-forwarded-client-cert"]
    return dict(part.split("=", 1) for part in forwarded.split(";"))


def is_between(reply: Reply, client: str, server: str) -> bool:
    found = identity(reply)
    account = "spiffe://cluster.local/ns/demo/sa/"
    return (found["URI"], found["By"]) == (account + client, account + server)


def passed_both(stage: MeshStage, reply: Reply) -> bool:
    return is_between(reply, "sleep", "httpbin") and reply["name"] == "httpbin-v1"


def test_http_1(stage: MeshStage) -> None:
    sleep, httpbin = stage.sleep, stage.httpbin
    with stage.observing() as seen:
        reply = within(sleep, ask_http, stage.vips[0], 8000, "httpbin:8000")
    assert (reply["status"], reply["protocol"], reply["peer"]) == (200, "HTTP/1.1", "127.0.0.6")
    assert passed_both(stage, reply)
    assert seen.moved(sleep, 9, 4)
    assert seen.moved(httpbin, 1)
    client, server = seen.line(sleep, outbound(8000)), seen.line(httpbin, inbound(HTTP))
    assert (client.route_name, client.response_code, client.upstream_host) == ("default", "200", server.upstream_host)
    assert client.downstream_local_address == f"{stage.vips[0]}:8000"
    assert client.request_id == server.request_id
    assert server.requested_server_name == f"outbound_.8000_._.{HOST}"
    assert server.downstream_remote_address == client.upstream_local_address


def test_http_2(stage: MeshStage) -> None:
    sleep, httpbin = stage.sleep, stage.httpbin
    with stage.observing() as seen:
        reply = within(sleep, ask_h2c, stage.vips[0], 8001, "httpbin:8001")
    assert (reply["status"], reply["protocol"]) == (200, "HTTP/2")
    assert passed_both(stage, reply)
    assert seen.moved(sleep, 9, 4)
    assert seen.moved(httpbin, 1)
    assert " HTTP/2" in seen.line(sleep, outbound(8001)).text
    assert " HTTP/2" in seen.line(httpbin, inbound(HTTP2)).text


def test_a_client_of_http_2_for_an_application_of_http_1(stage: MeshStage) -> None:
    reply = within(stage.sleep, ask_h2c, stage.vips[0], 8000, "httpbin:8000")
    assert (reply["status"], reply["protocol"]) == (200, "HTTP/1.1")
    assert passed_both(stage, reply)


def test_grpc_with_one_message_and_with_streams(stage: MeshStage) -> None:
    sleep, httpbin = stage.sleep, stage.httpbin
    with stage.observing() as seen:
        one, many = grpc_from(sleep, f"{stage.vips[0]}:9001")
    assert (one["said"], [each["said"] for each in many]) == ("one", ["a", "b", "c"])
    assert all(is_between(reply, "sleep", "httpbin") for reply in (one, *many))
    assert seen.moved(sleep, 9, 4)
    assert seen.moved(httpbin, 1)
    assert [line.path for line in seen.lines(sleep, outbound(9001), 2)] == [METHOD_ONE, METHOD_MANY]
    assert len(seen.lines(httpbin, inbound(GRPC), 2)) == 2


def grpc_from(pod: Pod, target: str) -> tuple[Reply, list[Reply]]:
    argv = pod.place.wrapped([sys.executable, "-m", "tests.support.speech", target])
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=variables(), timeout=30)
    assert done.returncode == 0, done.stderr
    one, many = json.loads(done.stdout)
    return one, many


def test_tcp_whose_server_speaks_first(stage: MeshStage) -> None:
    sleep, httpbin = stage.sleep, stage.httpbin
    with stage.observing() as seen:
        reply = within(sleep, ask_tcp, stage.vips[0], 9002, "one", "two")
    assert (reply["name"], reply["said"], reply["peer"]) == ("httpbin-v1", "two", "127.0.0.6")
    assert seen.moved(sleep, 9, 4)
    assert seen.moved(httpbin, 1)
    assert seen.line(sleep, outbound(9002)).upstream_host == f"{httpbin.address}:{TCP}"
    server = seen.line(httpbin, inbound(TCP))
    assert server.requested_server_name == f"outbound_.9002_._.{HOST}"  # so it came by mutual TLS


def test_tls_is_passed_through_by_its_server_name(stage: MeshStage) -> None:
    sleep, outside = stage.sleep, stage.outside
    with stage.observing() as seen:
        reply = within(sleep, ask_tls, ELSEWHERE["IPv4"], TLS, SECURE, stage.authority.pem)
    assert (reply.get("name"), reply.get("peer")) == ("outside", sleep.address), reply
    assert seen.moved(sleep, 9, 4)
    line = seen.line(sleep, outbound(443, SECURE))
    assert (line.requested_server_name, line.upstream_host) == (SECURE, f"{outside.address}:{TLS}")


def test_a_headless_service(stage: MeshStage) -> None:
    """Its client has the pod's own address, and its Envoy still knows which service is meant."""
    sleep, httpbin = stage.sleep, stage.httpbin
    with stage.observing() as seen:
        reply = within(sleep, ask_http, httpbin.address, MINE, f"headless:{MINE}")
    assert passed_both(stage, reply)
    assert seen.moved(sleep, 9, 4)
    assert seen.moved(httpbin, 1)
    assert seen.line(sleep, outbound(MINE, HEADLESS)).upstream_host == f"{httpbin.address}:{MINE}"
    with stage.observing() as seen:
        reply = within(sleep, ask_tcp, httpbin.address, TCP, "hello")
    assert reply["said"] == "hello"
    assert seen.line(sleep, outbound(TCP, HEADLESS)).upstream_host == f"{httpbin.address}:{TCP}"
    assert seen.line(httpbin, inbound(TCP)).requested_server_name == f"outbound_.{TCP}_._.{HEADLESS}"


def test_a_wildcard_host_goes_to_where_its_client_wanted(stage: MeshStage) -> None:
    sleep, outside = stage.sleep, stage.outside
    with stage.observing() as seen:
        reply = within(sleep, ask_http, outside.address, 80, "a.example.com")
    assert (reply["name"], reply["peer"]) == ("outside", sleep.address)
    assert reply["headers"]["host"] == "a.example.com"
    assert seen.moved(sleep, 9, 4)
    line = seen.line(sleep, outbound(80, WILD))
    assert (line.route_name, line.upstream_host) == ("default", f"{outside.address}:80")


def test_what_nobody_declared(stage: MeshStage) -> None:
    """It passes; with REGISTRY_ONLY it is refused, HTTP by an answer, everything else by the end of its connection."""
    sleep, outside = stage.sleep, stage.outside
    with stage.observing() as seen:
        http = within(sleep, ask_http, outside.address, 80, "unknown.example.org")
        tcp = within(sleep, ask_tcp, outside.address, TCP, "hello")
    assert (http["name"], tcp["name"]) == ("outside", "outside")
    assert seen.moved(sleep, 9, 4)
    lines = seen.lines(sleep, "PassthroughCluster", 2)
    assert {line.route_name for line in lines} == {"allow_any", "-"}
    assert {line.upstream_host for line in lines} == {f"{outside.address}:80", f"{outside.address}:{TCP}"}

    sleep.write("sidecar.yaml", REGISTRY_ONLY)
    try:
        eventually(lambda: within(sleep, ask_http, outside.address, 80, "unknown.example.org")["status"] == 502)
        eventually(lambda: "error" in within(sleep, ask_tcp, outside.address, TCP, "hello"))
        with stage.observing() as seen:
            within(sleep, ask_http, outside.address, 80, "unknown.example.org")
            within(sleep, ask_tcp, outside.address, TCP, "hello")
            known = within(sleep, ask_http, outside.address, 80, "a.example.com")
        assert known["name"] == "outside"
        assert seen.moved(sleep, 9, 4)
        assert seen.line(sleep, "-").route_name == "block_all"
        assert seen.line(sleep, "BlackHoleCluster").upstream_host == "-"
    finally:
        sleep.remove("sidecar.yaml")
    eventually(lambda: within(sleep, ask_http, outside.address, 80, "unknown.example.org")["status"] == 200)
    eventually(lambda: "error" not in within(sleep, ask_tcp, outside.address, TCP, "hello"))


@pytest.mark.parametrize("address", ["own", "loopback"])
def test_a_pod_to_itself_by_its_address(stage: MeshStage, address: str) -> None:
    """Past Envoy."""
    httpbin = stage.httpbin
    wanted = httpbin.address if address == "own" else httpbin.loopback
    with stage.observing() as seen:
        reply = within(httpbin, ask_http, wanted, HTTP)
    assert (reply["name"], reply["peer"]) == ("httpbin-v1", wanted)
    assert "x-forwarded-client-cert" not in reply["headers"]
    assert seen.moved(httpbin, 3)


def test_a_pod_to_itself_through_its_service(stage: MeshStage) -> None:
    """Out and in again, both times through the same Envoy, which has to prove to itself who it is."""
    httpbin = stage.httpbin
    with stage.observing() as seen:
        reply = within(httpbin, ask_http, stage.vips[0], 8000, "httpbin:8000")
    assert is_between(reply, "httpbin", "httpbin")
    assert reply["peer"] == "127.0.0.6"
    assert seen.moved(httpbin, 9, 2, 1)
    client, server = seen.line(httpbin, outbound(8000)), seen.line(httpbin, inbound(HTTP))
    assert client.request_id == server.request_id


def test_a_port_of_the_pod_that_no_service_has(stage: MeshStage) -> None:
    sleep, httpbin = stage.sleep, stage.httpbin
    with stage.observing() as seen:
        reply = within(sleep, ask_http, httpbin.address, STRAY)
    assert (reply["name"], reply["peer"]) == ("httpbin-v1", "127.0.0.6")
    assert "x-forwarded-client-cert" not in reply["headers"]
    assert seen.moved(sleep, 9, 4)
    assert seen.moved(httpbin, 1)
    assert seen.line(sleep, "PassthroughCluster").upstream_host == f"{httpbin.address}:{STRAY}"
    assert seen.line(httpbin, "InboundPassthroughClusterIpv4").upstream_host == f"{httpbin.address}:{STRAY}"


@pytest.mark.parametrize("name", demo_dumps.PODS)
def test_the_views_show_what_was_recorded_of_such_a_stage(stage: MeshStage, name: str) -> None:
    """So that the record, whose tables a unit test compares to the letter, is of today's mesh."""
    pod = stage.pods[name]
    if UPDATE:
        demo_dumps.update(pod)
    found = demo_dumps.answers(pod)
    shown = demo_dumps.tables(found["config_dump.json"], found["clusters.json"])
    assert demo_dumps.rows(shown["all.txt"]) == demo_dumps.rows(demo_dumps.recorded(name, "all.txt"))


def test_who_runs_and_what_the_rules_are(stage: MeshStage) -> None:
    for pod in (stage.sleep, stage.httpbin):
        (envoy,) = pod.envoys
        assert ids_of(envoy) == [(PROXY_USER,) * 4, (PROXY_USER,) * 4]
        done = interception_status(pod)
        assert done.returncode == 0, done.stdout
        assert done.stdout.startswith("what is there is what these flags want")


def ids_of(pid: int) -> list[tuple[int, ...]]:
    """Of user and group, each four: real, effective, saved, of files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [tuple(map(int, line.split()[1:])) for line in lines if line.startswith(("Uid:", "Gid:"))]


@pytest.mark.parametrize(
    ("mode", "families"),
    [
        ("REDIRECT", ("IPv6",)),
        ("REDIRECT", ("IPv4", "IPv6")),
        ("TPROXY", ("IPv4",)),
        ("TPROXY", ("IPv6", "IPv4")),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_families_and_modes(mode: str, families: tuple[str, ...]) -> None:
    """HTTP and TCP to the service's address of each family; the pod behind it has both, and any may be chosen.

    With TPROXY the application sees who its client's Envoy is, with REDIRECT its own Envoy. And there, Envoy's user is
    root, so that what it sends through lo matches rule 3, and not 1 or 2: to the application it does not matter, and to
    itself the rules of mangle take it in again.
    """
    envoy_binary()
    to_application, to_itself = (1, 2) if mode == "REDIRECT" else (3, 3)
    with mesh_stage(*families, mode=mode) as stage:
        sleep, httpbin, outside = stage.sleep, stage.httpbin, stage.outside
        for vip, own, stranger in zip(stage.vips, httpbin.addresses, outside.addresses, strict=True):
            for ask, service_port, port in ((ask_http, 8000, HTTP), (ask_tcp, 9002, TCP)):
                with stage.observing() as seen:
                    reply = within(sleep, ask, vip, service_port, "httpbin:8000")
                assert seen.moved(sleep, 9, 4)
                assert seen.moved(httpbin, to_application)
                client, server = seen.line(sleep, outbound(service_port)), seen.line(httpbin, inbound(port))
                assert client.upstream_local_address == server.downstream_remote_address
                assert server.requested_server_name == f"outbound_.{service_port}_._.{HOST}"
                assert reply["peer"] == source(mode, server, sleep), server.text
                assert ask is ask_tcp or passed_both(stage, reply)
            assert_to_itself(stage, own.ip, vip, to_application, to_itself)
            with stage.observing() as seen:
                reply = within(outside, ask_http, own.ip, HTTP)
            assert seen.moved(httpbin, to_application)
            assert reply["peer"] == (stranger.ip if mode == "TPROXY" else PASSTHROUGH_SOURCE[own.is_v6])
            with stage.observing() as seen:
                reply = within(sleep, ask_http, own.ip, STRAY)
            assert seen.moved(httpbin, to_application)
            passthrough = f"InboundPassthroughClusterIpv{6 if own.is_v6 else 4}"
            assert reply["peer"] == source(mode, seen.line(httpbin, passthrough), sleep)
        for pod in (sleep, httpbin):
            assert interception_status(pod).returncode == 0


def source(mode: str, server: AccessLogLine, client: Pod) -> str:
    """Whom the application takes for its client."""
    is_v6 = server.upstream_host.startswith("[")
    addresses = [address.ip for address in client.addresses if address.is_v6 == is_v6]
    return addresses[0] if mode == "TPROXY" else PASSTHROUGH_SOURCE[is_v6]


def assert_to_itself(stage: MeshStage, own: str, vip: str, to_application: int, to_itself: int) -> None:
    httpbin = stage.httpbin
    with stage.observing() as seen:
        reply = within(httpbin, ask_http, own, HTTP)
    assert (reply["name"], reply["peer"]) == ("httpbin-v1", own)
    assert "x-forwarded-client-cert" not in reply["headers"]
    assert seen.moved(httpbin, 3)
    with stage.observing() as seen:
        reply = within(httpbin, ask_http, vip, 8000, "httpbin:8000")
    assert is_between(reply, "httpbin", "httpbin")
    assert seen.moved(httpbin, 9, to_itself, to_application)
