"""Nested messages of ProxyConfig: read by their schema, merged as Istio merges, written as proto3 JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.errors import SettingsError
from pilot_agent.settings.mesh import Layers
from pilot_agent.settings.proto_json import proxy_config_json
from pilot_agent.settings.schema import MESSAGES, ONE_OFS, PROXY_CONFIG_FIELDS
from pilot_agent.values import Duration
from tests.unit.settings.told import proxy_config, told


def layered(*documents: dict[str, Any], is_deep: bool = False) -> Layers:
    layers = Layers(is_deep=is_deep)
    for number, document in enumerate(documents, start=1):
        layers.add(document, str(number))
    return layers


def values(**fields: Any) -> dict[str, Any]:
    return proxy_config(**fields).values


# Reading


def test_every_message_and_one_of_of_the_schema_is_there() -> None:
    used = {field.message for field in PROXY_CONFIG_FIELDS.values()}
    used |= {field.message for fields in MESSAGES.values() for field in fields}
    assert used - {""} == set(MESSAGES)
    for name, groups in ONE_OFS.items():
        assert {each for group in groups for each in group} <= {field.name for field in MESSAGES[name]}


def test_names_in_snake_case_count_at_every_depth() -> None:
    said = {"tracing": {"tls_settings": {"ca_certificates": "/ca"}, "enable_istio_tags": False}}
    assert values(**said)["tracing"] == {"tlsSettings": {"caCertificates": "/ca"}, "enableIstioTags": False}


def test_values_get_their_types_at_every_depth() -> None:
    found = values(
        tracing={"stackdriver": {"maxNumberOfAttributes": "5"}, "sampling": 1.5, "maxPathTagLength": "256"},
        envoyMetricsService={"address": "m:1", "tcpKeepalive": {"time": "1m30s", "probes": "3"}},
        gatewayTopology={"forwardClientCertDetails": 2, "numTrustedProxies": 1, "proxyProtocol": {}},
    )
    assert found["tracing"] == {
        "stackdriver": {"maxNumberOfAttributes": 5},
        "sampling": 1.5,
        "maxPathTagLength": 256,
    }
    assert found["envoyMetricsService"]["tcpKeepalive"] == {"time": Duration.of(90), "probes": 3}
    assert found["gatewayTopology"] == {
        "forwardClientCertDetails": "FORWARD_ONLY",
        "numTrustedProxies": 1,
        "proxyProtocol": {},
    }


def test_null_leaves_a_nested_field_unset() -> None:
    assert values(tracing={"zipkin": None, "sampling": None})["tracing"] == {}


def test_maps_of_messages_are_read_entry_by_entry() -> None:
    tags = {"a": {"literal": {"value": "x"}}, "b": {"header": {"name": "h", "default_value": "d"}}}
    assert values(tracing={"customTags": tags})["tracing"]["customTags"] == {
        "a": {"literal": {"value": "x"}},
        "b": {"header": {"name": "h", "defaultValue": "d"}},
    }


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"tracing": []}, "PROXY_CONFIG: tracing: [] is not a mapping"),
        ({"tracing": {"zipkin": "z:1"}}, "PROXY_CONFIG: tracing.zipkin: 'z:1' is not a mapping"),
        ({"tracing": {"zipkin": {"address": 5}}}, "PROXY_CONFIG: tracing.zipkin.address: 5 is not a text"),
        ({"tracing": {"sampling": "all"}}, "PROXY_CONFIG: tracing.sampling: 'all' is not a number"),
        (
            {"tracing": {"maxPathTagLength": -1}},
            "PROXY_CONFIG: tracing.maxPathTagLength: -1 is out of range: 0 to",
        ),
        (
            {"tracing": {"customTags": {"a": {"literal": 5}}}},
            "PROXY_CONFIG: tracing.customTags.a.literal: 5 is not a mapping",
        ),
        (
            {"envoyMetricsService": {"tlsSettings": {"mode": "mutual"}}},
            "PROXY_CONFIG: envoyMetricsService.tlsSettings.mode: 'mutual' is unknown; use one of DISABLE, SIMPLE, M",
        ),
        (
            {"envoyAccessLogService": {"tcpKeepalive": {"time": 5}}},
            "PROXY_CONFIG: envoyAccessLogService.tcpKeepalive.time: 5 is not a duration",
        ),
        (
            {"proxyStatsMatcher": {"inclusionRegexps": "x"}},
            "PROXY_CONFIG: proxyStatsMatcher.inclusionRegexps: 'x' is not",
        ),
        ({"fileFlushMinSizeKb": 2**32}, "PROXY_CONFIG: fileFlushMinSizeKb: 4294967296 is out of range"),
        ({"concurrency": 2**31}, "PROXY_CONFIG: concurrency: 2147483648 is out of range"),
    ],
)
def test_a_wrong_value_is_told_with_its_whole_path(config: dict[str, Any], error: str) -> None:
    with pytest.raises(SettingsError) as refused:
        told(config)
    assert str(refused.value).startswith(error)


def test_a_token_of_the_wrong_type_is_not_shown() -> None:
    with pytest.raises(SettingsError) as refused:
        told({"tracing": {"lightstep": {"address": "l:1", "accessToken": 123456}}})
    assert "123456" not in str(refused.value)
    assert "tracing.lightstep.accessToken: (hidden) is not a text" in str(refused.value)


def test_unknown_nested_fields_are_warnings_with_their_path_and_the_nearest_name() -> None:
    said = told({"tracing": {"zipkin": {"adress": "z:1", "address": "z:2"}, "zzz": 1}})
    assert said.warnings == (
        "PROXY_CONFIG: unknown ProxyConfig field 'tracing.zipkin.adress' is ignored; did you mean address?",
        "PROXY_CONFIG: unknown ProxyConfig field 'tracing.zzz' is ignored",
    )


def test_of_two_tracers_in_one_document_the_last_counts() -> None:
    said = told({"tracing": {"zipkin": {"address": "z:1"}, "datadog": {"address": "d:1"}}})
    assert said.proxy_config.tracing == {"datadog": {"address": "d:1"}}
    assert said.warnings == ("PROXY_CONFIG: tracing.zipkin is ignored: tracing.datadog stands beside it",)


# Layers


def test_a_layer_replaces_a_whole_message_and_says_what_is_lost() -> None:
    layers = layered({"tracing": {"zipkin": {"address": "z:1"}, "sampling": 1}}, {"tracing": {"sampling": 5}})
    assert layers.result().tracing == {"sampling": 5}
    assert layers.warnings == [
        "2: tracing replaces the one of 1: zipkin.address is lost; --deepMerge keeps what a layer does not name"
    ]


def test_a_layer_that_repeats_what_is_below_loses_nothing() -> None:
    below = {"tracing": {"zipkin": {"address": "z:1"}}, "image": {"imageType": "a"}}
    above = {"tracing": {"zipkin": {"address": "z:2"}, "sampling": 1}, "image": {"imageType": "b"}}
    assert layered(below, above).warnings == []


def test_a_deep_merge_keeps_what_a_layer_does_not_name() -> None:
    below = {"tracing": {"zipkin": {"address": "z:1"}, "sampling": 1}, "extraStatTags": ["a"]}
    above = {"tracing": {"sampling": 5, "tlsSettings": {"sni": "s"}}, "extraStatTags": ["b"]}
    layers = layered(below, above, is_deep=True)
    assert layers.result().tracing == {"zipkin": {"address": "z:1"}, "sampling": 5, "tlsSettings": {"sni": "s"}}
    assert layers.result().extra_stat_tags == ["b"], "lists are replaced"
    assert layers.warnings == []


def test_some_proxy_headers_stay_when_a_layer_does_not_name_them() -> None:
    below = {
        "proxyHeaders": {"server": {"value": "a"}, "requestId": {"disabled": True}, "preserveHttp1HeaderCase": True}
    }
    found = layered(below, {"proxyHeaders": {"attemptCount": {"disabled": True}}}).result().values["proxyHeaders"]
    assert found == {
        "server": {"value": "a"},
        "requestId": {"disabled": True},
        "attemptCount": {"disabled": True},
    }


def test_each_key_of_proxy_metadata_has_its_own_source() -> None:
    config = layered({"proxyMetadata": {"A": "1", "B": "1"}}, {"proxyMetadata": {"B": "2"}}).result()
    assert config.proxy_metadata == {"A": "1", "B": "2"}
    assert (config.sources["proxyMetadata.A"], config.sources["proxyMetadata.B"]) == ("1", "2")


# As JSON


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
