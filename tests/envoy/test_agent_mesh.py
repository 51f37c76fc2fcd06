"""Mesh mode: a real Envoy gets its configuration from a fake istiod through the agent, and loses nothing on the way."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.agents import AgentProcess
from tests.support.applications import application
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS, EDS, LDS, endpoints, listener
from tests.support.fake_istiod import FakeIstiod
from tests.support.identities import gate, notes, prepare, write_token
from tests.support.load import load
from tests.support.meshes import get, in_mesh, one_service, open_descriptors, pushes_arrive, stream_of, xds
from tests.support.ports import free_port

RESTARTS = 50
ENDS = ("cancelled", "error")
MakeAgent = Callable[..., AgentProcess]


@pytest.mark.parametrize("is_delta", ["true", "false"])
def test_envoy_becomes_ready_and_serves_what_istiod_pushes(
    agent: MakeAgent, istiod: FakeIstiod, app: int, is_delta: str
) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    more = {"ISTIO_META_CLUSTER_ID": "Kubernetes", "XDS_HEADER_X_ENV": "prod"}
    running = in_mesh(agent, istiod, ISTIO_DELTA_XDS=is_delta, **more).start().until_ready()
    assert get(port) == "one"
    stream = stream_of(istiod)
    assert stream.kind == ("delta" if is_delta == "true" else "sotw")
    assert stream.metadata["authorization"].startswith("Bearer ")
    assert (stream.metadata["clusterid"], stream.metadata["x_env"]) == ("Kubernetes", "prod")
    assert stream.frames[0].node.id.startswith("sidecar~")
    assert [frame for frame in stream.frames[1:] if frame.node.id] == [], "the node goes in the first message only"
    (told,) = xds(running)["streams"]
    assert told["types"]["envoy.config.listener.v3.Listener"]["nack"] is None

    def is_answered() -> bool:
        types = xds(running)["streams"][0]["types"].values()
        return all(each["answered_nonce"] == each["nonce"] for each in types)

    eventually(is_answered)
    with application("two") as other:
        istiod.ads.set(EDS, "app", endpoints("app", other.port))
        eventually(lambda: get(port) == "two")
    assert running.metric("istio_agent_xds_proxy_responses") >= 5
    assert running.stop() == 0
    assert not (running.config_path / "XDS").exists()


def test_a_refused_resource_leaves_the_last_one_and_its_words_are_shown(
    agent: MakeAgent, istiod: FakeIstiod, app: int
) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    running = in_mesh(agent, istiod).start().until_ready()
    broken = listener("app-listener", port, "app-route")
    broken.filter_chains[0].filters[0].typed_config.type_url = "type.googleapis.com/no.such.Filter"
    istiod.ads.set(LDS, "app-listener", broken)
    eventually(lambda: xds(running)["streams"][0]["types"]["envoy.config.listener.v3.Listener"]["nack"])
    assert "no.such.Filter" in xds(running)["streams"][0]["types"]["envoy.config.listener.v3.Listener"]["nack"]
    assert running.lines("Envoy refuses Listener: ")
    assert [frame for frame in stream_of(istiod).requests(LDS) if frame.HasField("error_detail")], (
        "and istiod hears them"
    )
    assert get(port) == "one"
    istiod.ads.set(LDS, "app-listener", listener("app-listener", port, "app-route"))
    eventually(lambda: not xds(running)["streams"][0]["types"]["envoy.config.listener.v3.Listener"]["nack"])
    assert running.stop() == 0


def test_an_istiod_that_is_absent_at_the_start_is_found_when_it_comes(
    agent: MakeAgent, istiod: FakeIstiod, app: int
) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    istiod.stop()
    running = in_mesh(agent, istiod).start()

    def is_told() -> bool:
        return f"istiod {istiod.address}: " in running.fetch("/healthz/ready")[1]

    eventually(lambda: is_told() or f"istiod {istiod.address}" in running.fetch("/healthz/ready?verbose")[1], within=15)
    assert running.metric("istio_agent_istiod_connection_failures") >= 1
    istiod.start()
    running.until_ready(within=40)
    assert get(port) == "one"
    assert xds(running)["problem"] is None
    assert running.stop() == 0


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "UNAVAILABLE", "INTERNAL"])
def test_what_istiod_says_at_the_end_of_a_stream_is_told_and_overcome(
    agent: MakeAgent, istiod: FakeIstiod, app: int, code: str
) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    running = in_mesh(agent, istiod).start().until_ready()
    istiod.ads.refuse = code
    istiod.ads.end_streams(code, "not with us")
    eventually(lambda: f"{code}" in str(xds(running)["problem"]), within=20)
    assert any(code in note for note in notes(running))
    assert running.is_ready(), "Envoy keeps what it has"
    assert get(port) == "one"
    istiod.ads.refuse = None
    eventually(istiod.ads.open_streams, within=30)
    eventually(lambda: xds(running)["problem"] is None, within=10)
    assert running.metric('istio_agent_istiod_connection_terminations{type="error"}') >= 1
    assert running.stop() == 0


def test_no_request_fails_while_istiod_restarts_fifty_times(agent: MakeAgent, istiod: FakeIstiod, app: int) -> None:
    """Each of the fifty is a real one: the server's end, with every connection to it, and a new server on its port.

    What takes the time is Envoy's pause before it comes back: at random up to 0.5 s, and twice that for each attempt
    that brought it nothing, which is why a stream is left alone until Envoy has taken something from it.
    """
    port = free_port()
    one_service(istiod.ads, port, app)
    running = in_mesh(agent, istiod).start().until_ready()
    with load(port, "localhost", "one", keeping=1, opening=1) as requests:
        requests.go_on()
        descriptors = open_descriptors(running)
        for _ in range(RESTARTS):
            before = stream_of(istiod)
            istiod.stop()
            eventually(lambda before=before: not before.is_open)  # type: ignore[misc]
            istiod.start()
            eventually(
                lambda: any(each.answers_of_client(LDS, is_nack=False) for each in istiod.ads.open_streams()), within=40
            )
        requests.go_on()
        assert requests.is_on
    assert requests.failures == []
    pushes_arrive(istiod, running)
    assert len(istiod.ads.streams) >= RESTARTS + 1
    assert xds(running)["problem"] is None and len(xds(running)["streams"]) == 1
    ends = [running.metric(f'istio_agent_istiod_connection_terminations{{type="{kind}"}}') for kind in ENDS]
    assert sum(ends) >= RESTARTS
    assert open_descriptors(running) < descriptors + RESTARTS / 2
    assert running.is_ready()
    assert running.stop() == 0


def has_listeners(istiod: FakeIstiod) -> bool:
    """Envoy has taken them on a stream that is open."""
    return any(each.answers_of_client(LDS, is_nack=False) for each in istiod.ads.open_streams())


def test_a_new_token_is_taken_by_the_next_stream(agent: MakeAgent, istiod: FakeIstiod, app: int) -> None:
    one_service(istiod.ads, free_port(), app)
    istiod.requires_token = "the-second-token-for-this-stream"
    running = in_mesh(agent, istiod).start()
    eventually(lambda: "UNAUTHENTICATED" in str(xds(running)["problem"]), within=15)
    assert "UNAUTHENTICATED" in running.fetch("/healthz/ready")[1]
    write_token(running, "the-second-token-for-this-stream")
    running.until_ready(within=40)
    assert gate(running) is None
    assert running.stop() == 0


def test_a_hot_restart_keeps_a_stream_for_each_envoy(agent: MakeAgent, istiod: FakeIstiod, app: int) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    running = in_mesh(agent, istiod)
    running.write_mesh(drainDuration="3s")
    running.start().until_ready()
    before = stream_of(istiod)
    running.write_mesh(concurrency=2)
    eventually(lambda: running.lines("has taken over"), within=20)
    newer = [stream for stream in istiod.ads.open_streams() if stream is not before]
    assert len(newer) == 1
    assert get(port) == "one"
    pids = {each["envoy_pid"] for each in xds(running)["streams"]}
    assert len(pids) == len(xds(running)["streams"]), "one stream for each process"
    eventually(lambda: istiod.ads.open_streams() == newer, within=20)
    assert running.stop() == 0


def test_what_nobody_takes_is_dropped_and_told_once(agent: MakeAgent, istiod: FakeIstiod, app: int) -> None:
    port = free_port()
    istiod.ads.unasked = "type.googleapis.com/istio.workload.Address"
    one_service(istiod.ads, port, app)
    running = in_mesh(agent, istiod).start().until_ready()
    assert get(port) == "one"
    assert xds(running)["dropped"] == {"type.googleapis.com/istio.workload.Address": 1}
    assert len(running.lines("dropped what istiod sent of type.googleapis.com/istio.workload.Address")) == 1
    assert stream_of(istiod).requests("type.googleapis.com/istio.workload.Address") == []
    assert running.stop() == 0


def test_several_addresses_are_tried_in_order(agent: MakeAgent, istiod: FakeIstiod, app: int) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    running = in_mesh(agent, istiod)
    running.write_mesh(discoveryAddress=f"localhost:{free_port()}, {istiod.address}")
    began = time.monotonic()
    running.start().until_ready()
    assert xds(running)["streams"][0]["istiod"] == istiod.address, time.monotonic() - began
    assert get(port) == "one"
    assert running.stop() == 0


def test_plaintext_only_where_it_was_asked_for(agent: MakeAgent, tmp_path: Path, app: int) -> None:
    istiod = FakeIstiod(tmp_path, is_plaintext=True).start()
    try:
        port = free_port()
        one_service(istiod.ads, port, app)
        running = prepare(agent(binary=envoy_binary()))
        running.write_mesh(discoveryAddress=istiod.address, controlPlaneAuthPolicy="NONE")
        running.start().until_ready()
        assert get(port) == "one"
        assert running.stop() == 0
    finally:
        istiod.stop()


def test_the_types_go_through_in_the_order_of_envoy(agent: MakeAgent, istiod: FakeIstiod, app: int) -> None:
    one_service(istiod.ads, free_port(), app)
    running = in_mesh(agent, istiod, PROXY_CONFIG_XDS_AGENT="true").start().until_ready()
    eventually(lambda: stream_of(istiod).requests("type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig"))
    types = [frame.type_url for frame in stream_of(istiod).frames]
    assert types[0] == CDS
    assert types.index("type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig") > types.index(LDS)
    assert running.stop() == 0
