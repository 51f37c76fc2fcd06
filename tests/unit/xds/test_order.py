"""What istiod is told, in which order and form: the rules of reference security-xds.md, sections 5.3 to 5.6, held on
the frames that a real gRPC server recorded, with a client of raw bytes in Envoy's place.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from pilot_agent.xds.intercept import HEALTH, LISTENER, NAME_TABLE, PROXY_CONFIG, WORKLOAD
from tests.support.ads_client import AdsStream
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS, EDS, RDS, RecordedStream, cluster
from tests.support.fake_istiod import FakeIstiod
from tests.support.stalling import Stalling
from tests.unit.xds.proxied import Proxied

LDS = LISTENER
ADDRESS = "type.googleapis.com/istio.workload.Address"


class Taken:
    """Handlers that keep what they are given; `error` makes them fail."""

    def __init__(self) -> None:
        self.resources: list[tuple[str, bytes]] = []
        self.error: type[Exception] | None = None

    def handlers(self, *types: str) -> dict[str, Any]:
        return {each: lambda resource, each=each: self.take(each, resource) for each in types}

    def take(self, type_url: str, resource: bytes) -> None:
        if self.error is not None:
            raise self.error("no table")
        self.resources.append((type_url, resource))


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def proxied(tmp_path: Path, istiod: FakeIstiod, taken: Taken) -> Iterator[Proxied]:
    """One that takes name tables too."""
    running = Proxied(tmp_path, istiod.address, handlers=taken.handlers(NAME_TABLE, PROXY_CONFIG))
    yield running
    running.stop()


def only(istiod: FakeIstiod) -> RecordedStream:
    eventually(lambda: len(istiod.ads.open_streams()) == 1)
    return istiod.ads.open_streams()[0]


def own(type_url: str, is_delta: bool, error: str | None = None) -> bytes:
    """A request of the agent's own, as the reference has it: nothing but this."""
    message: Any = discovery_pb2.DeltaDiscoveryRequest() if is_delta else discovery_pb2.DiscoveryRequest()
    message.type_url = type_url
    if error is not None:
        message.error_detail.code, message.error_detail.message = 13, error
    encoded: bytes = message.SerializeToString()
    return encoded


def types(stream: RecordedStream) -> list[str]:
    return [frame.type_url for frame in list(stream.frames)]


def healths(stream: RecordedStream) -> list[str | None]:
    """What istiod heard of the workload: None for healthy, else why it is not."""
    return [frame.error_detail.message if frame.HasField("error_detail") else None for frame in stream.requests(HEALTH)]


def fence(stream: AdsStream) -> None:
    """Once this is answered, whatever was sent before it has been dealt with. Once for a stream."""
    stream.ask(CDS)
    while stream.next_message().type_url != CDS:
        pass


def test_own_requests_stand_right_behind_the_first_for_listeners_and_only_there(
    proxied: Proxied, istiod: FakeIstiod, is_delta: bool
) -> None:
    proxied.report(is_healthy=False, message="no answer")
    client = proxied.stream(is_delta=is_delta)
    first = [client.ask(CDS), client.ask(LDS)]
    later = [client.ask(EDS, "a"), client.ask(RDS, "r"), client.ask(LDS), client.ask(PROXY_CONFIG)]
    asked = [own(NAME_TABLE, is_delta), own(PROXY_CONFIG, is_delta), own(HEALTH, is_delta, "no answer")]
    eventually(lambda: len(only(istiod).raw) == 9)
    assert only(istiod).raw == [*first, *asked, *later]


def test_without_a_handler_its_type_is_not_asked_for_and_what_comes_of_it_is_dropped(
    tmp_path: Path, istiod: FakeIstiod, is_delta: bool
) -> None:
    proxied = Proxied(tmp_path, istiod.address, handlers={})
    try:
        istiod.ads.unasked = NAME_TABLE
        client = proxied.stream(is_delta=is_delta)
        client.ask(LDS)
        assert client.next_message().type_url == LDS
        fence(client)
        assert types(only(istiod)) == [LDS, CDS]
        assert proxied.account.dropped == {NAME_TABLE: 1}
    finally:
        proxied.stop()


