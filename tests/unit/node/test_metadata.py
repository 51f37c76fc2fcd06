"""The node as istiod sees it: how its metadata is put together, and its id."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.errors import SettingsError
from pilot_agent.node.keys import METADATA_KEYS
from pilot_agent.node.podinfo import PodInfo
from pilot_agent.node.surroundings import Platform, Surroundings
from pilot_agent.settings.proto_json import proxy_config_json
from tests.unit.node.nodes import metadata, node
from tests.unit.settings.told import proxy_config

# Assembly


def test_what_every_node_says_of_itself() -> None:
    found = node().metadata
    assert {key: value for key, value in found.items() if key != "PROXY_CONFIG"} == {
        "DNS_PROXY_ADDR": "localhost:15053",
        "ENVOY_PROMETHEUS_PORT": 15090,
        "ENVOY_SKIP_DEPRECATED_LOGS": "true",
        "ENVOY_STATUS_PORT": 15021,
        "INSTANCE_IPS": "10.1.2.3,fd00::5",
        "ISTIO_VERSION": "9.8.7",
        "METADATA_DISCOVERY": "false",
        "PILOT_SAN": ["istiod.istio-system.svc"],
        "WORKLOAD_IDENTITY_SOCKET_FILE": "socket",
    }


def test_keys_come_sorted() -> None:
    found = metadata(ISTIO_META_ZULU="z", ISTIO_META_ALPHA="a", ISTIO_METAJSON_X='{"middle": 1, "Middle": 2}')
    assert list(found) == sorted(found)
    assert {"ZULU", "ALPHA", "middle", "Middle"} <= set(found)


def test_variables_come_over_proxy_metadata_and_json_over_variables() -> None:
    config = {"proxyMetadata": {"ISTIO_META_A": "config", "ISTIO_META_B": "config", "ISTIO_META_C": "config", "D": "x"}}
    env = {"ISTIO_META_B": "env", "ISTIO_META_C": "env", "ISTIO_METAJSON_ANY": '{"C": "json", "E": [1, {"f": null}]}'}
    found = node(config, env=env).metadata
    assert (found["A"], found["B"], found["C"]) == ("config", "env", "json")
    assert "D" not in found
    assert found["E"] == [1, {"f": None}]


def test_an_empty_variable_is_kept() -> None:
    assert metadata(ISTIO_META_EMPTY="")["EMPTY"] == ""


def test_what_the_agent_knows_comes_over_what_it_was_told() -> None:
    found = node(
        env={
            "ISTIO_META_INSTANCE_IPS": "1.1.1.1",
            "ISTIO_META_NAME": "wrong",
            "ISTIO_META_NAMESPACE": "kept",
            "ISTIO_META_METADATA_DISCOVERY": "true",
            "POD_NAME": "web-0",
            "SERVICE_ACCOUNT": "web",
            "ENVOY_SECURE_METRICS_PORT": "15091",
            "WORKLOAD_IDENTITY_SOCKET_FILE": "other",
        },
        sts_port=15463,
        outlier_log_path="/dev/stdout",
    ).metadata
    expected = {
        "INSTANCE_IPS": "10.1.2.3,fd00::5",
        "NAME": "web-0",
        "NAMESPACE": "kept",
        "SERVICE_ACCOUNT": "web",
        "METADATA_DISCOVERY": "false",
        "ENVOY_SECURE_METRICS_PORT": 15091,
        "WORKLOAD_IDENTITY_SOCKET_FILE": "other",
        "STS_PORT": "15463",
        "OUTLIER_LOG_PATH": "/dev/stdout",
    }
    assert {key: found.get(key) for key in expected} == expected


def test_addresses_are_told_once_each() -> None:
    assert node(addresses=["10.1.2.3", "10.1.2.4", "10.1.2.3"]).metadata["INSTANCE_IPS"] == "10.1.2.3,10.1.2.4"


def test_the_version_may_be_given() -> None:
    assert metadata(ISTIO_META_ISTIO_VERSION="1.2.3")["ISTIO_VERSION"] == "1.2.3"
    assert metadata(ISTIO_META_ISTIO_VERSION="")["ISTIO_VERSION"] == "9.8.7"


def test_what_the_agent_does_not_know_stays_as_it_was_told() -> None:
    env = {"ISTIO_META_STS_PORT": "1", "ISTIO_META_INSTANCE_IPS": "1.1.1.1", "ISTIO_META_PILOT_SANS": "a"}
    found = node({"controlPlaneAuthPolicy": "NONE"}, addresses=[], env=env).metadata
    assert (found["STS_PORT"], found["INSTANCE_IPS"], found["PILOT_SANS"]) == ("1", "1.1.1.1", "a")
    assert "PILOT_SAN" not in found


def test_the_dns_proxy_is_told_unless_empty() -> None:
    assert metadata(DNS_PROXY_ADDR="[::1]:53")["DNS_PROXY_ADDR"] == "[::1]:53"
    assert "DNS_PROXY_ADDR" not in metadata(DNS_PROXY_ADDR="")


# What the agent itself decides


@pytest.mark.parametrize(("hbone", "discovery"), [("true", "true"), ("1", "true"), ("false", "false")])
def test_metadata_discovery_follows_hbone_and_is_always_there(hbone: str, discovery: str) -> None:
    assert metadata(ISTIO_META_ENABLE_HBONE=hbone)["METADATA_DISCOVERY"] == discovery


@pytest.mark.parametrize(("word", "discovery"), [("true", "true"), ("1", "true"), ("false", "false"), ("", "false")])
@pytest.mark.parametrize("hbone", ["true", "false"])
def test_peer_metadata_discovery_comes_over_hbone(word: str, discovery: str, hbone: str) -> None:
    found = metadata(PEER_METADATA_DISCOVERY=word, ISTIO_META_ENABLE_HBONE=hbone)
    assert found["METADATA_DISCOVERY"] == discovery


def test_flags_that_are_off_are_not_told() -> None:
    found = metadata(ENVOY_SKIP_DEPRECATED_LOGS="false")
    assert "ENVOY_SKIP_DEPRECATED_LOGS" not in found
    assert "EXIT_ON_ZERO_ACTIVE_CONNECTIONS" not in found
    assert metadata(EXIT_ON_ZERO_ACTIVE_CONNECTIONS="true")["EXIT_ON_ZERO_ACTIVE_CONNECTIONS"] == "true"


@pytest.mark.parametrize(
    ("config", "flags", "names"),
    [
        ({}, {}, ["istiod.istio-system.svc"]),
        ({"discoveryAddress": "istiod.example.com:15012"}, {}, ["istiod.example.com"]),
        ({"discoveryAddress": "localhost:15012"}, {}, ["istiod.istio-system.svc"]),
        ({"discoveryAddress": "[fd00::1]:15012"}, {}, ["fd00::1"]),
        ({"controlPlaneAuthPolicy": "NONE"}, {}, None),
        ({}, {"config_dir": "mesh"}, None),
    ],
)
def test_the_name_the_control_plane_must_show(
    config: dict[str, Any], flags: dict[str, Any], names: list[str] | None
) -> None:
    assert node(config, **flags).metadata.get("PILOT_SAN") == names


# What is around


def test_the_cloud_is_told() -> None:
    found = node(around=Surroundings(Platform("gcp", metadata={"gcp_project": "shop"}))).metadata
    assert found["PLATFORM_METADATA"] == {"gcp_project": "shop"}
    assert "PLATFORM_METADATA" not in node(around=Surroundings(Platform("gcp"))).metadata


@pytest.mark.parametrize("credential", [False, True])
@pytest.mark.parametrize("workload", [False, True])
def test_sockets_of_others_are_told(credential: bool, workload: bool) -> None:
    around = Surroundings(has_credential_socket=credential, has_workload_sds=workload)
    found = node(around=around, env={"ISTIO_METAJSON_X": '{"credential": 5}'}).metadata
    assert found["credential"] == ("true" if credential else 5)
    assert found.get("file-credential") == ("true" if workload else None)


# Labels and annotations


def test_labels_of_a_variable_show_up_three_times() -> None:
    told_node = node(env={"ISTIO_METAJSON_LABELS": '{"app": "web", "replicas": 3}'})
    found = told_node.metadata
    assert found["LABELS"] == {"app": "web", "replicas": ""}
    assert found["STATIC_LABELS"] == {"app": "web", "replicas": ""}
    assert (found["app"], found["replicas"]) == ("web", 3)
    assert told_node.warnings == ("ISTIO_METAJSON_LABELS: replicas is not a text: the label is empty",)


def test_the_pods_labels_come_over_those_of_the_variable() -> None:
    pod = PodInfo({"app": "pod", "version": "v1"}, {"note": "text"})
    found = node(pod=pod, env={"ISTIO_METAJSON_LABELS": '{"app": "static", "team": "a"}'}).metadata
    assert found["LABELS"] == {"app": "pod", "team": "a", "version": "v1"}
    assert found["STATIC_LABELS"] == {"app": "static", "team": "a"}
    assert found["ANNOTATIONS"] == {"note": "text"}


def test_only_the_variable_called_labels_makes_labels() -> None:
    found = metadata(ISTIO_METAJSON_OTHER='{"app": "web"}')
    assert found["app"] == "web"
    assert "LABELS" not in found


def test_annotations_come_from_the_file_only() -> None:
    found = metadata(ISTIO_METAJSON_ANNOTATIONS='{"note": "text"}')
    assert found["note"] == "text"
    assert "ANNOTATIONS" not in found


# Id


@pytest.mark.parametrize(
    ("env", "flags", "addresses", "expected"),
    [
        ({}, {}, ["10.1.2.3"], "sidecar~10.1.2.3~.~.svc.cluster.local"),
        (
            {"POD_NAME": "web-0", "POD_NAMESPACE": "shop"},
            {},
            ["10.1.2.3", "fd00::5"],
            "sidecar~10.1.2.3~web-0.shop~shop.svc.cluster.local",
        ),
        ({"POD_NAME": "p"}, {"role": "router", "domain": "d"}, ["fd00::5"], "router~fd00::5~p.~d"),
        ({}, {}, [], "sidecar~~.~.svc.cluster.local"),
    ],
)
def test_node_id(env: dict[str, str], flags: dict[str, Any], addresses: list[str], expected: str) -> None:
    assert node(env=env, addresses=addresses, **flags).id == expected


# Whatever was told


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"a": NaN}', '{"a": 1e999}', "[" * 100_000])
def test_json_that_is_no_object_is_ignored_with_a_warning(text: str) -> None:
    found = node(env={"ISTIO_METAJSON_X": text})
    assert found.metadata == metadata()
    (warning,) = found.warnings
    assert warning.startswith("ISTIO_METAJSON_X is ignored: ")
    assert "it is not a JSON object: " in warning
    assert len(warning) < 300


def test_an_instance_ip_that_is_none_is_a_warning() -> None:
    assert node(env={"INSTANCE_IP": "web-0"}).warnings == ("INSTANCE_IP is ignored: 'web-0' is not an IP address",)
    assert node(env={"INSTANCE_IP": "10.1.2.3"}).warnings == ()


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    """Envoy refuses a bootstrap with half a surrogate pair in it."""
    env = {"POD_NAME": "a\udcffb", "ISTIO_META_A": "\udc80", "ISTIO_METAJSON_X": r'{"b\ud83d\ude00": ["\ud800"]}'}
    found = node(env=env)
    assert found.id == "sidecar~10.1.2.3~a\ufffdb.~.svc.cluster.local"
    assert found.metadata["NAME"] == "a\ufffdb"
    assert (found.metadata["A"], found.metadata["b\U0001f600"]) == ("\ufffd", ["\ufffd"])


ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=12)
ANY_KEY = st.sampled_from([key.name for key in METADATA_KEYS]) | ANY_TEXT
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda items: st.lists(items, max_size=3) | st.dictionaries(ANY_KEY, items, max_size=3),
    max_leaves=6,
).map(json.dumps)
ANY_VALUE = ANY_JSON | ANY_TEXT | st.sampled_from(["true", "0", "10.1.2.3", "[]"])
ANY_NAME = (
    ANY_KEY.map("ISTIO_META_{}".format)
    | ANY_TEXT.map("ISTIO_METAJSON_{}".format)
    | st.just("ISTIO_METAJSON_LABELS")
    | st.sampled_from(["POD_NAME", "POD_NAMESPACE", "INSTANCE_IP", "SERVICE_ACCOUNT", "WORKLOAD_IDENTITY_SOCKET_FILE"])
)
ANY_MAP = st.dictionaries(st.sampled_from(["app", "istio-locality"]) | ANY_TEXT, ANY_TEXT, max_size=3)


@given(st.dictionaries(ANY_NAME, ANY_VALUE, max_size=4), ANY_MAP | st.none(), ANY_MAP, ANY_MAP)
def test_whatever_was_told_makes_json_in_order_or_a_settings_error(
    env: dict[str, str], labels: dict[str, str] | None, annotations: dict[str, str], told_metadata: dict[str, str]
) -> None:
    config = {"proxyMetadata": {f"ISTIO_META_{key}": text for key, text in told_metadata.items()}}
    try:
        found = node(config, PodInfo(labels, annotations), env=env)
    except SettingsError as error:
        assert "\n" not in str(error)
        return
    assert list(found.metadata) == sorted(found.metadata)
    document = json.dumps(found._asdict(), allow_nan=False, ensure_ascii=False)
    assert json.loads(document.encode("utf-8"))["metadata"] == found.metadata
    assert all("\n" not in warning for warning in found.warnings)


# The ProxyConfig in the metadata


def test_the_defaults_as_protobufs_json() -> None:
    assert proxy_config_json(proxy_config()) == {
        "configPath": "./etc/istio/proxy",
        "binaryPath": "/usr/local/bin/envoy",
        "serviceCluster": "istio-proxy",
        "drainDuration": "45s",
        "terminationDrainDuration": "5s",
        "discoveryAddress": "istiod.istio-system.svc:15012",
        "proxyAdminPort": 15000,
        "controlPlaneAuthPolicy": "MUTUAL_TLS",
        "statNameLength": 189,
        "statusPort": 15020,
    }


@pytest.mark.parametrize(
    ("config", "name", "shown"),
    [
        ({"statNameLength": 0}, "statNameLength", None),
        ({"zipkinAddress": ""}, "zipkinAddress", None),
        ({"proxyMetadata": {}}, "proxyMetadata", None),
        ({"extraStatTags": []}, "extraStatTags", None),
        ({"controlPlaneAuthPolicy": "NONE"}, "controlPlaneAuthPolicy", None),
        ({"interceptionMode": "REDIRECT"}, "interceptionMode", None),
        ({"interceptionMode": "TPROXY"}, "interceptionMode", "TPROXY"),
        ({"tracing": {}}, "tracing", {}),
        ({"tracing": {"sampling": 1}}, "tracing", {"sampling": 1}),
        ({"drainDuration": "1m30s"}, "drainDuration", "90s"),
        ({"terminationDrainDuration": "250ms"}, "terminationDrainDuration", "0.25s"),
        ({"terminationDrainDuration": "0s"}, "terminationDrainDuration", "0s"),
        ({"concurrency": 0}, "concurrency", 0),
        ({"concurrency": 2}, "concurrency", 2),
        ({}, "concurrency", None),
        ({"tracingServiceName": "CANONICAL_NAME_ONLY"}, "tracingServiceName", "CANONICAL_NAME_ONLY"),
        ({"tracingServiceName": "CANONICAL_NAME_ONLY"}, "serviceCluster", None),
        ({"statsCompression": True}, "statsCompression", True),
    ],
)
def test_what_of_the_proxy_config_is_shown(config: dict[str, Any], name: str, shown: object) -> None:
    assert proxy_config_json(proxy_config(**config)).get(name) == shown


def test_the_shown_proxy_config_is_json() -> None:
    config = proxy_config(drainDuration="1s", proxyMetadata={"A": '"quoted"\n'}, tracing={"zipkin": {"address": "z:1"}})
    shown = proxy_config_json(config)
    assert json.loads(json.dumps(shown)) == shown
    assert node({"proxyMetadata": {"A": "b"}}).metadata["PROXY_CONFIG"]["proxyMetadata"] == {"A": "b"}
