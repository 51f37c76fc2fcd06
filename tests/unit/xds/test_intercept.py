"""What becomes of each response, and what the agent asks istiod for itself (reference security-xds.md, 5.4 and 5.5)."""

from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from pilot_agent.xds.intercept import HEALTH, LISTENER, NAME_TABLE, PROXY_CONFIG, Fate, Health, Interception
from pilot_agent.xds.messages import ca_certificates, name_table
from pilot_agent.xds.wire import DELTA_RESPONSE, SOTW_RESPONSE, envelope
from tests.support.recorded_log import RecordedLog

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"


class Stand:
    def __init__(self, *, is_delta: bool) -> None:
        self.is_delta, self.log = is_delta, RecordedLog()
        self.taken: list[tuple[str, bytes]] = []
        self.error: str | None = None
        self.health: Health | None = None
        handlers = {type_url: self.handler(type_url) for type_url in (NAME_TABLE, PROXY_CONFIG)}
        self.interception = Interception(handlers, lambda: self.health, self.log.scope, is_delta=is_delta)

    def handler(self, type_url: str) -> Any:
        def take(resource: bytes) -> None:
            if self.error is not None:
                raise ValueError(self.error)
            self.taken.append((type_url, resource))

        return take

    def response(self, type_url: str, *values: bytes) -> bytes:
        packed = [any_pb2.Any(type_url=type_url, value=value) for value in values]
        if not self.is_delta:
            message: Any = discovery_pb2.DiscoveryResponse(version_info="7", nonce="n", type_url=type_url)
            message.resources.extend(packed)
        else:
            message = discovery_pb2.DeltaDiscoveryResponse(system_version_info="7", nonce="n", type_url=type_url)
            for each in packed:
                message.resources.add(name="x").resource.CopyFrom(each)
        encoded: bytes = message.SerializeToString()
        return encoded

    def take(self, type_url: str, *values: bytes) -> tuple[Fate, Any]:
        encoded = self.response(type_url, *values)
        fate, answer = self.interception.take(
            encoded, envelope(encoded, DELTA_RESPONSE if self.is_delta else SOTW_RESPONSE)
        )
        return fate, self.parsed(answer) if answer is not None else None

    def parsed(self, request: bytes) -> Any:
        make: Any = discovery_pb2.DeltaDiscoveryRequest if self.is_delta else discovery_pb2.DiscoveryRequest
        return make.FromString(request)


@pytest.fixture(params=[False, True], ids=["sotw", "delta"])
def stand(request: pytest.FixtureRequest) -> Stand:
    return Stand(is_delta=request.param)


@pytest.mark.parametrize(
    ("type_url", "fate"),
    [
        (CLUSTER, Fate.FORWARDED),
        (LISTENER, Fate.FORWARDED),
        ("type.googleapis.com/envoy.some.later.Type", Fate.FORWARDED),
        ("type.googleapis.com/istio.workload.Workload", Fate.FORWARDED),
        ("type.googleapis.com/istio.workload.Address", Fate.DROPPED),
        ("type.googleapis.com/istio.security.Authorization", Fate.DROPPED),
        ("istio.io/debug", Fate.DROPPED),
        ("", Fate.DROPPED),
    ],
)
def test_types_that_the_agent_does_not_read(stand: Stand, type_url: str, fate: Fate) -> None:
    assert stand.take(type_url, b"\xff\xff") == (fate, None)
    assert stand.taken == []


def test_the_first_resource_of_a_type_that_it_reads_is_taken_and_acknowledged(stand: Stand) -> None:
    fate, answer = stand.take(NAME_TABLE, b"first", b"second")
    assert fate is Fate.CONSUMED
    assert stand.taken == [(NAME_TABLE, b"first")]
    assert (answer.type_url, answer.response_nonce, answer.HasField("error_detail")) == (NAME_TABLE, "n", False)
    assert stand.is_delta or answer.version_info == "7"
    assert not answer.HasField("node")


def test_one_that_can_not_be_used_is_refused_in_words(stand: Stand) -> None:
    stand.error = "no table"
    fate, answer = stand.take(NAME_TABLE, b"x")
    assert fate is Fate.CONSUMED
    assert (answer.error_detail.code, answer.error_detail.message) == (13, "no table")
    assert stand.is_delta or answer.version_info == "7", "the new version even then, as Istio's agent"


def test_an_empty_response_is_neither_used_nor_acknowledged(stand: Stand) -> None:
    assert stand.take(NAME_TABLE) == (Fate.CONSUMED, None)
    assert stand.taken == []


def test_its_own_requests_come_once_and_behind_the_first_for_listeners(stand: Stand) -> None:
    assert stand.interception.own_requests(CLUSTER) == []
    own = [stand.parsed(each) for each in stand.interception.own_requests(LISTENER)]
    assert [each.type_url for each in own] == [NAME_TABLE, PROXY_CONFIG]
    assert all(each.ByteSize() == len(each.type_url) + 2 for each in own), "nothing but the type"
    assert stand.interception.own_requests(LISTENER) == []


@pytest.mark.parametrize("health", [Health(True), Health(False, "no answer")])
def test_the_last_health_comes_last(stand: Stand, health: Health) -> None:
    stand.health = health
    *_, last = stand.interception.own_requests(LISTENER)
    told = stand.parsed(last)
    assert told.type_url == HEALTH
    assert told.HasField("error_detail") is not health.is_healthy
    assert told.error_detail.message == health.message


def test_istios_messages_are_read_whatever_else_they_hold() -> None:
    # ProxyConfig: field 1 (config_path) "x", field 34 (ca_certificates_pem) "a" and "b".
    assert ca_certificates(b"\x0a\x01x" + b"\x92\x02\x01a" + b"\x92\x02\x01b") == ["a", "b"]
    # NameTable: one entry, "h" to {ips: "10.0.0.1", registry: "Kubernetes"}.
    info = b"\x0a\x0810.0.0.1" + b"\x12\x0aKubernetes"
    entry = b"\x0a\x01h" + b"\x12" + bytes([len(info)]) + info
    table = name_table(b"\x0a" + bytes([len(entry)]) + entry)
    host = {"ips": ["10.0.0.1"], "registry": "Kubernetes", "shortname": "", "namespace": "", "alt_hosts": []}
    assert table == {"h": host}
    for read in (ca_certificates, name_table):
        with pytest.raises(ValueError, match="it is no istio"):
            read(b"\xff\xff")
