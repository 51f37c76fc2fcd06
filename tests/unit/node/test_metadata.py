"""The node as istiod sees it: how its metadata is put together, its locality, id and cluster."""

import json
from typing import Any

import pytest

from pilot_agent.errors import SettingsError
from pilot_agent.node.metadata import BOOLEAN_KEYS, Node, build_node, cluster_name
from pilot_agent.node.podinfo import PodInfo
from pilot_agent.settings.proto_json import proxy_config_json
from tests.unit.settings.told import proxy_config, told

NO_POD = PodInfo(None, None)
ADDRESSES = ["10.1.2.3", "fd00::5"]


def node(
    config: dict[str, Any] | None = None,
    pod: PodInfo = NO_POD,
    addresses: list[str] | None = None,
    env: dict[str, str] | None = None,
    **flags: Any,
) -> Node:
    settings = told(config or {}, env=env, **flags)
    return build_node(settings, pod, ADDRESSES if addresses is None else addresses, "9.8.7")


def metadata(**env: str) -> dict[str, Any]:
    return node(env=env).metadata


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


def test_the_dns_proxy_is_told_unless_empty() -> None:
    assert metadata(DNS_PROXY_ADDR="[::1]:53")["DNS_PROXY_ADDR"] == "[::1]:53"
    assert "DNS_PROXY_ADDR" not in metadata(DNS_PROXY_ADDR="")


# Types


@pytest.mark.parametrize("key", [key for key in BOOLEAN_KEYS if "EXIT_ON" not in key and "ENVOY_SKIP" not in key])
def test_booleans_are_texts_in_any_spelling_of_true(key: str) -> None:
    for word in ("1", "t", "True", "true"):
        assert metadata(**{f"ISTIO_META_{key}": word})[key] == "true"
    assert metadata(ISTIO_METAJSON_X=json.dumps({key: "T"}))[key] == "true"


def test_a_false_boolean_shows_as_it_was_written() -> None:
    assert metadata(ISTIO_META_ENABLE_HBONE="F")["ENABLE_HBONE"] == "F"


@pytest.mark.parametrize("key", BOOLEAN_KEYS)
@pytest.mark.parametrize("word", ["", "yes", "2"])
def test_another_word_is_fatal(key: str, word: str) -> None:
    with pytest.raises(SettingsError) as refused:
        metadata(**{f"ISTIO_META_{key}": word})
    assert str(refused.value) == f"ISTIO_META_{key}: {word!r} is not a boolean: write true or false"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("ISTIO_META_LABELS", "x", "ISTIO_META_LABELS: 'x' is not an object: use ISTIO_METAJSON_LABELS"),
        (
            "ISTIO_META_PLATFORM_METADATA",
            "",
            "ISTIO_META_PLATFORM_METADATA: '' is not an object: use ISTIO_METAJSON_PLATFORM_METADATA",
        ),
        (
            "ISTIO_META_ENVOY_STATUS_PORT",
            "1",
            "ISTIO_META_ENVOY_STATUS_PORT: '1' is not a number: set ENVOY_STATUS_PORT instead",
        ),
        ("ISTIO_METAJSON_X", "[1]", "ISTIO_METAJSON_X: '[1]' is not a JSON object"),
        ("ISTIO_METAJSON_X", "{", "ISTIO_METAJSON_X: '{' is not JSON: "),
        ("ISTIO_METAJSON_X", "", "ISTIO_METAJSON_X: '' is not JSON: "),
    ],
)
def test_a_value_of_the_wrong_type_is_fatal_and_names_the_variable(name: str, value: str, error: str) -> None:
    with pytest.raises(SettingsError) as refused:
        metadata(**{name: value})
    assert str(refused.value).startswith(error)


@pytest.mark.parametrize(("hbone", "discovery"), [("true", "true"), ("1", "true"), ("false", "false")])
def test_metadata_discovery_follows_hbone_and_is_always_there(hbone: str, discovery: str) -> None:
    assert metadata(ISTIO_META_ENABLE_HBONE=hbone)["METADATA_DISCOVERY"] == discovery


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


# Labels and annotations


def test_labels_of_a_variable_show_up_three_times() -> None:
    found = metadata(ISTIO_METAJSON_LABELS='{"app": "web", "replicas": 3}')
    assert found["LABELS"] == {"app": "web", "replicas": ""}
    assert found["STATIC_LABELS"] == {"app": "web", "replicas": ""}
    assert (found["app"], found["replicas"]) == ("web", 3)


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