def test_every_later_stream_asks_again_in_its_own_form(proxied: Proxied, istiod: FakeIstiod) -> None:
    proxied.report(is_healthy=False, message="no answer")
    for number, is_delta in enumerate((False, True, True, False), 1):
        asked = [own(NAME_TABLE, is_delta), own(PROXY_CONFIG, is_delta), own(HEALTH, is_delta, "no answer")]
        client = proxied.stream(is_delta=is_delta)
        sent = client.ask(LDS)
        client.next()
        eventually(lambda number=number: len(istiod.ads.streams) == number and len(only(istiod).raw) == 4)  # type: ignore[misc]
        assert only(istiod).raw == [sent, *asked]


def test_health_is_kept_until_listeners_are_asked_for_and_told_on_each_change(
    proxied: Proxied, istiod: FakeIstiod, is_delta: bool
) -> None:
    client = proxied.stream(is_delta=is_delta)
    client.ask(RDS)
    eventually(lambda: types(only(istiod)) == [RDS])
    proxied.report(is_healthy=False, message="before the last")
    proxied.report(is_healthy=False, message="the last")
    fence(client)
    assert healths(only(istiod)) == [], "istiod does not know the workload yet"
    client.ask(LDS)
    eventually(lambda: healths(only(istiod)) == ["the last"])
    for message in (None, "again", None):
        proxied.report(is_healthy=message is None, message=message or "")
    told = ["the last", None, "again", None]
    eventually(lambda: healths(only(istiod)) == told)
    client.cancel()
    eventually(lambda: not istiod.ads.open_streams())
    proxied.report(is_healthy=False, message="while nobody listened")
    again = proxied.stream(is_delta=is_delta)
    again.ask(LDS)
    eventually(lambda: healths(only(istiod)) == ["while nobody listened"])
    fence(again)
    assert healths(only(istiod)) == ["while nobody listened"], "once"


def test_what_is_read_by_the_agent_is_acknowledged_by_its_nonce_and_its_version(
    proxied: Proxied, istiod: FakeIstiod, taken: Taken, is_delta: bool
) -> None:
    istiod.ads.set(NAME_TABLE, "", b"first")
    client = proxied.stream(is_delta=is_delta)
    client.ask(LDS)
    eventually(lambda: len(only(istiod).requests(NAME_TABLE)) == 2)
    istiod.ads.set(NAME_TABLE, "", b"second")
    eventually(lambda: len(only(istiod).requests(NAME_TABLE)) == 3)
    assert taken.resources == [(NAME_TABLE, b"first"), (NAME_TABLE, b"second")]
    nonces = [nonce for nonce, kind in only(istiod).nonces.items() if kind == NAME_TABLE]
    _, *answers = only(istiod).requests(NAME_TABLE)
    assert [each.response_nonce for each in answers] == nonces
    assert not any(each.HasField("error_detail") or each.HasField("node") for each in answers)
    assert is_delta or [each.version_info for each in answers] == ["2", "3"]
    fence(client)
    assert NAME_TABLE not in proxied.account.dropped


@pytest.mark.parametrize("error", [ValueError, TypeError], ids=["refused", "a bug of ours"])
def test_what_can_not_be_used_is_refused_with_the_new_version_and_the_stream_goes_on(
    proxied: Proxied, istiod: FakeIstiod, taken: Taken, is_delta: bool, error: type[Exception]
) -> None:
    taken.error = error
    istiod.ads.set(NAME_TABLE, "", b"bad")
    client = proxied.stream(is_delta=is_delta)
    client.ask(LDS)
    eventually(lambda: len(only(istiod).requests(NAME_TABLE)) == 2)
    refused = only(istiod).requests(NAME_TABLE)[1]
    assert only(istiod).nonces[refused.response_nonce] == NAME_TABLE
    assert refused.error_detail.code == 13
    assert "no table" in refused.error_detail.message
    assert is_delta or refused.version_info == "2"
    taken.error = None
    istiod.ads.set(NAME_TABLE, "", b"good")
    eventually(lambda: taken.resources == [(NAME_TABLE, b"good")])
    eventually(lambda: len(only(istiod).requests(NAME_TABLE)) == 3)
    assert not only(istiod).requests(NAME_TABLE)[2].HasField("error_detail")
    assert client.end is None


