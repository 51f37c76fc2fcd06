"""The fake istiod's ADS as its clients see it: rounds, pushes and faults, in state of the world and in delta."""

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from tests.support.eventually import eventually
from tests.support.fake_ads import (
    CDS,
    DELTA_METHOD,
    EDS,
    LDS,
    NDS,
    RDS,
    SERVICE,
    SOTW_METHOD,
    RecordedStream,
    cluster,
    endpoints,
    route,
)
from tests.support.fake_istiod import FakeIstiod, running

ADDRESS = "type.googleapis.com/istio.workload.Address"
VM = "spiffe://cluster.local/ns/vm/sa/vm"
KINDS = ["sotw", "delta"]
QUIET_S = 0.2


class Stream:
    """`ask` sends, `next` waits for a response; `error` is how the server ended it."""

    def __init__(self, channel: grpc.Channel, kind: str, metadata: dict[str, str]) -> None:
        self.is_delta = kind == "delta"
        self._make = discovery_pb2.DeltaDiscoveryRequest if self.is_delta else discovery_pb2.DiscoveryRequest
        answer = discovery_pb2.DeltaDiscoveryResponse if self.is_delta else discovery_pb2.DiscoveryResponse
        method: Any = channel.stream_stream(
            f"/{SERVICE}/{DELTA_METHOD if self.is_delta else SOTW_METHOD}", response_deserializer=answer.FromString
        )
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.error: grpc.RpcError | None = None
        self._call = method(iter(self._requests.get, None), metadata=tuple(metadata.items()))
        self._thread = threading.Thread(target=self._receive, name="ads client")
        self._thread.start()

    def _receive(self) -> None:
        try:
            for response in self._call:
                self._responses.put(response)
        except grpc.RpcError as error:
            self.error = error
        self._responses.put(None)

    def send(self, body: bytes) -> None:
        self._requests.put(body)

    def ask(self, type_url: str, *names: str, **fields: Any) -> None:
        """The names are those a delta request subscribes to."""
        request = self._make(type_url=type_url, **fields)
        (request.resource_names_subscribe if self.is_delta else request.resource_names).extend(names)
        self.send(request.SerializeToString())

    def ack(self, response: Any, *names: str, **fields: Any) -> None:
        """A state-of-the-world one repeats the names; in delta they are new ones."""
        if not self.is_delta:
            fields.setdefault("version_info", response.version_info)
        self.ask(response.type_url, *names, response_nonce=response.nonce, **fields)

    def reject(self, response: Any, words: str = "no good") -> None:
        self.ask(response.type_url, response_nonce=response.nonce, error_detail={"code": 13, "message": words})

    def next(self) -> Any:
        response = self._responses.get(timeout=10)
        assert response is not None, f"the stream has ended: {self.error}"
        return response

    def get(self, type_url: str, *names: str) -> Any:
        """Ask and accept."""
        self.ask(type_url, *names)
        response = self.next()
        assert response.type_url == type_url
        self.ack(response, *(() if self.is_delta else names))
        return response

    def is_silent(self) -> bool:
        try:
            self._responses.get(timeout=QUIET_S)
        except queue.Empty:
            return True
        return False

    def end(self) -> tuple[str, str]:
        """The code and the text it ended with."""
        assert self._responses.get(timeout=10) is None, "a response, and no end"
        return self._call.code().name.lower(), self._call.details()

    def half_close(self) -> None:
        self._requests.put(None)

    def cancel(self) -> None:
        self._call.cancel()
        self.half_close()
        self._thread.join()


