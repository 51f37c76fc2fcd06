"""Mesh mode when istiod, the network or what is sent is bad: Envoy keeps its last configuration and serves, the agent
says why there is nothing new, and all is well again by itself once the fault is over.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.support.ads_client import AdsClient
from tests.support.agents import AgentProcess
from tests.support.authority import Authority
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS, LDS, cluster, listener
from tests.support.fake_istiod import FakeIstiod
from tests.support.identities import TOKEN, described, notes, write_token
from tests.support.meshes import get, in_mesh, one_service, open_descriptors, pushes_arrive, stream_of, type_state, xds
from tests.support.ports import free_port
from tests.support.stalling import Stalling

MakeAgent = Callable[..., AgentProcess]
PROXY_CONFIG = "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig"


@pytest.fixture
def port(istiod: FakeIstiod, app: int) -> int:
    """Of the one service, which says `one`."""
    found = free_port()
    one_service(istiod.ads, found, app)
    return found


@pytest.fixture
def network(istiod: FakeIstiod) -> Iterator[Stalling]:
    """What stands between the agent and istiod."""
    with Stalling(int(istiod.address.rpartition(":")[2])) as stalling:
        yield stalling


def config_gate(running: AgentProcess) -> str:
    """Why there is no configuration; OSError where nobody answers, or where there is one."""
    gates = json.loads(running.fetch("/healthz/ready", Accept="application/json")[1])["gates"]
    reason = next(each["reason"] for each in gates if each["name"] == "config")
    if reason is None:
        raise OSError("the gate is open")
    return str(reason)


def is_told(running: AgentProcess, words: str) -> bool:
    """As a note, while Envoy serves what it has."""
    return any(note.startswith("istiod: ") and words in note for note in notes(running))


def is_well(running: AgentProcess, istiod: FakeIstiod) -> bool:
    return xds(running)["problem"] is None and bool(istiod.ads.open_streams())


def bad_listener(port: int, number: int) -> Any:
    made = listener("app-listener", port, "app-route")
    made.filter_chains[0].filters[0].typed_config.type_url = "type.googleapis.com/no.such.Filter"
    made.per_connection_buffer_limit_bytes.value = 1000 + number
    return made


def bad_cluster(number: int) -> Any:
    made = cluster("bad", 1)
    made.connect_timeout.seconds = -1
    made.per_connection_buffer_limit_bytes.value = 1000 + number
    return made


def test_an_istiod_that_accepts_connections_and_never_speaks_tls(
    agent: MakeAgent, istiod: FakeIstiod, network: Stalling, port: int
) -> None:
    network.stall()
    running = in_mesh(agent, istiod)
    running.write_mesh(discoveryAddress=network.address)
    running.start()
    words = f"istiod {network.address}: no connection within 5 s"
    eventually(lambda: words in config_gate(running), within=20)
    assert xds(running)["problem"] == f"{words}: timed out at: TLS with {network.address}"
    assert running.metric("istio_agent_istiod_connection_failures") >= 1
    network.resume()
    running.until_ready(within=40)
    assert get(port) == "one"
    eventually(lambda: is_well(running, istiod))
    network.stall()
    network.cut()
    eventually(lambda: is_told(running, words), within=30)
    assert running.is_ready() and get(port) == "one"
    network.resume()
    eventually(lambda: is_well(running, istiod), within=40)
    pushes_arrive(istiod, running)
    assert running.stop() == 0


def test_an_istiod_that_reads_and_never_answers(agent: MakeAgent, istiod: FakeIstiod, port: int) -> None:
    istiod.ads.hang = True
    running = in_mesh(agent, istiod).start()
    words = f"istiod {istiod.address} has not answered since "
    eventually(lambda: words in config_gate(running), within=20)
    assert len(running.lines(words)) == 2, "once as it came up, once as the reason for not being ready"
    assert xds(running)["streams"][0]["is_connected"]
    istiod.ads.hang = False
    istiod.ads.end_streams()
    running.until_ready(within=30)
    assert get(port) == "one"
    istiod.ads.hang = True
    istiod.ads.end_streams()
    eventually(lambda: is_told(running, words), within=30)
    assert running.is_ready() and get(port) == "one"
    istiod.ads.hang = False
    istiod.ads.end_streams()
    eventually(lambda: is_well(running, istiod), within=30)
    pushes_arrive(istiod, running)
    assert running.stop() == 0


def test_a_connection_whose_packets_vanish(agent: MakeAgent, istiod: FakeIstiod, network: Stalling, port: int) -> None:
    istiod.stop()
    istiod.shortest_ping_s = 0.1
    istiod.start()
    running = in_mesh(agent, istiod, GRPC_KEEPALIVE_INTERVAL="1s", GRPC_KEEPALIVE_TIMEOUT="1s")
    running.write_mesh(discoveryAddress=network.address)
    running.start().until_ready()
    before = stream_of(istiod)
    network.stall()
    words = f"istiod {network.address} ended the stream: UNAVAILABLE: "
    eventually(lambda: is_told(running, words) and is_told(running, "keepalive watchdog timeout"), within=20)
    assert before.is_open, "istiod knows nothing of it"
    assert running.is_ready() and get(port) == "one"
    network.resume()
    eventually(lambda: is_well(running, istiod) and not before.is_open, within=40)
    pushes_arrive(istiod, running)
    assert running.stop() == 0


@pytest.mark.parametrize("is_delta", ["true", "false"], ids=["delta", "sotw"])
def test_garbage_for_envoy_is_refused_by_envoy_in_its_own_words(
    agent: MakeAgent, istiod: FakeIstiod, port: int, is_delta: str
) -> None:
    running = in_mesh(agent, istiod, ISTIO_DELTA_XDS=is_delta).start().until_ready()
    for type_url in (CDS, LDS):
        istiod.ads.garbage = type_url
        istiod.ads.push(type_url)
        eventually(lambda: istiod.ads.nacks(type_url))  # noqa: B023
        (refusal,) = istiod.ads.nacks(type_url)
        short = type_url.removeprefix("type.googleapis.com/")
        assert type_state(running, type_url)["nack"] == refusal.error_detail.message != ""
        assert xds(running)["refused"][short]["times"] == 1
        assert running.is_ready() and get(port) == "one"
        istiod.ads.garbage = None
        istiod.ads.push(type_url)
        eventually(lambda: type_state(running, type_url)["nack"] is None)  # noqa: B023
        assert xds(running)["refused"][short] == {"times": 1, "now": None}
    assert len(istiod.ads.streams) == 1, "the stream has lived through it"
    assert get(port) == "one"
    assert running.stop() == 0


def test_garbage_for_the_agent_is_refused_by_the_agent_and_its_roots_stay(
    agent: MakeAgent, istiod: FakeIstiod, port: int
) -> None:
    istiod.ads.set(PROXY_CONFIG, "", with_roots(Authority("root 2").pem))
    running = in_mesh(agent, istiod, PROXY_CONFIG_XDS_AGENT="true").start().until_ready()
    eventually(lambda: roots(running) == 2)
    istiod.ads.set(PROXY_CONFIG, "", b"\xff\xff\xff no message")
    (refusal,) = eventually(lambda: istiod.ads.nacks(PROXY_CONFIG))
    assert refusal.error_detail.code == 13
    assert refusal.error_detail.message.startswith("it is no istio.mesh.v1alpha1.ProxyConfig: ")
    assert len(running.lines(f"{PROXY_CONFIG} of istiod can't be used, the one before stays: ")) == 1
    assert roots(running) == 2
    istiod.ads.set(PROXY_CONFIG, "", with_roots(Authority("root 2").pem, Authority("root 3").pem))
    eventually(lambda: roots(running) == 3)
    assert len(istiod.ads.streams) == 1 and running.is_ready() and get(port) == "one"
    assert running.stop() == 0


def with_roots(*pems: str) -> bytes:
    """A ProxyConfig with these `ca_certificates_pem`, field 34."""
    encoded = b""
    for pem in pems:
        size = len(pem)  # of two bytes as a varint
        encoded += b"\x92\x02" + bytes([size & 0x7F | 0x80, size >> 7]) + pem.encode()
    return encoded


def roots(running: AgentProcess) -> int:
    """How many Envoy is given to trust."""
    found: int = described(running, "ROOTCA")["roots"]
    return found


def test_a_response_that_is_no_message_at_all(agent: MakeAgent, istiod: FakeIstiod, port: int) -> None:
    running = in_mesh(agent, istiod).start().until_ready()
    for _ in range(3):
        eventually(lambda: is_well(running, istiod), within=30)
        istiod.ads.send_raw(b"\xff\xff\xff no message")
        words = f"istiod {istiod.address} sent what is no xDS response: "
        eventually(lambda: any(each.startswith(words) for each in xds(running)["ended"]))  # noqa: B023
        assert get(port) == "one"
    assert running.metric('istio_agent_istiod_connection_terminations{type="error"}') == 3
    eventually(lambda: is_well(running, istiod), within=30)
    pushes_arrive(istiod, running)
    assert running.stop() == 0


def test_an_envoy_that_refuses_everything(agent: MakeAgent, istiod: FakeIstiod, port: int) -> None:
    running = in_mesh(agent, istiod).start().until_ready()
    descriptors = open_descriptors(running)
    for number in range(100):
        istiod.ads.set(LDS, "app-listener", bad_listener(port, number))
        istiod.ads.set(CDS, "bad", bad_cluster(number))
    eventually(lambda: len(istiod.ads.nacks(LDS)) == len(istiod.ads.nacks(CDS)) == 100, within=20)
    eventually(lambda: is_answered(running))
    told = xds(running)
    for short, words in (
        ("envoy.config.listener.v3.Listener", "no.such.Filter"),
        ("envoy.config.cluster.v3.Cluster", "Expected positive duration"),
    ):
        assert told["refused"][short]["times"] == 100
        assert words in told["refused"][short]["now"]
        assert words in told["streams"][0]["types"][short]["nack"]
        assert all(words in each.error_detail.message for each in istiod.ads.nacks(f"type.googleapis.com/{short}"))
    assert len(running.lines("Envoy refuses Listener: ")) == 1, "the words stay the same"
    assert len(running.lines("Envoy refuses Cluster: ")) == 1
    assert len(istiod.ads.streams) == 1 and open_descriptors(running) < descriptors + 20
    assert running.is_ready() and get(port) == "one"
    istiod.ads.set(LDS, "app-listener", listener("app-listener", port, "app-route"))
    istiod.ads.set(CDS, "bad", cluster("bad", 1))
    eventually(lambda: {each["now"] for each in xds(running)["refused"].values()} == {None})
    assert running.lines("Envoy takes Listener again") and running.lines("Envoy takes Cluster again")
    pushes_arrive(istiod, running)
    assert get(port) == "one"
    assert running.stop() == 0


def is_answered(running: AgentProcess) -> bool:
    """Envoy has said something to all that it was sent."""
    types = xds(running)["streams"][0]["types"].values()
    return all(each["answered_nonce"] == each["nonce"] for each in types)


def test_messages_over_the_limit(agent: MakeAgent, istiod: FakeIstiod, port: int) -> None:
    running = in_mesh(agent, istiod, ISTIO_GPRC_MAXRECVMSGSIZE="1000000").start().until_ready()
    istiod.ads.huge(30_000_000)
    eventually(lambda: "huge::" in running.fetch("/clusters", port=running.ports.admin)[1], within=20)
    assert type_state(running, CDS)["bytes"] > 30_000_000
    assert type_state(running, CDS)["nack"] is None
    with AdsClient(running.config_path / "XDS") as other:
        stream = other.stream(is_delta=True)
        size = len(stream.ask(CDS, "x" * 1_500_000))
        words = f"a request of Envoy for Cluster has {size} bytes, ISTIO_GPRC_MAXRECVMSGSIZE allows 1000000"
        assert stream.ended() == (grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        assert words in xds(running)["ended"]
        assert is_told(running, words)
        assert running.lines(words)
        assert running.metric('istio_agent_envoy_connection_terminations{type="error"}') == 1
    pushes_arrive(istiod, running)
    assert xds(running)["problem"] is None
    assert get(port) == "one"
    assert running.stop() == 0


def test_a_token_that_expires(agent: MakeAgent, istiod: FakeIstiod, port: int) -> None:
    running = in_mesh(agent, istiod).start().until_ready()
    assert stream_of(istiod).token == TOKEN
    istiod.requires_token = "the-token-that-comes-after-the-first"
    istiod.ads.end_streams("unauthenticated", "token expired")
    eventually(lambda: is_told(running, "UNAUTHENTICATED: fake istiod: another token is required"), within=20)
    assert running.is_ready() and get(port) == "one"
    write_token(running, istiod.requires_token)
    eventually(lambda: is_well(running, istiod), within=30)
    assert stream_of(istiod).token == istiod.requires_token
    pushes_arrive(istiod, running)
    assert running.stop() == 0