# Locality


@pytest.mark.parametrize(
    ("labels", "locality", "text"),
    [
        ({"istio-locality": "r.z.s"}, {"region": "r", "zone": "z", "sub_zone": "s"}, "r/z/s"),
        ({"istio-locality": "r/z.1/s"}, {"region": "r", "zone": "z.1", "sub_zone": "s"}, "r/z.1/s"),
        ({"topology.istio.io/locality": "a.b", "istio-locality": "c.d"}, {"region": "a", "zone": "b"}, "a/b"),
        ({"istio-locality": "r"}, {"region": "r"}, "r"),
        ({"istio-locality": "r//s"}, {"region": "r", "sub_zone": "s"}, "r//s"),
        ({"istio-locality": "r/z/s/more"}, {"region": "r", "zone": "z", "sub_zone": "s"}, "r/z/s/more"),
        ({"istio-locality": ""}, {}, ""),
        ({"app": "x"}, {}, None),
    ],
)
def test_locality(labels: dict[str, str], locality: dict[str, str], text: str | None) -> None:
    found = node(pod=PodInfo(labels, None))
    assert found.locality == locality
    assert found.metadata["LABELS"].get("istio-locality") == text
    assert {key: value for key, value in found.metadata["LABELS"].items() if key != "istio-locality"} == {
        key: value for key, value in labels.items() if key != "istio-locality"
    }


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


# Cluster


@pytest.mark.parametrize(
    ("config", "facts", "expected"),
    [
        ({}, {}, "istio-proxy"),
        ({}, {"NAMESPACE": "ns"}, "istio-proxy.ns"),
        ({}, {"NAMESPACE": "ns", "WORKLOAD_NAME": "w"}, "w.ns"),
        ({}, {"NAMESPACE": "ns", "WORKLOAD_NAME": "w", "LABELS": {"app": "a"}}, "a.ns"),
        ({}, {"LABELS": {"app": "z"}}, "z."),
        ({}, {"NAMESPACE": "ns", "LABELS": {"app.kubernetes.io/name": "k", "app": ""}}, "k.ns"),
        ({}, {"NAMESPACE": "ns", "LABELS": {"service.istio.io/canonical-name": "c"}}, "c.ns"),
        (
            {},
            {"NAMESPACE": "ns", "LABELS": {"service.istio.io/canonical-name": "c", "app.kubernetes.io/name": "k"}},
            "k.ns",
        ),
        ({"serviceCluster": "mine"}, {"NAMESPACE": "ns", "LABELS": {"app": "a"}}, "mine"),
        ({"tracingServiceName": "APP_LABEL_AND_NAMESPACE"}, {"NAMESPACE": "ns", "LABELS": {"app": "a"}}, "a.ns"),
        ({"tracingServiceName": "APP_LABEL_AND_NAMESPACE"}, {"NAMESPACE": "ns"}, "istio-proxy.ns"),
        (
            {"tracingServiceName": "CANONICAL_NAME_ONLY"},
            {"NAMESPACE": "ns", "LABELS": {"app": "a", "service.istio.io/canonical-name": "c"}},
            "c",
        ),
        ({"tracingServiceName": "CANONICAL_NAME_ONLY"}, {"NAMESPACE": "ns", "WORKLOAD_NAME": "w"}, "w"),
        ({"tracingServiceName": "CANONICAL_NAME_ONLY"}, {"NAMESPACE": "ns"}, "istio-proxy.ns"),
        (
            {"tracingServiceName": "CANONICAL_NAME_AND_NAMESPACE"},
            {"NAMESPACE": "ns", "LABELS": {"app": "a", "app.kubernetes.io/name": "k"}},
            "k.ns",
        ),
        ({"tracingServiceName": "CANONICAL_NAME_AND_NAMESPACE"}, {"NAMESPACE": "ns"}, "istio-proxy.ns"),
        ({"tracingServiceName": "CANONICAL_NAME_AND_NAMESPACE"}, {"LABELS": {"app": "a"}}, "a"),
    ],
)
def test_cluster(config: dict[str, Any], facts: dict[str, Any], expected: str) -> None:
    assert cluster_name(proxy_config(**config), facts) == expected


def test_the_nodes_cluster_comes_from_its_own_metadata() -> None:
    found = node(pod=PodInfo({"app": "web"}, None), env={"POD_NAMESPACE": "shop"})
    assert found.cluster == "web.shop"


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