def test_neither_an_empty_response_nor_one_for_nobody_is_acknowledged(
    proxied: Proxied, istiod: FakeIstiod, taken: Taken, is_delta: bool
) -> None:
    client = proxied.stream(is_delta=is_delta)
    client.ask(LDS)
    client.ask(ADDRESS)
    eventually(lambda: ADDRESS in only(istiod).watches)
    istiod.ads.push(NAME_TABLE)
    istiod.ads.set(ADDRESS, "a", b"for ztunnel")
    istiod.ads.set(PROXY_CONFIG, "", b"")
    eventually(lambda: len(only(istiod).requests(PROXY_CONFIG)) == 2)  # responses keep their order: the others are over
    assert NAME_TABLE in only(istiod).nonces.values() and ADDRESS in only(istiod).nonces.values()
    assert types(only(istiod)) == [LDS, NAME_TABLE, PROXY_CONFIG, ADDRESS, PROXY_CONFIG]
    assert taken.resources == [(PROXY_CONFIG, b"")]
    assert proxied.account.dropped == {ADDRESS: 1}
    assert client.next_message().type_url == LDS


@pytest.mark.parametrize("type_url", [CDS, WORKLOAD, "type.googleapis.com/envoy.of.a.later.Version"])
def test_what_is_for_envoy_comes_as_the_bytes_it_was(
    proxied: Proxied, istiod: FakeIstiod, is_delta: bool, type_url: str
) -> None:
    istiod.ads.hang = True
    client = proxied.stream(is_delta=is_delta)
    client.ask(type_url)
    eventually(lambda: only(istiod).frames)
    name = type_url.encode()
    # The nonce before the type, the type twice, a long form of a length, and a field that nobody knows.
    odd = b"\x2a\x01n" + b"\x22\x01x" + b"\x22" + bytes([len(name) | 0x80, 0]) + name + b"\xc2\x3e\x05hello"
    istiod.ads.send_raw(odd)
    assert client.next() == odd
    (stream,) = proxied.account.streams
    assert (stream.types[type_url].nonce, stream.types[type_url].bytes) == ("n", len(odd))


def test_a_request_that_is_no_message_is_for_istiod_to_refuse(
    proxied: Proxied, istiod: FakeIstiod, is_delta: bool
) -> None:
    client = proxied.stream(is_delta=is_delta)
    garbage = client.send(b"\xff\xff\xff no message")
    code, words = client.ended()
    assert code is grpc.StatusCode.INTERNAL and words.startswith("fake istiod: DecodeError")
    assert istiod.ads.streams[0].raw == [garbage]


def test_an_old_stream_ends_well_before_the_new_one_is_connected(
    tmp_path: Path, istiod: FakeIstiod, taken: Taken, is_delta: bool
) -> None:
    with Stalling(int(istiod.address.rpartition(":")[2])) as network:
        proxied = Proxied(tmp_path, network.address, handlers=taken.handlers(NAME_TABLE))
        try:
            old = proxied.stream()
            fence(old)
            network.stall()
            new = proxied.stream(is_delta=is_delta)
            sent = [new.ask(CDS), new.ask(LDS), *(new.ask(EDS, f"e{number}") for number in range(20))]
            assert old.ended() == (grpc.StatusCode.OK, "")
            eventually(lambda: [each.is_connected for each in proxied.account.streams] == [False])
            assert new.end is None
            network.resume()
            eventually(lambda: len(only(istiod).raw) == len(sent) + 1)
            assert [raw for raw in only(istiod).raw if raw != own(NAME_TABLE, is_delta)] == sent
            proxied.report(is_healthy=True)  # the old stream's end has not unregistered the new one
            eventually(lambda: healths(only(istiod)) == [None])
            assert proxied.account.envoy_ends == {"cancelled": 1}
        finally:
            proxied.stop()