class Client:
    """Opens streams on one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._streams: list[Stream] = []

    def open(self, kind: str = "sotw", **metadata: str) -> Stream:
        self._streams.append(Stream(self._channel, kind, metadata))
        return self._streams[-1]

    def close(self) -> None:
        for stream in self._streams:
            stream.cancel()
        self._channel.close()


OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]


@pytest.fixture
def istiod(tmp_path: Path) -> Iterator[FakeIstiod]:
    with running(FakeIstiod(tmp_path, is_plaintext=True)) as istiod:
        yield istiod


@pytest.fixture
def client(istiod: FakeIstiod) -> Iterator[Client]:
    client = Client(grpc.insecure_channel(istiod.address, OPTIONS))
    yield client
    client.close()


def names(response: Any) -> list[str]:
    """Of the clusters in it, whichever kind it is."""
    return [cluster_pb2.Cluster.FromString(_any(each).value).name for each in response.resources]


def values(response: Any) -> list[bytes]:
    return [_any(each).value for each in response.resources]


def _any(resource: Any) -> Any:
    return getattr(resource, "resource", resource)


def recorded(istiod: FakeIstiod) -> RecordedStream:
    return istiod.ads.streams[-1]


# Rounds


def test_state_of_the_world_sends_all_of_a_type_with_every_change(istiod: FakeIstiod, client: Client) -> None:
    istiod.ads.set(CDS, "a", cluster("a", 1))
    stream = client.open()
    first = stream.get(CDS)
    istiod.ads.set(CDS, "b", cluster("b", 2))
    second = stream.next()
    assert (names(first), names(second)) == (["a"], ["a", "b"])
    assert int(second.version_info) > int(first.version_info)
    istiod.ads.remove(CDS, "a")
    assert names(stream.next()) == ["b"]
    istiod.ads.remove(CDS, "b")
    assert names(stream.next()) == []


def test_delta_sends_what_changed(istiod: FakeIstiod, client: Client) -> None:
    istiod.ads.set(CDS, "a", cluster("a", 1))
    stream = client.open("delta")
    first = stream.get(CDS)
    istiod.ads.set(CDS, "b", cluster("b", 2))
    second = stream.next()
    istiod.ads.remove(CDS, "a")
    third = stream.next()
    assert [names(each) for each in (first, second, third)] == [["a"], ["b"], []]
    assert [list(each.removed_resources) for each in (first, second, third)] == [[], [], ["a"]]
    assert first.resources[0].name == "a"
    assert int(second.resources[0].version) > int(first.resources[0].version)
    assert len({each.nonce for each in (first, second, third)}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_clusters_and_listeners_are_answered_though_there_are_none(client: Client, kind: str) -> None:
    stream = client.open(kind)
    for type_url in (CDS, LDS):
        assert len(stream.get(type_url).resources) == 0
    for type_url in (EDS, RDS, NDS):
        stream.ask(type_url, *(["x"] if type_url != NDS else []))
    assert stream.is_silent()


@pytest.mark.parametrize("kind", KINDS)
def test_endpoints_and_routes_come_by_name(istiod: FakeIstiod, client: Client, kind: str) -> None:
    istiod.ads.set_many(EDS, {name: endpoints(name, 1) for name in ("a", "b")})
    stream = client.open(kind)
    stream.ask(EDS, "a", "later")
    first = stream.next()
    assert values(first) == [endpoints("a", 1).SerializeToString()]
    istiod.ads.set(EDS, "b", endpoints("b", 2))
    assert stream.is_silent(), "nobody asked for it"
    istiod.ads.set(EDS, "later", endpoints("later", 3))
    second = stream.next()
    assert endpoints("later", 3).SerializeToString() in values(second)
    assert len(second.resources) == (1 if kind == "delta" else 2)
    stream.ack(second, *(["b"] if kind == "delta" else ["a", "later", "b"]))
    third = stream.next()
    assert endpoints("b", 2).SerializeToString() in values(third)
    assert len(third.resources) == (1 if kind == "delta" else 3)


def test_names_that_go_are_not_answered_and_not_pushed_any_more(istiod: FakeIstiod, client: Client) -> None:
    istiod.ads.set_many(RDS, {name: route(name) for name in ("a", "b")})
    sotw, delta = client.open(), client.open("delta")
    for stream in (sotw, delta):
        stream.ask(RDS, "a", "b")
    sotw.ack(sotw.next(), "a")
    delta.ack(delta.next(), resource_names_unsubscribe=["b"])
    eventually(lambda: len(istiod.ads.acks(RDS)) == 2)
    istiod.ads.set(RDS, "b", route("b", answer="new"))
    assert sotw.is_silent() and delta.is_silent()


@pytest.mark.parametrize("kind", KINDS)
def test_a_push_sends_all_of_it_again_even_nothing(istiod: FakeIstiod, client: Client, kind: str) -> None:
    stream = client.open(kind)
    stream.get(CDS)
    istiod.ads.push(CDS)
    assert names(stream.next()) == []
    istiod.ads.set_many(CDS, {"a": cluster("a", 1), "b": cluster("b", 1)})
    assert names(stream.next()) == ["a", "b"], "with one push"
    istiod.ads.push(CDS)
    assert names(stream.next()) == ["a", "b"]
    istiod.ads.push(LDS)
    assert stream.is_silent()


@pytest.mark.parametrize("kind", KINDS)
def test_a_type_of_istios_is_bytes_and_is_answered_once_it_is_set(
    istiod: FakeIstiod, client: Client, kind: str
) -> None:
    stream = client.open(kind)
    stream.ask(NDS)
    eventually(lambda: istiod.ads.requests(NDS))
    istiod.ads.set(NDS, "", b"a name table")
    response = stream.next()
    assert (values(response), response.type_url) == ([b"a name table"], NDS)
    assert _any(response.resources[0]).type_url == NDS


def test_a_new_stream_gets_everything_whatever_it_brings_along(istiod: FakeIstiod, client: Client) -> None:
    istiod.ads.set(CDS, "a", cluster("a", 1))
    sotw, delta = client.open(), client.open("delta")
    sotw.ask(CDS, version_info="99", response_nonce="of-another-stream")
    assert names(sotw.next()) == ["a"]
    delta.ask(CDS, initial_resource_versions={"a": "99", "gone": "7"})
    response = delta.next()
    assert (names(response), list(response.removed_resources)) == (["a"], ["gone"])
    assert istiod.ads.acks(CDS) == [], "neither was about a response of its stream"


@pytest.mark.parametrize("kind", KINDS)
def test_acks_and_nacks_are_kept_and_not_answered(istiod: FakeIstiod, client: Client, kind: str) -> None:
    stream = client.open(kind)
    first = stream.get(CDS)
    istiod.ads.set(CDS, "a", cluster("a", 1))
    second = stream.next()
    stream.reject(second, "a is no good")
    (nack,) = eventually(lambda: istiod.ads.nacks(CDS))
    assert (nack.error_detail.message, nack.response_nonce) == ("a is no good", second.nonce)
    assert [each.response_nonce for each in istiod.ads.acks(CDS)] == [first.nonce]
    assert (istiod.ads.nacks(LDS), istiod.ads.acks(LDS)) == ([], [])
    assert stream.is_silent()
    istiod.ads.push(CDS)
    assert names(stream.next()) == ["a"], "a NACK does not end the watch"


def test_a_stale_nonce_is_not_answered_in_state_of_the_world(istiod: FakeIstiod, client: Client) -> None:
    istiod.ads.set_many(EDS, {name: endpoints(name, 1) for name in ("a", "b")})
    stream = client.open()
    stream.ask(EDS, "a")
    first = stream.next()
    istiod.ads.push(EDS)
    second = stream.next()
    stream.ack(first, "a", "b")
    assert stream.is_silent()
    stream.ack(second, "a", "b")
    assert len(stream.next().resources) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_endpoints_come_again_after_their_clusters_so_that_envoy_warms_them(
    istiod: FakeIstiod, client: Client, kind: str
) -> None:
    istiod.ads.set_many(CDS, {"a": cluster("a"), "b": cluster("b")})
    istiod.ads.set_many(EDS, {"a": endpoints("a", 1), "b": endpoints("b", 1)})
    stream = client.open(kind)
    stream.get(CDS)
    response = stream.get(EDS, "a", "b")
    istiod.ads.set(CDS, "a", cluster("a"))
    assert stream.next().type_url == CDS
    if kind == "sotw":
        stream.ack(response, "a", "b")
    again = stream.next()
    assert (again.type_url, len(again.resources)) == (EDS, 2 if kind == "sotw" else 1)
    assert values(again)[0] == endpoints("a", 1).SerializeToString()


# What is recorded


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_is_recorded_with_every_byte(istiod: FakeIstiod, client: Client, kind: str) -> None:
    stream = client.open(kind, authorization="Bearer the-token-of-this-stream", clusterid="Kubernetes")
    first = discovery_pb2.DeltaDiscoveryRequest if kind == "delta" else discovery_pb2.DiscoveryRequest
    body = first(type_url=LDS, node={"id": "sidecar~1.2.3.4~a.b~b.svc"}).SerializeToString()
    unknown = b"\xc2\x3e\x02hi"  # field 1000, which no version of the message knows
    stream.send(body + unknown)
    response = stream.next()
    stream.ack(response)
    it = recorded(istiod)
    eventually(lambda: len(it.frames) == 2)
    assert (it.kind, it.raw[0], it.is_open, it.peer_identity) == (kind, body + unknown, True, "")
    assert it.frames[0].node.id == "sidecar~1.2.3.4~a.b~b.svc"
    assert (it.metadata["clusterid"], it.token) == ("Kubernetes", "the-token-of-this-stream")
    assert "the-token" not in repr(it)
    stream.cancel()
    eventually(lambda: not it.is_open)
    assert istiod.ads.open_streams() == []


def test_over_tls_the_clients_certificate_tells_who_it_is(tmp_path: Path) -> None:
    with running(FakeIstiod(tmp_path)) as istiod:
        pair = istiod.provision(tmp_path / "vm", VM)
        root = istiod.root_pem.encode()
        for key, chain in ((None, None), (pair.key.encode(), pair.chain.encode())):
            credentials = grpc.ssl_channel_credentials(root, key, chain)
            client = Client(grpc.secure_channel(istiod.address, credentials, OPTIONS))
            try:
                client.open("delta").get(CDS)
            finally:
                client.close()
        assert [each.peer_identity for each in istiod.ads.streams] == ["", VM]


def test_streams_and_resources_outlive_a_restart(istiod: FakeIstiod, client: Client) -> None:
    istiod.ads.set(CDS, "a", cluster("a", 1))
    before = client.open("delta")
    before.get(CDS)
    istiod.stop()
    assert before.end()[0] in ("unavailable", "cancelled")
    istiod.start()
    again = Client(grpc.insecure_channel(istiod.address, OPTIONS))
    try:
        assert names(again.open("delta").get(CDS)) == ["a"]
        assert [each.is_open for each in istiod.ads.streams] == [False, True]
    finally:
        again.close()


def test_a_stop_ends_every_stream_and_every_thread(istiod: FakeIstiod, client: Client) -> None:
    streams = [client.open(KINDS[number % 2]) for number in range(40)]
    for stream in streams:
        stream.get(LDS)
    assert len(istiod.ads.open_streams()) == 40, "none waits for another to end"
    istiod.stop()
    assert {stream.end()[0] for stream in streams} <= {"unavailable", "cancelled"}
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("fake istiod")] == []


def test_a_client_that_has_no_more_to_say_is_left_with_ok(istiod: FakeIstiod, client: Client) -> None:
    stream = client.open()
    stream.get(CDS)
    stream.half_close()
    assert stream.end()[0] == "ok"


# Faults


@pytest.mark.parametrize("code", ["unavailable", "unauthenticated", "permission_denied"])
@pytest.mark.parametrize("kind", KINDS)
def test_refused_streams_are_recorded_and_those_before_live_on(
    istiod: FakeIstiod, client: Client, kind: str, code: str
) -> None:
    before = client.open(kind)
    before.get(CDS)
    istiod.ads.refuse = code
    assert client.open(kind).end() == (code, f"fake istiod: {code}")
    eventually(lambda: [each.is_open for each in istiod.ads.streams] == [True, False])
    istiod.ads.push(CDS)
    before.next()
    istiod.ads.refuse = None
    client.open(kind).get(CDS)


def test_a_required_token(istiod: FakeIstiod, client: Client) -> None:
    istiod.requires_token = "the-only-good-token"
    assert client.open(authorization="Bearer another-one-than-that").end() == (
        "unauthenticated",
        "fake istiod: another token is required",
    )
    client.open(authorization="Bearer the-only-good-token").get(CDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_hangs_is_read_and_never_answered(istiod: FakeIstiod, client: Client, kind: str) -> None:
    istiod.ads.hang = True
    stream = client.open(kind)
    stream.ask(CDS)
    stream.ask(LDS)
    eventually(lambda: istiod.ads.requests(CDS) and istiod.ads.requests(LDS))
    istiod.ads.hang = False
    istiod.ads.push(CDS)
    assert stream.is_silent()
    client.open(kind).get(CDS)


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_is_a_resource_that_is_no_message(istiod: FakeIstiod, client: Client, kind: str) -> None:
    istiod.ads.set(CDS, "a", cluster("a", 1))
    istiod.ads.garbage = CDS
    stream = client.open(kind)
    response = stream.get(CDS)
    with pytest.raises(DecodeError):
        names(response)
    stream.get(LDS)
    istiod.ads.garbage = None
    istiod.ads.push(CDS)
    assert names(stream.next()) == ["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_asked_for_follows_the_first_answer(istiod: FakeIstiod, client: Client, kind: str) -> None:
    istiod.ads.set(ADDRESS, "x", b"an address")
    istiod.ads.unasked = ADDRESS
    stream = client.open(kind)
    stream.ask(CDS)
    stream.ask(LDS)
    responses = [stream.next() for _ in range(3)]
    assert [each.type_url for each in responses] == [CDS, ADDRESS, LDS]
    assert values(responses[1]) == [b"an address"]


@pytest.mark.parametrize(("code", "text"), [("ok", ""), ("unavailable", "shut down"), ("internal", "")])
def test_open_streams_are_ended_after_what_they_were_sent(
    istiod: FakeIstiod, client: Client, code: str, text: str
) -> None:
    streams = [client.open(kind) for kind in KINDS]
    for stream in streams:
        stream.get(CDS)
    istiod.ads.push(CDS)
    istiod.ads.end_streams(code, text)
    for stream in streams:
        stream.next()
        wanted = "" if code == "ok" else text or f"fake istiod: {code}"
        assert stream.end() == (code, wanted)
    eventually(lambda: not istiod.ads.open_streams())
    client.open().get(CDS)


def test_a_request_that_is_none_ends_its_stream(istiod: FakeIstiod, client: Client) -> None:
    stream = client.open()
    stream.send(b"\xff\xff")
    assert stream.end()[0] == "internal"
    assert recorded(istiod).raw == [b"\xff\xff"]


# Sizes


@pytest.mark.parametrize("kind", KINDS)
def test_a_huge_response(istiod: FakeIstiod, client: Client, kind: str) -> None:
    stream = client.open(kind)
    stream.get(CDS)
    stream.ask(NDS)
    eventually(lambda: istiod.ads.requests(NDS))
    for type_url in (CDS, NDS):
        istiod.ads.huge(12_000_000, type_url)
        response = stream.next()
        assert (response.type_url, len(response.resources)) == (type_url, 1)
        assert 12_000_000 < response.ByteSize() < 12_001_000
        cluster_pb2.Cluster.FromString(values(response)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_many_services(istiod: FakeIstiod, client: Client, kind: str) -> None:
    istiod.ads.many_services(500, size=1_000_000, listener_port=1)
    stream = client.open(kind)
    clusters = stream.get(CDS)
    assert len(names(clusters)) == 500
    assert sum(len(each) for each in values(clusters)) == pytest.approx(1_000_000, rel=0.05)
    assert len(stream.get(EDS, *names(clusters)).resources) == 500
    assert len(stream.get(LDS).resources) == 1
    (routes,) = values(stream.get(RDS, "services"))
    assert routes.count(b"outbound|80||service-") == 500


def test_resources_may_be_set_from_many_threads(istiod: FakeIstiod, client: Client) -> None:
    stream = client.open("delta")
    stream.get(CDS)

    def set_some(letter: str) -> Callable[[], None]:
        def run() -> None:
            for number in range(50):
                istiod.ads.set(CDS, f"{letter}{number}", cluster(f"{letter}{number}", 1))

        return run

    threads = [threading.Thread(target=set_some(letter)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    responses = [stream.next() for _ in range(200)]
    for thread in threads:
        thread.join()
    assert {name for response in responses for name in names(response)} == set(istiod.ads.names(CDS))
    versions = [int(response.system_version_info) for response in responses]
    assert versions == sorted(set(versions))
