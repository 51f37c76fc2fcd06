"""The ADS proxy between a real gRPC client and a fake istiod: bytes, order, ends, replacement."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilot_agent.xds import proxy as proxy_module
from pilot_agent.xds.intercept import HEALTH, LISTENER, PROXY_CONFIG
from pilot_agent.xds.proxy import process_of
from pilot_agent.xds.wire import SOTW_RESPONSE, Envelope, Fields, envelope
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS, cluster
from tests.support.fake_istiod import FakeIstiod
from tests.support.ports import free_port
from tests.unit.xds.proxied import Proxied

LATER_TYPE = "type.googleapis.com/envoy.of.a.later.Version"


@pytest.fixture
def istiod(tmp_path: Path) -> Iterator[FakeIstiod]:
    fake = FakeIstiod(tmp_path, is_plaintext=True).start()
    yield fake
    fake.stop()


@pytest.fixture
def proxied(tmp_path: Path, istiod: FakeIstiod) -> Iterator[Proxied]:
    running = Proxied(tmp_path, istiod.address)
    yield running
    running.stop()


def only(istiod: FakeIstiod) -> Any:
    eventually(lambda: len(istiod.ads.open_streams()) == 1)
    return istiod.ads.open_streams()[0]


def test_requests_and_their_order_survive_bit_for_bit(proxied: Proxied, istiod: FakeIstiod) -> None:
    client = proxied.stream()
    sent = [client.ask(CDS)]
    unknown = b"\xc2\x3e\x05hello"  # a field 1000, of a version of Envoy that is not there yet
    for number in range(50):
        plain = discovery_pb2.DiscoveryRequest(type_url=f"t{number}").SerializeToString()
        sent.append(client.send(plain + unknown))
    eventually(lambda: len(only(istiod).raw) == len(sent))
    assert only(istiod).raw == sent


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=5000))
def test_resources_of_any_type_survive_bit_for_bit(proxied: Proxied, istiod: FakeIstiod, value: bytes) -> None:
    istiod.ads.set(LATER_TYPE, "x", value)
    client = proxied.stream()
    client.ask(LATER_TYPE)
    response = discovery_pb2.DiscoveryResponse.FromString(client.next())
    assert [each.value for each in response.resources] == [value]
    client.cancel()


def test_a_large_push_arrives_whole(proxied: Proxied, istiod: FakeIstiod) -> None:
    istiod.ads.huge(20_000_000)
    client = proxied.stream()
    client.ask(CDS)
    assert len(client.next()) >= 20_000_000


def test_pushes_arrive_in_order_and_none_is_lost(proxied: Proxied, istiod: FakeIstiod) -> None:
    client = proxied.stream()
    client.ask(CDS)
    client.next()
    for number in range(100):
        istiod.ads.set(CDS, f"c{number}", cluster(f"c{number}", 80))
    counts = [len(discovery_pb2.DiscoveryResponse.FromString(client.next()).resources) for _ in range(100)]
    assert counts == list(range(1, 101))
    assert proxied.account.responses == 101


@pytest.mark.parametrize("is_delta", [False, True], ids=["sotw", "delta"])
def test_a_new_stream_of_a_process_ends_its_old_one_well(proxied: Proxied, istiod: FakeIstiod, is_delta: bool) -> None:
    first = proxied.stream()
    first.ask(CDS)
    first.next()
    second = proxied.stream(is_delta=is_delta)
    second.ask(CDS)
    assert first.ended() == (grpc.StatusCode.OK, "")
    second.next()
    assert only(istiod).kind == ("delta" if is_delta else "sotw")


def test_what_istiod_says_at_the_end_is_passed_on_word_for_word(proxied: Proxied, istiod: FakeIstiod) -> None:
    client = proxied.stream()
    client.ask(CDS)
    client.next()
    istiod.ads.end_streams("resource_exhausted", "too many of you")
    assert client.ended() == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many of you")
    assert "RESOURCE_EXHAUSTED: too many of you" in str(proxied.account.problem)


def test_an_istiod_that_is_not_there_is_unavailable_with_the_reason(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    proxied = Proxied(tmp_path, *(f"localhost:{port}" for port in ports))
    try:
        client = proxied.stream()
        client.ask(CDS)
        code, details = client.ended()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert all(f"istiod localhost:{port}: " in details for port in ports)
        assert "refused" in details
        assert proxied.account.connection_failures == 1
        assert proxied.account.problem == details
    finally:
        proxied.stop()


def test_a_request_over_the_limit_ends_the_stream(tmp_path: Path, istiod: FakeIstiod) -> None:
    proxied = Proxied(tmp_path, istiod.address, largest_request=1000)
    try:
        client = proxied.stream()
        client.ask(CDS, "x" * 2000)
        assert client.ended()[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        client = proxied.stream()
        client.ask(CDS)
        client.next()
    finally:
        proxied.stop()


def test_a_response_that_is_no_message_ends_its_stream_with_words(
    proxied: Proxied, istiod: FakeIstiod, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(message: bytes, fields: Fields) -> Envelope:
        if fields is SOTW_RESPONSE:
            raise ValueError("a field is longer than its message")
        return envelope(message, fields)

    monkeypatch.setattr(proxy_module, "envelope", refusing)
    client = proxied.stream()
    client.ask(CDS)
    code, details = client.ended()
    assert code is grpc.StatusCode.INTERNAL
    assert details == f"istiod {istiod.address} sent what is no xDS response: a field is longer than its message"
    monkeypatch.undo()
    again = proxied.stream()
    again.ask(CDS)
    again.next()
    assert proxied.account.problem is None


def test_roots_of_istiod_are_taken_and_acknowledged_by_the_agent(proxied: Proxied, istiod: FakeIstiod) -> None:
    istiod.ads.set(PROXY_CONFIG, "", b"\x92\x02\x04root")
    client = proxied.stream()
    client.ask(LISTENER)
    client.next()
    eventually(lambda: proxied.bundles == [b"\x92\x02\x04root"])
    eventually(lambda: len(only(istiod).requests(PROXY_CONFIG)) == 2)
    asked, accepted = only(istiod).requests(PROXY_CONFIG)
    assert asked.response_nonce == "" and accepted.response_nonce != ""
    assert not accepted.HasField("error_detail")
    assert [each.type_url for each in only(istiod).frames][:2] == [LISTENER, PROXY_CONFIG]


def test_health_is_told_behind_the_listeners_and_again_on_the_next_stream(proxied: Proxied, istiod: FakeIstiod) -> None:
    proxied.report(is_healthy=False, message="no answer")
    client = proxied.stream()
    client.ask(CDS)
    client.next()
    assert only(istiod).requests(HEALTH) == [], "not before istiod knows the workload"
    client.ask(LISTENER)
    eventually(lambda: only(istiod).requests(HEALTH))
    assert only(istiod).requests(HEALTH)[0].error_detail.message == "no answer"
    proxied.report(is_healthy=True)
    eventually(lambda: len(only(istiod).requests(HEALTH)) == 2)
    assert not only(istiod).requests(HEALTH)[1].HasField("error_detail")
    client.cancel()
    eventually(lambda: istiod.ads.open_streams() == [])
    again = proxied.stream()
    again.ask(LISTENER)
    eventually(lambda: len(only(istiod).requests(HEALTH)) == 1)


@pytest.mark.parametrize(
    ("peer", "process"), [("unix-abstract:pilot-agent.12.3.4.5", 12), ("unix:", 0), ("ipv4:1.2.3.4:5", 0), ("", 0)]
)
def test_the_process_behind_a_connection(peer: str, process: int) -> None:
    assert process_of(peer) == process
