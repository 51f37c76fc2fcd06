"""ProxyConfig documents: how they are read, and what one layer does to those below it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.errors import SettingsError
from pilot_agent.settings.mesh import Layers, parse_document
from pilot_agent.settings.model import ProxyConfig
from pilot_agent.settings.reading import nearest
from pilot_agent.settings.schema import PROXY_CONFIG_FIELDS
from pilot_agent.values import Duration, camel_case


def layered(*documents: str | dict[str, Any]) -> ProxyConfig:
    """The result of documents, the lowest first, from sources called 1, 2, ..."""
    return layers(*documents).result()


def layers(*documents: str | dict[str, Any]) -> Layers:
    made = Layers()
    for number, document in enumerate(documents, start=1):
        content = parse_document(document, str(number)) if isinstance(document, str) else document
        made.add(content, str(number))
    return made


# Reading


@pytest.mark.parametrize("text", ["", " \n\t", "# nothing\n", "null", "{}", "---\n"])
def test_a_document_without_content_is_empty(text: str) -> None:
    assert parse_document(text, "here") == {}


@pytest.mark.parametrize(
    "text", ['{"statusPort": 15999}', "statusPort: 15999", "{statusPort: 15999}", '\n  {"statusPort": 15999}  ']
)
def test_json_and_yaml_say_the_same(text: str) -> None:
    assert parse_document(text, "here") == {"statusPort": 15999}


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=5,
    )
)
def test_what_the_injector_writes_as_json_is_read_as_it_is(document: dict[str, Any]) -> None:
    assert parse_document(json.dumps(document), "here") == document


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("just words", "here: expected a mapping of fields, got str"),
        ("[a, b]", "here: expected a mapping of fields, got list"),
        ("5", "here: expected a mapping of fields, got int"),
        ("a: b: c", "here: not valid YAML: line 1, column 5: mapping values are not allowed in this context"),
        ("a: 1\nb: [1,\n", "here: not valid YAML: line "),
        ('{"a": 1', "here: not valid YAML: line "),
        ("a: \x00", "here: not valid YAML: unacceptable character #x0000"),
        ("? [a]\n: b", "here: not valid YAML: line 1, column 3: found unhashable key"),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(text: str, error: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_document(text, "here")
    assert str(refused.value).startswith(error)
    assert "\n" not in str(refused.value)


# Names


def test_names_in_snake_case_are_the_same_fields() -> None:
    assert layered("status_port: 1\nproxy_admin_port: 2\nca_certificates_pem: [x]").values["caCertificatesPem"] == ["x"]
    for name in PROXY_CONFIG_FIELDS:
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
        assert camel_case(snake) == name


def test_an_unknown_field_is_a_warning_with_the_nearest_name() -> None:
    made = layers("statusPrt: 1\nxyz: 2")
    assert made.warnings == [
        "1: unknown ProxyConfig field 'statusPrt' is ignored; did you mean statusPort?",
        "1: unknown ProxyConfig field 'xyz' is ignored",
    ]
    assert made.result().status_port == 15020


def test_the_nearest_name_is_only_told_where_it_is_near() -> None:
    assert nearest("drainDuraton") == "; did you mean drainDuration?"
    assert nearest("completelyOther") == ""


# Values


@pytest.mark.parametrize(
    ("document", "name", "value"),
    [
        ("configPath: /run/proxy", "configPath", "/run/proxy"),
        ("statusPort: 1234", "statusPort", 1234),
        ("statusPort: '1234'", "statusPort", 1234),
        ("concurrency: 0", "concurrency", 0),
        ("statsCompression: false", "statsCompression", False),
        ("statsCompression: off", "statsCompression", False),
        ("statsCompression: yes", "statsCompression", True),
        ("drainDuration: 1m30s", "drainDuration", Duration.of(90)),
        ("drainDuration: 90s", "drainDuration", Duration.of(90)),
        ("terminationDrainDuration: 250ms", "terminationDrainDuration", Duration.of(0.25)),
        ("controlPlaneAuthPolicy: NONE", "controlPlaneAuthPolicy", "NONE"),
        ("controlPlaneAuthPolicy: 0", "controlPlaneAuthPolicy", "NONE"),
        ("interceptionMode: TPROXY", "interceptionMode", "TPROXY"),
        ("interceptionMode: 1", "interceptionMode", "TPROXY"),
        ("proxyMetadata: {A: b}", "proxyMetadata", {"A": "b"}),
        ("proxyMetadata: {on: x, off: y, 5: z}", "proxyMetadata", {"true": "x", "false": "y", "5": "z"}),
        ("extraStatTags: [a, b]", "extraStatTags", ["a", "b"]),
        ("tracing: {}", "tracing", {}),
        ("tracing: {sampling: 10}", "tracing", {"sampling": 10}),
    ],
)
def test_values(document: str, name: str, value: object) -> None:
    config = layered(document)
    assert config.values[name] == value
    assert type(config.values[name]) is type(value)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ("configPath: 5", "1: configPath: 5 is not a text: put it in quotes"),
        ("configPath: yes", "1: configPath: True is not a text: put it in quotes"),
        ("statusPort: many", "1: statusPort: 'many' is not an integer"),
        ("statusPort: 1.5", "1: statusPort: 1.5 is not an integer"),
        ("statusPort: on", "1: statusPort: True is not an integer"),
        ("statusPort: [1]", "1: statusPort: [1] is not an integer"),
        ("statsCompression: 'false'", "1: statsCompression: 'false' is not a boolean: write true or false"),
        ("statsCompression: 0", "1: statsCompression: 0 is not a boolean: write true or false"),
        (
            "drainDuration: 45",
            "1: drainDuration: 45 is not a duration: write a number with a unit in quotes, such as 5s",
        ),
        (
            "drainDuration: '45'",
            "1: drainDuration: '45' is not a duration: write a number with a unit, such as 5s, 250ms or 1m30s",
        ),
        ("controlPlaneAuthPolicy: none", "1: controlPlaneAuthPolicy: 'none' is unknown; use one of NONE, MUTUAL_TLS"),
        ("controlPlaneAuthPolicy: 2", "1: controlPlaneAuthPolicy: 2 is unknown; use one of NONE, MUTUAL_TLS"),
        ("interceptionMode: no", "1: interceptionMode: False is unknown; use one of REDIRECT, TPROXY, NONE"),
        ("interceptionMode: [NONE]", "1: interceptionMode: ['NONE'] is unknown; use one of REDIRECT, TPROXY, NONE"),
        ("proxyMetadata: {A: yes}", "1: proxyMetadata: value true of 'A' is not a text: put it in quotes"),
        ("proxyMetadata: {A: off}", "1: proxyMetadata: value false of 'A' is not a text: put it in quotes"),
        ("proxyMetadata: {A: 5}", "1: proxyMetadata: value 5 of 'A' is not a text: put it in quotes"),
        ("runtimeValues: {A: {b: c}}", "1: runtimeValues: value {'b': 'c'} of 'A' is not a text: put it in quotes"),
        ("runtimeValues: text", "1: runtimeValues: 'text' is not a mapping"),
        ("extraStatTags: a", "1: extraStatTags: 'a' is not a list of texts"),
        ("extraStatTags: [1]", "1: extraStatTags: [1] is not a list of texts"),
        ("tracing: zipkin", "1: tracing: 'zipkin' is not a mapping"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_source_field_and_value(document: str, error: str) -> None:
    with pytest.raises(SettingsError) as refused:
        layered(document)
    assert str(refused.value) == error


# Layers


def test_the_defaults_are_istios() -> None:
    config = layered()
    assert config.values == {
        "configPath": "./etc/istio/proxy",
        "binaryPath": "/usr/local/bin/envoy",
        "serviceCluster": "istio-proxy",
        "drainDuration": Duration.of(45),
        "terminationDrainDuration": Duration.of(5),
        "discoveryAddress": "istiod.istio-system.svc:15012",
        "proxyAdminPort": 15000,
        "controlPlaneAuthPolicy": "MUTUAL_TLS",
        "statNameLength": 189,
        "interceptionMode": "REDIRECT",
        "statusPort": 15020,
    }
    assert set(config.sources.values()) == {"default"}


def test_what_is_unset_reads_as_istios_default() -> None:
    config = layered()
    assert config.concurrency is None
    assert config.stats_compression is True
    assert config.file_flush_interval == Duration.of(1)
    assert config.file_flush_min_size_kb == 0
    assert (config.template_path, config.custom_config_file) == ("", "")
    assert (config.proxy_metadata, config.runtime_values, config.extra_stat_tags, config.stats_matcher) == (
        {},
        {},
        [],
        {},
    )


def test_the_higher_layer_wins_and_is_named_as_the_source() -> None:
    config = layered("statusPort: 1\nproxyAdminPort: 2", "statusPort: 3")
    assert (config.status_port, config.admin_port) == (3, 2)
    assert (config.sources["statusPort"], config.sources["proxyAdminPort"]) == ("2", "1")
    assert config.sources["configPath"] == "default"
    assert config.is_default("configPath")
    assert not config.is_default("statusPort")


def test_saying_the_default_is_not_the_same_as_saying_nothing() -> None:
    assert not layered("binaryPath: /usr/local/bin/envoy").is_default("binaryPath")


def test_null_leaves_a_field_alone() -> None:
    config = layered("statusPort: 1", "statusPort: null\nproxyMetadata: ~", '{"drainDuration": null}')
    assert config.status_port == 1
    assert config.sources["statusPort"] == "1"
    assert config.drain_duration == Duration.of(45)
    assert "proxyMetadata" not in config.values


def test_proxy_metadata_merges_by_key() -> None:
    config = layered("proxyMetadata: {A: '1', B: '2'}", "proxyMetadata: {B: '3', C: '4'}", "proxyMetadata: {}")
    assert config.proxy_metadata == {"A": "1", "B": "3", "C": "4"}


def test_proxy_headers_merge_by_sub_field() -> None:
    config = layered(
        "proxyHeaders: {server: {value: mine}, requestId: {disabled: true}}",
        "proxyHeaders: {server: {disabled: true}, attemptCount: {}}",
    )
    assert config.values["proxyHeaders"] == {
        "server": {"disabled": True},
        "requestId": {"disabled": True},
        "attemptCount": {},
    }


@pytest.mark.parametrize(
    ("below", "above", "left"),
    [
        ("tracing: {zipkin: {address: 'z:1'}}", "tracing: {sampling: 5}", {"tracing": {"sampling": 5}}),
        ("runtimeValues: {a: '1'}", "runtimeValues: {b: '2'}", {"runtimeValues": {"b": "2"}}),
        ("extraStatTags: [a, b]", "extraStatTags: [c]", {"extraStatTags": ["c"]}),
        ("tracing: {sampling: 5}", "tracing: {}", {"tracing": {}}),
        (
            "proxyStatsMatcher: {inclusionPrefixes: [a]}",
            "proxyStatsMatcher: {inclusionSuffixes: [b]}",
            {"proxyStatsMatcher": {"inclusionSuffixes": ["b"]}},
        ),
    ],
)
def test_other_messages_maps_and_lists_are_replaced_whole(below: str, above: str, left: dict[str, Any]) -> None:
    values = layered(below, above).values
    assert {name: values[name] for name in left} == left


def test_a_layer_does_not_change_the_documents_it_was_made_from() -> None:
    first: dict[str, Any] = {"proxyMetadata": {"A": "1"}}
    layered(first, {"proxyMetadata": {"B": "2"}})
    assert first == {"proxyMetadata": {"A": "1"}}


def test_service_cluster_and_tracing_service_name_are_one_of_the_two() -> None:
    traced = layered("serviceCluster: mine", "tracingServiceName: CANONICAL_NAME_ONLY")
    assert (traced.service_cluster, traced.tracing_service_name) == ("", "CANONICAL_NAME_ONLY")
    named = layered("tracingServiceName: CANONICAL_NAME_ONLY", "serviceCluster: mine")
    assert (named.service_cluster, named.tracing_service_name) == ("mine", None)
    assert "tracingServiceName" not in named.sources
    both = layered("tracingServiceName: CANONICAL_NAME_ONLY\nserviceCluster: mine")
    assert (both.service_cluster, both.tracing_service_name) == ("mine", None)


@given(st.lists(st.dictionaries(st.sampled_from("ABC"), st.text(max_size=3)), max_size=4))
def test_the_last_layer_that_has_a_key_decides_it(documents: list[dict[str, str]]) -> None:
    expected: dict[str, str] = {}
    for document in documents:
        expected |= document
    assert layered(*({"proxyMetadata": document} for document in documents)).proxy_metadata == expected
