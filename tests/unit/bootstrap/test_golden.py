"""Whole bootstraps, compared with the documents in tests/golden, each of which the real Envoy accepts.

After a wanted change of the template, write them anew with PILOT_AGENT_UPDATE_GOLDEN=1 and read the difference:
the tests then fail once for each document that changed.
"""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pilot_agent.bootstrap.render import Renderer
from pilot_agent.bootstrap.validate import validation_argv
from pilot_agent.node.metadata import build_node
from pilot_agent.node.podinfo import PodInfo
from pilot_agent.node.surroundings import NOTHING_AROUND, Platform, Surroundings
from tests.support.envoy_binary import envoy_binary
from tests.unit.bootstrap.documents import LOCAL_FILES, TEMPLATE, built, context_of
from tests.unit.settings.told import told

GOLDEN = Path(__file__).resolve().parents[2] / "golden"

# As it was at the start of this process: tests run in an environment that has been emptied.
UPDATE = b"PILOT_AGENT_UPDATE_GOLDEN=1" in Path("/proc/self/environ").read_bytes().split(b"\0")

POD = {
    "POD_NAME": "web-0",
    "POD_NAMESPACE": "shop",
    "SERVICE_ACCOUNT": "web",
    "ISTIO_META_CLUSTER_ID": "Kubernetes",
    "ISTIO_META_WORKLOAD_NAME": "web",
    "ISTIO_METAJSON_LABELS": '{"app": "web", "istio-locality": "region.zone.rack"}',
}


ADDRESSES = ("10.3.3.3", "10.4.4.4", "10.5.5.5", "10.6.6.6")
PLATFORM = Platform(
    "gcp",
    {"region": "europe-west1", "zone": "europe-west1-b"},
    {"gcp_project": "shop", "gcp_location": "europe-west1-b"},
)


class Case(NamedTuple):
    """One set of inputs. `refused` is what the stock Envoy of the tests says when it does not accept the result."""

    config: dict[str, Any]
    addresses: tuple[str, ...] = ("10.1.2.3",)
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed
    surroundings: Surroundings = NOTHING_AROUND
    is_stock: bool = False
    refused: str = ""


def variant(config: dict[str, Any] | None = None, *, refused: str = "", **settings: Any) -> Case:
    """A difference to the baseline that the reference's list of variants starts from."""
    env = {
        **POD,
        "WORKLOAD_IDENTITY_SOCKET_FILE": "test.sock",
        "ISTIO_META_ISTIO_VERSION": "binary-1.0",
        **settings.pop("env", {}),
    }
    rest = {"outlier_log_path": "/dev/stdout", **settings}
    return Case({"controlPlaneAuthPolicy": "NONE", **(config or {})}, ADDRESSES, {"env": env, **rest}, refused=refused)


def annotated(config: dict[str, Any] | None = None, **stats: str) -> Case:
    """Annotations by their names behind sidecar.istio.io/."""
    return variant(config, annotations={f"sidecar.istio.io/{name}": value for name, value in stats.items()})


STATSD = "10.1.1.1:8125"  # a name would be looked up
ZIPKIN = {"zipkin": {"address": "zipkin.shop:6000"}}
MUTUAL = {
    "mode": "MUTUAL",
    "clientCertificate": "/etc/tls/cert.pem",
    "privateKey": "/etc/tls/key.pem",
    "caCertificates": "/etc/tls/ca.pem",
    "subjectAltNames": ["spiffe://cluster.local/ns/shop/sa/metrics"],
    "sni": "metrics.shop",
}
SIMPLE = {"mode": "SIMPLE", "caCertificates": "/etc/tls/ca.pem", "subjectAltNames": ["zipkin.shop"]}
METRICS = {
    "address": "metrics.shop:15000",
    "tlsSettings": MUTUAL,
    "tcpKeepalive": {"probes": 3, "time": "10s", "interval": "10s"},
}
ALL = {
    "proxyAdminPort": 15005,
    "statsdUdpAddress": STATSD,
    "tracing": ZIPKIN,
    "envoyMetricsService": METRICS,
    "envoyAccessLogService": {**METRICS, "address": "als.shop:15000"},
}
RUNNING_LABELS = '{"app": "test", "istio-locality": "region.zone.sub_zone", "version": "v1alpha1"}'
LIMIT = "ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS"
RUNTIME_LIMIT = "overload.global_downstream_max_connections"
LOAD_STATS = (
    '{"api_type": "GRPC", "transport_api_version": "V3", '
    '"grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}'
)
NO_EXTENSION = "Didn't find a registered implementation"

