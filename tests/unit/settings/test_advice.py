"""Warnings about settings without effect, and none about what an injector does."""

import json
from typing import Any

import pytest

from tests.unit.settings.told import told

INJECTED_CONFIG = {
    "configPath": "./etc/istio/proxy",
    "binaryPath": "/usr/local/bin/envoy",
    "serviceCluster": "istio-proxy",
    "drainDuration": "45s",
    "terminationDrainDuration": "5s",
    "discoveryAddress": "istiod.istio-system.svc:15012",
    "proxyAdminPort": 15000,
    "controlPlaneAuthPolicy": "MUTUAL_TLS",
    "statusPort": 15020,
    "concurrency": 2,
    "tracing": {"zipkin": {"address": "zipkin.istio-system:9411"}},
    "proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true", "METRICS_LOCALHOST_ACCESS_ONLY": "true", "OTHER": "x"},
}
INJECTED = {
    **{name: str(value) for name, value in INJECTED_CONFIG["proxyMetadata"].items()},  # type: ignore[attr-defined]
    "PILOT_CERT_PROVIDER": "istiod",
    "CA_ADDR": "istiod.istio-system.svc:15012",
    "POD_NAME": "web-7d9c6-x2x4k",
    "POD_NAMESPACE": "shop",
    "INSTANCE_IP": "10.1.2.3",
    "SERVICE_ACCOUNT": "web",
    "HOST_IP": "192.168.0.5",
    "ISTIO_CPU_LIMIT": "2",
    "GOMEMLIMIT": "1073741824",
    "GOMAXPROCS": "2",
    "ISTIO_META_POD_PORTS": '[\n{"containerPort":8080,"protocol":"TCP"}\n]',
    "ISTIO_META_APP_CONTAINERS": "web",
    "ISTIO_META_CLUSTER_ID": "Kubernetes",
    "ISTIO_META_NODE_NAME": "node-1",
    "ISTIO_META_INTERCEPTION_MODE": "REDIRECT",
    "ISTIO_META_WORKLOAD_NAME": "web",
    "ISTIO_META_OWNER": "kubernetes://apis/apps/v1/namespaces/shop/deployments/web",
    "ISTIO_META_MESH_ID": "cluster.local",
    "TRUST_DOMAIN": "cluster.local",
    "JWT_POLICY": "third-party-jwt",
    "ISTIO_KUBE_APP_PROBERS": "{}",
}


NO_DNS_PROXY = (
    "ISTIO_META_DNS_CAPTURE: istiod's name table is taken and shown at /debug/ndsz, but this version has no DNS proxy: "
    "captured queries get no answer"
)


def warnings(config: dict[str, Any] | None = None, env: dict[str, str] | None = None, **flags: Any) -> tuple[str, ...]:
    return told(config or {}, env=env, **flags).warnings


def test_an_injected_pod_is_warned_of_what_this_version_lacks_only(tmp_path: Any) -> None:
    mesh = tmp_path / "mesh"
    mesh.write_text(json.dumps({"defaultConfig": {"tracing": {"zipkin": {"address": "zipkin.istio-system:9411"}}}}))
    assert warnings(INJECTED_CONFIG, INJECTED, mesh_config=str(mesh)) == (NO_DNS_PROXY,)


@pytest.mark.parametrize(
    ("config", "env", "flags", "told_of"),
    [
        ({}, {}, {"sts_port": 15463}, "--stsPort only becomes node metadata"),
        ({}, {}, {"token_manager_plugin": "x"}, "--tokenManagerPlugin has no effect"),
        (
            {},
            {},
            {"service_cluster": "mine"},
            "--serviceCluster=mine has no effect, istio-proxy is used (from default)",
        ),
        ({"zipkinAddress": "z:1"}, {}, {}, "zipkinAddress is deprecated and has no effect: set tracing.zipkin.address"),
        ({"statNameLength": 5}, {}, {}, "statNameLength has no effect"),
        ({"tracing": {"stackdriver": {}}}, {}, {}, "tracing.stackdriver does not get into the bootstrap"),
        ({"tracing": {"openCensusAgent": {"address": "x:1"}}}, {}, {}, "tracing.openCensusAgent does not get into"),
        (
            {"proxyMetadata": {"ISTIO_META_DNS_AUTO_ALLOCATE": "true"}},
            {},
            {},
            "ISTIO_META_DNS_AUTO_ALLOCATE is deprecated",
        ),
        ({"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}}, {}, {}, "alone starts no DNS proxy"),
        ({}, {"ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": "5"}, {}, "limits nothing: set connectionSettings"),
        ({}, {"METRICS_LOCALHOST_ACCESS_ONLY": "true"}, {}, "Envoy's own metrics port stays open"),
        ({"proxyMetadata": {"METRICS_LOCALHOST_ACCESS_ONLY": "true"}}, {}, {}, "the agent's /stats/prometheus stays"),
    ],
)
def test_what_does_nothing_is_told(
    config: dict[str, Any], env: dict[str, str], flags: dict[str, Any], told_of: str
) -> None:
    found = warnings(config, env, **flags)
    assert len(found) == 1
    assert told_of in found[0]


def test_a_service_cluster_flag_that_counts_is_no_warning() -> None:
    assert warnings({"serviceCluster": ""}, service_cluster="mine") == ()


def test_what_counts_is_istios_default_not_who_said_it() -> None:
    assert warnings({"statNameLength": 189}) == ()


def test_a_variable_without_effect_is_told() -> None:
    assert warnings(env={"XDS_AUTH_PROVIDER": "gcp"}) == ("XDS_AUTH_PROVIDER has no effect",)
    assert warnings(env={"XDS_AUTH_PROVIDER": ""}) == ()


@pytest.mark.parametrize("word", ["1", "t", "T", "TRUE", "True"])
def test_every_spelling_of_true_captures_dns(word: str) -> None:
    assert len(warnings({"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": word}})) == 1
    (only,) = warnings({"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": word}}, {"ISTIO_META_DNS_CAPTURE": word})
    assert "this version has no DNS proxy" in only


def test_a_limit_in_both_places_is_as_the_injector_puts_it() -> None:
    both = {"ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": "5"}
    assert warnings({"proxyMetadata": both}, both) == ()


def test_a_metrics_switch_that_envoy_s_port_does_not_understand_is_told() -> None:
    switch = {"METRICS_LOCALHOST_ACCESS_ONLY": "1"}
    (warning,) = warnings({"proxyMetadata": switch}, switch)
    assert warning.endswith('put it into proxyMetadata too, as "true"')


def test_an_annotation_of_the_pod_that_is_in_the_injected_config_already_changes_nothing(tmp_path: Any) -> None:
    annotation = {"proxy.istio.io/config": "tracing: {zipkin: {address: 'zipkin.istio-system:9411'}}\nconcurrency: 2"}
    assert warnings(INJECTED_CONFIG, INJECTED, annotations=annotation) == (NO_DNS_PROXY,)
