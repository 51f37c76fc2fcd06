"""Reading the few fields that count, of messages that are otherwise left alone."""

from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.xds.wire import (
    DELTA_REQUEST,
    DELTA_RESPONSE,
    SOTW_REQUEST,
    SOTW_RESPONSE,
    any_of_resource,
    envelope,
    resources_of,
    value_of_any,
)

TEXTS = st.text(max_size=30)
VALUES = st.lists(st.binary(max_size=200), max_size=5)


def anys(values: list[bytes]) -> list[Any]:
    return [any_pb2.Any(type_url="t", value=value) for value in values]


@given(TEXTS, TEXTS, TEXTS, VALUES)
def test_a_response_of_the_state_of_the_world(type_url: str, nonce: str, version: str, values: list[bytes]) -> None:
    message = discovery_pb2.DiscoveryResponse(
        type_url=type_url, nonce=nonce, version_info=version, resources=anys(values), canary=True
    )
    encoded = message.SerializeToString()
    found = envelope(encoded, SOTW_RESPONSE)
    assert found == (type_url, nonce, version, None, len(values))
    assert [value_of_any(each) for each in resources_of(encoded, SOTW_RESPONSE)] == values


@given(TEXTS, TEXTS, TEXTS, VALUES)
def test_a_delta_response(type_url: str, nonce: str, version: str, values: list[bytes]) -> None:
    message = discovery_pb2.DeltaDiscoveryResponse(
        type_url=type_url, nonce=nonce, system_version_info=version, removed_resources=["gone"]
    )
    for value in anys(values):
        message.resources.add(name="n", version="1").resource.CopyFrom(value)
    encoded = message.SerializeToString()
    assert envelope(encoded, DELTA_RESPONSE) == (type_url, nonce, version, None, len(values))
    assert [value_of_any(any_of_resource(each)) for each in resources_of(encoded, DELTA_RESPONSE)] == values


@given(TEXTS, TEXTS, TEXTS, st.lists(TEXTS, max_size=5), st.none() | TEXTS)
def test_requests(type_url: str, nonce: str, version: str, names: list[str], error: str | None) -> None:
    sotw = discovery_pb2.DiscoveryRequest(
        type_url=type_url, response_nonce=nonce, version_info=version, resource_names=names
    )
    delta = discovery_pb2.DeltaDiscoveryRequest(
        type_url=type_url, response_nonce=nonce, resource_names_subscribe=names, initial_resource_versions={"a": "1"}
    )
    for message in (sotw, delta):
        message.node.id = "sidecar~1.2.3.4~a~b"
        if error is not None:
            message.error_detail.code, message.error_detail.message = 13, error
    assert envelope(sotw.SerializeToString(), SOTW_REQUEST) == (type_url, nonce, version, error, len(names))
    assert envelope(delta.SerializeToString(), DELTA_REQUEST) == (type_url, nonce, "", error, len(names))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    for fields in (SOTW_REQUEST, DELTA_REQUEST, SOTW_RESPONSE, DELTA_RESPONSE):
        try:
            envelope(message, fields)
        except ValueError:
            pass


@pytest.mark.parametrize(
    "message", [b"\x0a", b"\x0a\x05abc", b"\x80" * 11, b"\x0f\x00", b"\x0d\x01", b"\x09\x01\x02", b"\x08"]
)
def test_what_is_cut_off_or_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"field|number"):
        envelope(message, SOTW_RESPONSE)
