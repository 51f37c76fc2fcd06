"""Tables of messages against the protobuf library: names, numbers and kinds, and random messages byte for byte."""

from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2, duration_pb2, struct_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent import discovery
from pilot_agent.identity import messages as ca
from pilot_agent.protobuf import Field, Message, delimited, map_field
from pilot_agent.sds import packing
from pilot_agent.xds import messages as istio
from tests.support.described import ISTIO_CA, differences, fill, values_of, without_rivals

GENERATED: dict[str, tuple[Message, Any]] = {
    message.name: (message, generated)
    for message, generated in (
        (discovery.ANY, any_pb2.Any),
        (discovery.NODE, base_pb2.Node),
        (discovery.STATUS, type(discovery_pb2.DiscoveryRequest().error_detail)),
        (discovery.RESOURCE, discovery_pb2.Resource),
        (discovery.REQUEST, discovery_pb2.DiscoveryRequest),
        (discovery.RESPONSE, discovery_pb2.DiscoveryResponse),
        (discovery.DELTA_REQUEST, discovery_pb2.DeltaDiscoveryRequest),
        (discovery.DELTA_RESPONSE, discovery_pb2.DeltaDiscoveryResponse),
        (packing.DATA_SOURCE, base_pb2.DataSource),
        (packing.DURATION, duration_pb2.Duration),
        (packing.SECRET, secret_pb2.Secret),
        (packing.TLS_CERTIFICATE, common_pb2.TlsCertificate),
        (ca.REQUEST, ISTIO_CA["IstioCertificateRequest"]),
        (ca.RESPONSE, ISTIO_CA["IstioCertificateResponse"]),
    )
}
MESSAGES = pytest.mark.parametrize(("message", "generated"), GENERATED.values(), ids=GENERATED)


@MESSAGES
def test_a_table_says_what_the_generated_code_says(message: Message, generated: Any) -> None:
    assert differences(message, generated.DESCRIPTOR) == []


@MESSAGES
@given(data=st.data())
def test_random_messages_are_the_same_bytes_and_the_same_values(message: Message, generated: Any, data: Any) -> None:
    values = without_rivals(data.draw(values_of(message)), generated.DESCRIPTOR)
    told = fill(generated(), message, values).SerializeToString(deterministic=True)
    assert message.encode(values) == told
    assert message.decode(told) == values


@MESSAGES
@given(content=st.binary(max_size=60))
def test_what_the_library_refuses_is_refused(message: Message, generated: Any, content: bytes) -> None:
    try:
        message.decode(content)
    except ValueError:
        return
    try:
        generated.FromString(content)
    except DecodeError:
        pytest.fail(f"{content!r} was read")


@given(st.data())
def test_fields_that_are_not_described_are_stepped_over(data: Any) -> None:
    request = discovery_pb2.DiscoveryRequest(type_url="t", resource_names=["a", "b"])
    request.node.id = "n"
    request.node.metadata["key"] = data.draw(st.text(max_size=5))
    request.node.locality.region = "somewhere"
    request.resource_locators.add(name="x")
    read = discovery.REQUEST.decode(request.SerializeToString())
    assert (read["node"], read["type_url"], read["resource_names"]) == ({"id": "n"}, "t", ["a", "b"])


def test_parts_of_one_message_are_merged_and_the_last_value_counts() -> None:
    parts = [discovery_pb2.DiscoveryRequest(type_url=each) for each in ("a", "b")]
    parts[0].error_detail.code, parts[1].error_detail.message = 13, "why"
    encoded = b"".join(each.SerializeToString() for each in parts)
    merged = discovery_pb2.DiscoveryRequest.FromString(encoded)
    assert discovery.REQUEST.decode(encoded)["error_detail"] == {"code": 13, "message": "why"}
    assert (merged.error_detail.code, merged.error_detail.message) == (13, "why")
    assert discovery.REQUEST.decode(encoded)["type_url"] == merged.type_url == "b"


def test_a_map_is_its_entries() -> None:
    versions = {"a": "1", "": "2", "b": ""}
    request = discovery_pb2.DeltaDiscoveryRequest(initial_resource_versions=versions)
    entries = discovery.DELTA_REQUEST.decode(request.SerializeToString())["initial_resource_versions"]
    assert {each["key"]: each["value"] for each in entries} == versions
    ours = discovery.DELTA_REQUEST.encode({"initial_resource_versions": entries})
    assert discovery_pb2.DeltaDiscoveryRequest.FromString(ours) == request
    assert discovery.DELTA_REQUEST.decode(b"\x2a\x00")["initial_resource_versions"] == [{"key": "", "value": ""}]


def test_a_value_of_another_wire_type_is_another_field() -> None:
    encoded = b"\x20\x05" + b"\x22\x01t"  # field 4, once a number, once a text
    assert discovery.REQUEST.decode(encoded)["type_url"] == discovery_pb2.DiscoveryRequest.FromString(encoded).type_url


def test_the_empty_message_is_not_the_missing_one() -> None:
    assert discovery.REQUEST.encode({"error_detail": {}}) == b"\x32\x00"
    assert discovery.REQUEST.decode(b"\x32\x00")["error_detail"] == {"code": 0, "message": ""}
    assert discovery.REQUEST.decode(b"")["error_detail"] is None


def test_a_difference_would_be_found() -> None:
    wrong = Message(
        "google.protobuf.Wrong",
        type_url=Field(3, "string"),
        value=Field(2, "bytes", has_presence=True),
        other=Field(4, "bool"),
    )
    assert len(differences(wrong, any_pb2.Any.DESCRIPTOR)) == 4
    fields = Message("google.protobuf.Struct", fields=map_field(1, "string"))
    assert differences(fields, struct_pb2.Struct.DESCRIPTOR)


def test_the_messages_of_istio_alone() -> None:
    assert [(name, field.number) for name, field in istio.PROXY_CONFIG.fields.items()] == [("ca_certificates_pem", 34)]
    assert [field.number for field in istio.NAME_INFO.fields.values()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "message", [b"\x00", b"\x02\x00", b"\x0b", b"\x0f", b"\x0a\x02a", b"\x09abc", b"\xff" * 11, b"\x08"]
)
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"field|number"):
        list(delimited(message))
