"""Istio's TestXdsProxyBasicFlow and TestXdsProxyReconnects, and their twins of delta, as behaviours of ours."""

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from tests.support.ads_client import AdsStream
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS, LDS, cluster, listener
from tests.support.fake_istiod import FakeIstiod
from tests.unit.xds.proxied import Proxied


@pytest.fixture(autouse=True)
def resources(istiod: FakeIstiod) -> None:
    istiod.ads.set(CDS, "c", cluster("c", 80))
    istiod.ads.set(LDS, "l", listener("l", 80))


def is_served(stream: AdsStream) -> None:
    """Clusters, then listeners, as Envoy asks for them; each is acknowledged."""
    for type_url in (CDS, LDS):
        stream.ask(type_url)
        response = stream.next_message()
        assert (response.type_url, len(response.resources)) == (type_url, 1)
        kind = discovery_pb2.DeltaDiscoveryRequest if stream.is_delta else discovery_pb2.DiscoveryRequest
        stream.send(kind(type_url=type_url, response_nonce=response.nonce))


def is_the_only_one(proxied: Proxied, istiod: FakeIstiod) -> None:
    eventually(lambda: len(istiod.ads.open_streams()) == 1)
    eventually(lambda: len(proxied.account.streams) == 1)


def test_clusters_and_listeners_make_the_round_trip(proxied: Proxied, istiod: FakeIstiod, is_delta: bool) -> None:
    is_served(proxied.stream(is_delta=is_delta))
    is_the_only_one(proxied, istiod)
    eventually(lambda: len(istiod.ads.acks(CDS)) == len(istiod.ads.acks(LDS)) == 1)
    assert istiod.ads.streams[0].kind == ("delta" if is_delta else "sotw")


def test_a_stream_is_closed_and_opened_again(proxied: Proxied, istiod: FakeIstiod, is_delta: bool) -> None:
    connection = proxied.client()
    for _ in range(3):
        stream = connection.stream(is_delta=is_delta)
        is_served(stream)
        is_the_only_one(proxied, istiod)
        stream.cancel()
        eventually(lambda: not istiod.ads.open_streams())


def test_a_second_stream_of_one_connection_takes_over(proxied: Proxied, istiod: FakeIstiod, is_delta: bool) -> None:
    connection = proxied.client()
    first = connection.stream(is_delta=is_delta)
    is_served(first)
    is_served(connection.stream(is_delta=is_delta))
    assert first.ended() == (grpc.StatusCode.OK, "")
    is_the_only_one(proxied, istiod)


def test_a_connection_is_closed_and_another_one_made(proxied: Proxied, istiod: FakeIstiod, is_delta: bool) -> None:
    for _ in range(3):
        connection = proxied.client()
        is_served(connection.stream(is_delta=is_delta))
        is_the_only_one(proxied, istiod)
        connection.close()
        eventually(lambda: not istiod.ads.open_streams())


def test_of_several_connections_the_last_that_opened_a_stream_is_served(
    proxied: Proxied, istiod: FakeIstiod, is_delta: bool
) -> None:
    connections = [proxied.client() for _ in range(3)]
    before = None
    for connection in [*connections, *connections]:
        stream = connection.stream(is_delta=is_delta)
        is_served(stream)
        assert before is None or before.ended() == (grpc.StatusCode.OK, "")
        is_the_only_one(proxied, istiod)
        before = stream


def test_istiod_restarts_on_its_port(proxied: Proxied, istiod: FakeIstiod, is_delta: bool) -> None:
    connection = proxied.client()
    for _ in range(3):
        stream = connection.stream(is_delta=is_delta)
        is_served(stream)
        istiod.stop()
        assert stream.ended()[0] is not grpc.StatusCode.OK
        lost = connection.stream(is_delta=is_delta)
        assert lost.ended()[0] is grpc.StatusCode.UNAVAILABLE
        istiod.start()
    is_served(connection.stream(is_delta=is_delta))
    is_the_only_one(proxied, istiod)
    assert proxied.account.problem is None