def test_a_stream_that_is_replaced_before_it_was_connected_ends_well_too(
    tmp_path: Path, istiod: FakeIstiod, is_delta: bool
) -> None:
    with Stalling(int(istiod.address.rpartition(":")[2])) as network:
        network.stall()
        proxied = Proxied(tmp_path, network.address)
        try:
            old = proxied.stream(is_delta=is_delta)
            old.ask(CDS)
            eventually(lambda: len(proxied.account.streams) == 1)
            new = proxied.stream(is_delta=is_delta)
            new.ask(CDS)
            assert old.ended() == (grpc.StatusCode.OK, "")
            assert proxied.account.envoy_ends == {"cancelled": 1}
            network.resume()
            assert new.next_message().type_url == CDS
        finally:
            proxied.stop()


def test_a_client_that_has_nothing_more_to_say_ends_its_stream_well(
    proxied: Proxied, istiod: FakeIstiod, is_delta: bool
) -> None:
    client = proxied.stream(is_delta=is_delta)
    fence(client)
    client.half_close()
    assert client.ended() == (grpc.StatusCode.OK, "")
    eventually(lambda: not istiod.ads.open_streams())
    assert (proxied.account.envoy_ends, proxied.account.istiod_ends) == ({"cancelled": 1}, {})


@pytest.mark.parametrize("how", ["stream", "connection"])
def test_a_stream_that_is_cut_off_ends_the_one_behind_it_and_is_counted(
    proxied: Proxied, istiod: FakeIstiod, is_delta: bool, how: str
) -> None:
    connection = proxied.client()
    client = connection.stream(is_delta=is_delta)
    fence(client)
    client.cancel() if how == "stream" else connection.close()
    eventually(lambda: not istiod.ads.open_streams())
    eventually(lambda: proxied.account.envoy_ends == {"cancelled": 1})
    assert list(proxied.account.past) == ["Envoy ended its stream"]
    assert (proxied.account.istiod_ends, proxied.account.problem, proxied.account.streams) == ({}, None, [])


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_code_and_words_of_istiods_end_are_the_end_of_envoys_stream(
    proxied: Proxied, istiod: FakeIstiod, code: grpc.StatusCode
) -> None:
    words = "" if code is grpc.StatusCode.OK else "not with us: 100 % sûr\nsecond line"
    client = proxied.stream()
    fence(client)
    only(istiod).end(code, words)
    assert client.ended() == (code, words)
    is_well = code in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert proxied.account.istiod_ends == {"cancelled" if is_well else "error": 1}
    assert proxied.account.envoy_ends == {}
    told = [line for line in proxied.log.lines if "ended the stream" in line]
    assert [line.split()[0] for line in told] == ["info" if is_well else "warn"], "once"


def test_what_istiod_sent_before_its_end_comes_first(proxied: Proxied, istiod: FakeIstiod) -> None:
    client = proxied.stream()
    fence(client)
    for number in range(20):
        istiod.ads.set(CDS, f"c{number}", cluster(f"c{number}", 80))
    only(istiod).end(grpc.StatusCode.UNAVAILABLE, "over")
    assert [len(client.next_message().resources) for _ in range(20)] == list(range(1, 21))
    assert client.ended() == (grpc.StatusCode.UNAVAILABLE, "over")


def test_code_and_words_are_istiods_even_when_a_request_is_on_its_way(proxied: Proxied, istiod: FakeIstiod) -> None:
    # A write on a call that is over makes gRPC for Python say INTERNAL of its own, until it knows better.
    connection = proxied.client()
    for _ in range(20):
        client = connection.stream()
        fence(client)
        stream = only(istiod)
        for number in range(100):
            client.ask(EDS, f"e{number}")
            if number == 50:
                stream.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many of you")
        assert client.ended() == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many of you")
        eventually(lambda: not istiod.ads.open_streams())
