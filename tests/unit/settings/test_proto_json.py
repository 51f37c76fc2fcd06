"""ProxyConfig as proto3 JSON: what is left out, how numbers look, and that nothing is lost."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.settings.proto_json import proxy_config_json
from pilot_agent.settings.schema import MESSAGES, PROXY_CONFIG_FIELDS
from tests.unit.settings.everything import EVERYTHING, OTHER_TRACERS
from tests.unit.settings.told import proxy_config


def test_zeros_are_left_out_but_for_wrappers_durations_and_empty_messages() -> None:
    shown = proxy_config_json(
        proxy_config(
            tracing={
                "sampling": 0,
                "maxPathTagLength": 0,
                "enableIstioTags": False,
                "stackdriver": {"debug": False, "maxNumberOfAttributes": 0},
                "tlsSettings": {"mode": "DISABLE", "sni": ""},
            },
            connectionSettings={"httpIdleTimeout": "0s"},
            terminationDrainDuration="0s",
            statsCompression=False,
            concurrency=0,
            gatewayTopology={"forwardClientCertDetails": "UNDEFINED", "proxyProtocol": {}},
        )
    )
    assert shown["tracing"] == {
        "enableIstioTags": False,
        "stackdriver": {"maxNumberOfAttributes": "0"},
        "tlsSettings": {},
    }
    assert shown["connectionSettings"] == {"httpIdleTimeout": "0s"}
    assert shown["terminationDrainDuration"] == "0s"
    assert shown["statsCompression"] is False
    assert shown["concurrency"] == 0
    assert shown["gatewayTopology"] == {"proxyProtocol": {}}


texts = st.text(max_size=10)


@given(texts, texts, st.integers(-(2**63), 2**63 - 1), st.dictionaries(texts, texts, max_size=3))
def test_whatever_is_read_can_be_written_as_json(one: str, two: str, number: int, metadata: dict[str, str]) -> None:
    said = proxy_config(
        tracing={"customTags": {one: {"literal": {"value": two}}}, "stackdriver": {"maxNumberOfAttributes": number}},
        proxyMetadata=metadata,
        caCertificatesPem=[one, two],
    )
    shown = json.loads(json.dumps(proxy_config_json(said)))
    assert shown["tracing"]["stackdriver"]["maxNumberOfAttributes"] == str(number)
    assert shown["tracing"]["customTags"] == {one: {"literal": {"value": two}} if two else {"literal": {}}}


@pytest.mark.parametrize(
    ("sampling", "shown"), [(100.0, "100"), ("12.5", "12.5"), (0.1, "0.1"), (7, "7"), ("1e2", "100"), (1e21, "1e+21")]
)
def test_numbers_are_written_as_protobuf_writes_them(sampling: object, shown: str) -> None:
    said = proxy_config_json(proxy_config(tracing={"sampling": sampling}))["tracing"]["sampling"]
    assert json.dumps(said) == shown


def test_a_one_of_that_is_set_to_its_zero_is_written() -> None:
    shown = proxy_config_json(proxy_config(tracingServiceName="APP_LABEL_AND_NAMESPACE"))
    assert shown["tracingServiceName"] == "APP_LABEL_AND_NAMESPACE"
    assert "serviceCluster" not in shown


def test_the_example_has_every_field_of_every_message() -> None:
    left_out = {"tracingServiceName"}  # stands in place of serviceCluster
    assert set(EVERYTHING) == set(PROXY_CONFIG_FIELDS) - left_out
    for name, said in (("ConnectionSettings", "connectionSettings"), ("ProxyHeaders", "proxyHeaders")):
        assert set(EVERYTHING[said]) == {field.name for field in MESSAGES[name]}
    assert set(EVERYTHING["tracing"]) | set(OTHER_TRACERS) == {field.name for field in MESSAGES["Tracing"]}


def test_what_is_written_as_json_is_what_was_read_to_the_last_field() -> None:
    shown = proxy_config_json(proxy_config(**EVERYTHING))
    assert shown == {**EVERYTHING, "privateKeyProvider": {"qat": {"pollDelay": "0.01s", "fallback": False}}}
    assert proxy_config_json(proxy_config(**shown)) == shown


@pytest.mark.parametrize("tracer", OTHER_TRACERS)
def test_each_tracer_is_written_as_it_was_read(tracer: str) -> None:
    said = {tracer: OTHER_TRACERS[tracer]}
    assert proxy_config_json(proxy_config(tracing=said))["tracing"] == said
