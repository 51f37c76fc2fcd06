"""The ADS proxy between a real gRPC client and a fake istiod: what passes, what is told of it, what is bounded.

The order of requests and the ends of streams are `test_order`'s.
"""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilot_agent.xds import proxy as proxy_module
from pilot_agent.xds.intercept import LISTENER, PROXY_CONFIG
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS, cluster
from tests.support.fake_istiod import FakeIstiod
from tests.support.ports import free_port
from tests.unit.xds.proxied import Proxied

LATER_TYPE = "type.googleapis.com/envoy.of.a.later.Version"


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


def test_a_request_over_the_limit_ends_the_stream_with_words(tmp_path: Path, istiod: FakeIstiod) -> None:
    proxied = Proxied(tmp_path, istiod.address, largest_request=1000)
    try:
        client = proxied.stream()
        client.ask(CDS)
        client.next()
        size = len(client.ask(CDS, "x" * 1500))
        words = f"a request of Envoy for Cluster has {size} bytes, ISTIO_GPRC_MAXRECVMSGSIZE allows 1000"
        assert client.ended() == (grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        assert (proxied.account.problem, proxied.account.envoy_ends) == (words, {"error": 1})
        assert f"warn {words}" in proxied.log.lines
        assert all(words not in str(frame) for frame in istiod.ads.requests(CDS)), "istiod hears nothing of it"
        client = proxied.stream()
        client.ask(CDS, "x" * 2500)
        code, details = client.ended()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details, "it is not even read"
        client = proxied.stream()
        client.ask(CDS)
        client.next()
        assert proxied.account.problem is None
    finally:
        proxied.stop()


def test_a_limit_below_zero_is_none(tmp_path: Path, istiod: FakeIstiod) -> None:
    proxied = Proxied(tmp_path, istiod.address, largest_request=-1)
    try:
        client = proxied.stream()
        client.ask(CDS, "x" * 5_000_000)
        client.next()
    finally:
        proxied.stop()


def test_an_istiod_that_takes_the_stream_and_says_nothing_is_a_problem_until_it_does(
    proxied: Proxied, istiod: FakeIstiod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "SILENT_AFTER_S", 0.05)
    istiod.ads.hang = True
    client = proxied.stream()
    client.ask(CDS)
    eventually(lambda: proxied.account.problem)
    assert str(proxied.account.problem).startswith(f"istiod {istiod.address} has not answered since 20")
    for _ in range(3):
        client.ask(LISTENER)
    eventually(lambda: len(only(istiod).requests(LISTENER)) == 3)
    istiod.ads.send_raw(b"")
    eventually(lambda: proxied.account.problem is None)
    assert len([line for line in proxied.log.lines if "has not answered" in line]) == 1


def test_nobody_is_waited_for_who_was_asked_nothing_or_has_answered(
    proxied: Proxied, istiod: FakeIstiod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "SILENT_AFTER_S", 1000.0)
    client = proxied.stream()
    eventually(lambda: [each.is_connected for each in proxied.account.streams] == [True])
    assert proxied.do(timers) == []
    client.ask(CDS)
    client.next()
    assert proxied.do(timers) == []
    istiod.ads.hang = True
    client = proxied.stream()
    client.ask(CDS)
    eventually(lambda: len(proxied.do(timers)) == 1)
    client.cancel()
    eventually(lambda: proxied.do(timers) == [])


def timers() -> list[Any]:
    """Of the running loop: those that would tell a problem."""
    loop: Any = asyncio.get_running_loop()
    return [each for each in loop._scheduled if not each.cancelled() and "_say_problem" in repr(each)]


@pytest.fixture
def refusing(proxied: Proxied, istiod: FakeIstiod) -> "Refusing":
    istiod.ads.set(CDS, "c", cluster("c", 80))
    return Refusing(proxied, istiod)


class Refusing:
    """An Envoy that answers pushes of clusters."""

    def __init__(self, proxied: Proxied, istiod: FakeIstiod) -> None:
        self.proxied, self._istiod = proxied, istiod
        self.client = proxied.stream()
        self.client.ask(CDS)
        self.nonce = self.client.next_message().nonce

    def push(self) -> None:
        self._istiod.ads.push(CDS)
        self.nonce = self.client.next_message().nonce

    def answer(self, words: str | None) -> None:
        answered = len(self._istiod.ads.acks(CDS)) + len(self._istiod.ads.nacks(CDS))
        message = discovery_pb2.DiscoveryRequest(type_url=CDS, response_nonce=self.nonce)
        if words is not None:
            message.error_detail.code, message.error_detail.message = 13, words
        self.client.send(message)
        eventually(lambda: len(self._istiod.ads.acks(CDS)) + len(self._istiod.ads.nacks(CDS)) == answered + 1)

    def told(self) -> list[str]:
        return [line for line in self.proxied.log.lines if line.endswith(" again") or "Envoy refuses" in line]


def test_a_refusal_is_told_once_until_its_words_change_and_counted_each_time(refusing: Refusing) -> None:
    for _ in range(50):
        refusing.answer("no such\n  filter")
        refusing.push()
    assert refusing.told() == ["warn Envoy refuses Cluster: no such filter"]
    refusing.answer("no such cluster")
    account = refusing.proxied.account
    assert (account.refusals[CDS], account.refused) == (51, {CDS: "no such cluster"})
    assert account.streams[0].types[CDS].nack == "no such cluster"
    refusing.push()
    refusing.answer(None)
    assert (account.refused, account.streams[0].types[CDS].nack) == ({}, None)
    refusing.push()
    refusing.answer("no such cluster")
    assert refusing.told()[1:] == [
        "warn Envoy refuses Cluster: no such cluster",
        "info Envoy takes Cluster again",
        "warn Envoy refuses Cluster: no such cluster",
    ]


def test_asking_for_more_with_the_nonce_of_a_refused_response_accepts_nothing(refusing: Refusing) -> None:
    refusing.answer("no such filter")
    refusing.answer(None)
    assert refusing.proxied.account.streams[0].types[CDS].nack == "no such filter"
    assert refusing.proxied.account.refused == {CDS: "no such filter"}


def test_a_response_that_is_no_message_ends_its_stream_with_words(proxied: Proxied, istiod: FakeIstiod) -> None:
    client = proxied.stream()
    client.ask(CDS)
    client.next()
    istiod.ads.send_raw(b"\x0a\x7fshort")
    code, details = client.ended()
    assert code is grpc.StatusCode.INTERNAL
    assert details == f"istiod {istiod.address} sent what is no xDS response: field 1 is longer than its message"
    assert proxied.account.problem == details
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