VARIANTS = {
    "default": variant(),
    "auth": variant({"controlPlaneAuthPolicy": "MUTUAL_TLS"}),
    "ambient": variant(env={"ISTIO_META_ENABLE_HBONE": "true"}, refused=NO_EXTENSION),
    "running": variant(
        {"proxyAdminPort": 15005, "statsdUdpAddress": STATSD, "tracing": ZIPKIN},
        env={"ISTIO_METAJSON_LABELS": RUNNING_LABELS},
    ),
    "all": variant(ALL),
    "metrics-no-statsd": variant({"envoyMetricsService": METRICS}),
    "tracing-zipkin": variant({"tracing": {"zipkin": {"address": "$(HOST_IP):9411"}}}, env={"HOST_IP": "10.9.9.9"}),
    "tracing-datadog": variant({"tracing": {"datadog": {"address": "datadog.shop:8126"}}}),
    "tracing-lightstep": variant(
        {"tracing": {"lightstep": {"address": "lightstep.shop:8080", "accessToken": "abc"}}}, refused=NO_EXTENSION
    ),
    "tracing-none": variant({"tracing": {}}),
    "tracing-tls": variant({"tracing": {**ZIPKIN, "tlsSettings": SIMPLE}}),
    "tracing-tls-custom-sni": variant({"tracing": {**ZIPKIN, "tlsSettings": {**SIMPLE, "sni": "zipkin-custom-sni"}}}),
    "tracing-istio-mutual": variant({"tracing": {**ZIPKIN, "tlsSettings": {"mode": "ISTIO_MUTUAL"}}}),
    "tracing-tls-without-ca": variant({"tracing": {**ZIPKIN, "tlsSettings": {"mode": "SIMPLE"}}}),
    "stats-inclusion": annotated(
        {"extraStatTags": ["dlp_success"]},
        extraStatTags="dlp_status,dlp_error",
        statsInclusionPrefixes="prefix1,prefix2,http.{pod_ip}_",
        statsInclusionSuffixes="suffix1,suffix2,{pod_ip}_suffix",
        statsInclusionRegexps="http.[test]*_cx'(total|active).*",
        statsHistogramBuckets='{"istiocustom":[1,5,10,50,100.5],"cluster.xds":[1,10000]}',
    ),
    "stats-flush-interval": annotated(ALL, statsFlushInterval="10s"),
    "stats-flush-interval-of-a-fraction": annotated(statsFlushInterval="500ms"),
    "stats-flush-interval-over-a-minute": annotated(statsFlushInterval="1m30s"),
    "stats-eviction-interval": annotated(ALL, statsEvictionInterval="10s"),
    "stats-interval": annotated(ALL, statsFlushInterval="10s", statsEvictionInterval="20s"),
    "stats-eviction-interval-that-does-not-fit": annotated(ALL, statsEvictionInterval="11s"),
    "stats-compression": variant({"statsCompression": False}),
    "lrs": variant(env={"ISTIO_META_LOAD_STATS_CONFIG_JSON": LOAD_STATS, "COMPLIANCE_POLICY": "fips-140-2"}),
    "connections-meta": variant({"proxyMetadata": {LIMIT: "10000"}}),
    "connections-runtime": variant({"runtimeValues": {RUNTIME_LIMIT: "5000"}}),
    "connections-both": variant({"runtimeValues": {RUNTIME_LIMIT: "5000"}, "proxyMetadata": {LIMIT: "20000"}}),
    "connection-settings": variant({"connectionSettings": {"globalDownstreamConnectionLimit": 15000}}),
    "connection-settings-with-meta": variant(
        {"connectionSettings": {"globalDownstreamConnectionLimit": 25000}, "proxyMetadata": {LIMIT: "10000"}}
    ),
    "explicit-internal-address": variant(
        {"runtimeValues": {"envoy.reloadable_features.explicit_internal_address_config": "true"}}
    ),
    "secure-metrics": variant(env={"ENVOY_SECURE_METRICS_PORT": "15091", "ENVOY_SECURE_MERGED_METRICS_PORT": "15092"}),
    # Rows of the tables of clusters, listeners and the rest that the original's own variants leave out.
    "self-discovery": variant(env={"ISTIO_META_ENABLE_SELF_DISCOVERY": "true"}, outlier_log_path=""),
    "workload-sds": variant()._replace(surroundings=Surroundings(has_workload_sds=True, has_credential_socket=True)),
    "platform": variant()._replace(surroundings=Surroundings(PLATFORM)),
    "waypoint": variant(role="waypoint", env={"ISTIO_DELTA_XDS": "false"}, refused=NO_EXTENSION),
    "sotw": variant(env={"ISTIO_DELTA_XDS": "false", "ISTIO_META_ENABLE_HBONE": "true"}),
    "proxy-protocol": variant(env={"ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL": "true"}),
    "metrics-localhost-only": variant({"proxyMetadata": {"METRICS_LOCALHOST_ACCESS_ONLY": "true"}}),
    "fragment-kept": variant(env={"HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED": "false"}),
    "stock-ambient": variant(env={"ISTIO_META_ENABLE_HBONE": "true"})._replace(is_stock=True),
    "stock-lightstep": variant(
        {"tracing": {"lightstep": {"address": "lightstep.shop:8080", "accessToken": "abc"}}}
    )._replace(is_stock=True),
    "local-tracing-tls": Case(
        {"configPath": "/run/proxy", "tracing": {**ZIPKIN, "tlsSettings": {**MUTUAL, "sni": "zipkin.shop"}}},
        settings={"config_dir": "mesh"},
        refused="Invalid path: /etc/tls/ca.pem",  # Envoy reads the files itself, and there are none here
    ),
}

