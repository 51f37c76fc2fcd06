"""Nested messages of ProxyConfig, read by their schema: types, paths in errors and warnings, accessors."""

from typing import Any

import pytest

from pilot_agent.errors import SettingsError
from pilot_agent.settings.mesh import Layers
from pilot_agent.settings.model import ProxyConfig
from pilot_agent.settings.schema import MESSAGES, ONE_OFS, PROXY_CONFIG_FIELDS
from pilot_agent.values import Duration
from tests.unit.settings.everything import EVERYTHING
from tests.unit.settings.told import proxy_config, told


def told_by_a_layer(document: dict[str, Any]) -> ProxyConfig:
    """Without the detour over JSON, which can't say everything YAML can."""
    layers = Layers()
    layers.add(document, "1")
    return layers.result()


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


def test_enums_in_a_list_go_by_name_or_number() -> None:
    agent = values(tracing={"openCensusAgent": {"context": [1, "B3"]}})["tracing"]["openCensusAgent"]
    assert agent == {"context": ["W3C_TRACE_CONTEXT", "B3"]}
    with pytest.raises(SettingsError, match=r"openCensusAgent.context: 'X' is unknown; use one of UNSPECIFIED, W3C"):
        values(tracing={"openCensusAgent": {"context": ["X"]}})


@pytest.mark.parametrize(("said", "read"), [(5.0, 5), (1e3, 1000), ("-5", -5)])
def test_whole_numbers_are_integers_however_they_are_written(said: object, read: int) -> None:
    found = values(statNameLength=said)["statNameLength"]
    assert (found, type(found)) == (read, int)


@pytest.mark.parametrize("said", ["1_000", " 5", "٣", "5.0", "", float("inf"), float("nan"), "9" * 5000])
def test_what_only_python_takes_for_an_integer_is_none(said: object) -> None:
    with pytest.raises(SettingsError, match=r"1: statNameLength: .* is not an integer"):
        told_by_a_layer({"statNameLength": said})


@pytest.mark.parametrize("said", ["nan", "inf", "-Infinity", True, None.__class__, [1]])
def test_what_is_no_finite_number_is_none(said: object) -> None:
    with pytest.raises(SettingsError, match=r"1: tracing.sampling: .* is not a (finite )?number"):
        told_by_a_layer({"tracing": {"sampling": said}})


@pytest.mark.parametrize(
    "config",
    [
        {"tracing": [{"lightstep": {"accessToken": "hunter2"}}]},
        {"tracing": {"lightstep": [{"accessToken": "hunter2"}]}},
        {"tracing": {"lightstep": {"accessToken": ["hunter2"]}}},
        {"extraStatTags": {"token": "hunter2"}},
        {"proxyMetadata": {"MY_TOKEN": {"a": "hunter2"}}},
        {"proxyMetadata": {"A": {"password": "hunter2"}}},
        {"configPath": {"secret": "hunter2"}},
        {"readinessProbe": [{"httpHeaders": [{"name": "Authorization", "value": "hunter2"}]}]},
    ],
)
def test_no_error_quotes_a_secret_inside_a_value(config: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        told(config)
    assert "hunter2" not in str(refused.value)
    assert "(hidden)" in str(refused.value)


# Typed access


def test_the_messages_the_bootstrap_needs_have_accessors() -> None:
    config = proxy_config(**EVERYTHING)
    assert config.metrics_service["address"] == "ms:6"
    assert config.access_log_service["address"] == "als:5"
    assert config.tracing["sampling"] == 1.5
    assert config.connection_settings["httpIdleTimeout"] == Duration.of(1)
    assert config.private_key_provider == {"qat": {"pollDelay": Duration.of(0.01), "fallback": False}}
    assert config.statsd_udp_address == "s:2"
    unset = proxy_config()
    assert (unset.metrics_service, unset.access_log_service, unset.tracing, unset.connection_settings) == ({},) * 4
    assert (unset.private_key_provider, unset.statsd_udp_address) == ({}, "")


# What only YAML can say


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("readinessProbe: {since: 2020-01-01}", "readinessProbe: there is something in it that JSON can't say"),
        ("readinessProbe: {limit: .nan}", "readinessProbe: there is something in it that JSON can't say"),
        ("readinessProbe: &me {me: *me}", "readinessProbe: there is something in it that JSON can't say"),
        ("configPath: &me [*me]", "configPath: a value that never ends is not a text"),
        ("tracing: &me [*me]", "tracing: a value that never ends is not a mapping"),
        ("drainDuration: " + "9" * 400 + "s", "drainDuration: '999"),
        ("drainDuration: 100000000h", "drainDuration: '100000000h' is too long for a duration"),
        ("[" * 100000, "n"),  # YAML's readers have words of their own for it
        ('{"tracing": ' + "[" * 100000, "nested too deeply"),
    ],
)
def test_what_can_not_be_used_is_an_error_of_one_line(text: str, error: str) -> None:
    with pytest.raises(SettingsError) as refused:
        told(text)
    assert str(refused.value).startswith(f"PROXY_CONFIG: {error}")
    assert "\n" not in str(refused.value)


def test_a_free_message_is_kept_as_json_says_it() -> None:
    assert told("readinessProbe: {5: [a, null, 2.5], on: {x: 0}}").proxy_config.values["readinessProbe"] == {
        "5": ["a", None, 2.5],
        "true": {"x": 0},
    }


def test_a_field_that_makes_istios_agent_panic_is_only_unknown() -> None:
    assert told({"envoyMetricsServiceAddress": "m:1"}).warnings == (
        "PROXY_CONFIG: unknown ProxyConfig field 'envoyMetricsServiceAddress' is ignored; "
        "did you mean envoyMetricsService?",
    )