CASES = {
    "mesh": Case({}, settings={"env": POD}),
    "local": Case(
        {"configPath": "/run/proxy", "extraStatTags": ["shop"], "runtimeValues": {"mine": "true"}},
        settings={"config_dir": "mesh"},
    ),
    "mesh-json-log": Case(
        {
            "concurrency": 2,
            "proxyMetadata": {"ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": "10000"},
            "proxyStatsMatcher": {"inclusionPrefixes": ["listener.{pod_ip}_80"], "inclusionRegexps": ["a'b\"c.*"]},
            "statsCompression": False,
        },
        settings={
            "env": POD
            | {
                "ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL": "true",
                "EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true",
                "ISTIO_DELTA_XDS": "false",
            },
            "log_as_json": True,
            "role": "router",
            "outlier_log_path": "/dev/stdout",
        },
    ),
    "dual-stack": Case({}, ("fd00::5", "10.1.2.3"), {"env": POD | {"ISTIO_DUAL_STACK": "true"}}),
    "dual-stack-v4-first": Case({}, ("10.1.2.3", "fd00::5"), {"env": POD | {"ISTIO_DUAL_STACK": "true"}}),
    "mixed-without-dual-stack": Case({"tracing": ZIPKIN}, ("fd00::5", "10.1.2.3"), {"env": POD}),
    "ipv6": Case({"tracing": ZIPKIN}, ("fd00::5",), {"env": POD}),
    **VARIANTS,
}


def document_of(case: Case) -> Any:
    settings = told(case.config, **case.settings)
    node = build_node(settings, PodInfo(None, None), list(case.addresses), "9.8.7", case.surroundings)
    return Renderer().render(TEMPLATE, built(settings, node, is_stock=case.is_stock).variables)


def golden(name: str) -> Path:
    return GOLDEN / f"bootstrap-{name}.json"


@pytest.mark.parametrize("name", CASES)
def test_the_bootstrap_is_the_golden_one(name: str) -> None:
    document = document_of(CASES[name])
    text = json.dumps(document, indent=2) + "\n"
    if UPDATE and (not golden(name).exists() or golden(name).read_text() != text):
        golden(name).write_text(text)
        pytest.fail(f"{golden(name).name} was written anew: look at what changed")
    assert document == json.loads(golden(name).read_text())


@pytest.mark.parametrize("name", CASES)
def test_keys_come_in_istios_order(name: str) -> None:
    wanted = (
        "application_log_config node layered_runtime bootstrap_extensions stats_flush_interval "
        "stats_eviction_interval stats_config admin dynamic_resources static_resources overload_manager tracing "
        "stats_sinks cluster_manager deferred_stat_options"
    ).split()
    document = document_of(CASES[name])
    assert list(document) == [key for key in wanted if key in document]
    optional = {"stats_flush_interval", "stats_eviction_interval", "tracing", "stats_sinks", "cluster_manager"}
    assert set(wanted) - set(document) <= optional


@pytest.mark.parametrize("name", CASES)
def test_envoy_says_what_the_reference_says(name: str, tmp_path: Path) -> None:
    binary = envoy_binary()
    text = golden(name).read_text()
    for kind in ("lds", "cds"):
        directory = tmp_path / kind
        directory.mkdir()
        (directory / f"{kind}.json").write_text('{"resources": []}')
        text = text.replace(f"{Path(LOCAL_FILES.lds_directory).parent}/{kind}", str(directory))
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_text(text)
    argv = validation_argv([str(binary), "-c", str(bootstrap), "-l", "warning", "--skip-deprecated-logs"])
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    refused = CASES[name].refused
    if refused:
        assert done.returncode == 1
        assert refused in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert f"configuration '{bootstrap}' OK" in done.stdout


def test_every_golden_bootstrap_belongs_to_a_case() -> None:
    assert sorted(GOLDEN.glob("bootstrap-*.json")) == sorted(map(golden, CASES))


def test_the_inputs_are_the_same_on_every_machine() -> None:
    """Nothing of this host may get into the documents: rendered from the same inputs, twice the same."""
    settings = told(env=POD)
    assert context_of(settings) == context_of(settings)
