"""The demo's service against what a real istiod (2026-08) pushed for it, inbound and outbound, field by field.

`DIFFERENT` holds every way in which ours is meant to differ, with its reason; anything else fails.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilot_agent.mesh.documents import read_directory
from pilot_agent.mesh.model import Options
from pilot_agent.mesh.view import see
from tests.unit.mesh.declared import publisher

ISTIOD = Path(__file__).parents[2] / "golden" / "mesh" / "istiod.json"
HTTPBIN = """\
apiVersion: v1
kind: Service
metadata: {name: httpbin, namespace: demo}
spec:
  clusterIP: 10.96.0.10
  selector: {app: httpbin}
  ports: [{name: http, port: 8000, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: httpbin-1, namespace: demo, labels: {kubernetes.io/service-name: httpbin}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.9.0.1]}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: httpbin, namespace: demo}
spec: {address: 10.9.0.1, labels: {app: httpbin}, serviceAccount: httpbin, ports: {http: 8080}}
"""
TAGS = {
    "canonical_revision": "latest",
    "canonical_service": "unknown",
    "cluster_id": "Kubernetes",
    "mesh_id": "cluster.local",
    "namespace": "demo",
}


def _without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: each for name, each in value.items() if name not in names}


def routes_from_a_file(value: dict[str, Any], where: Path) -> dict[str, Any]:
    """RDS of a port is a file of its own."""
    if "route_config_name" not in value:
        return value
    source = {**_without(value["config_source"], "ads"), "path_config_source": {"path": str(where / "rds/8000.json")}}
    return {**value, "config_source": source}


def endpoints_from_a_file(value: dict[str, Any], where: Path) -> dict[str, Any]:
    """EDS of a cluster is a file of its own."""
    if "service_name" not in value:
        return value
    path = str(where / "eds/outbound_8000__httpbin.demo.svc.cluster.local.json")
    return {**value, "eds_config": {**_without(value["eds_config"], "ads"), "path_config_source": {"path": path}}}


def secrets_from_files(value: dict[str, Any], where: Path) -> dict[str, Any]:
    """The agent writes the workload's secrets as files in local mode; there is no SDS server."""
    if "sds_config" not in value:
        return value
    source = {"path": f"/sds/{value['name']}.json", "watched_directory": {"path": "/sds"}}
    config = {**_without(value["sds_config"], "api_config_source"), "path_config_source": source}
    return {**value, "sds_config": config}


def typed_names(value: dict[str, Any], where: Path) -> dict[str, Any]:
    """Envoy deprecated match_subject_alt_names; ours are said to be URIs, which SPIFFE ids are."""
    if "match_subject_alt_names" not in value:
        return value
    names = [{"san_type": "URI", "matcher": name} for name in value["match_subject_alt_names"]]
    return {**_without(value, "match_subject_alt_names"), "match_typed_subject_alt_names": names}


def stream_limit(value: dict[str, Any], where: Path) -> dict[str, Any]:
    """Envoy deprecated max_grpc_timeout for this."""
    if "max_grpc_timeout" not in value:
        return value
    limit = {"max_stream_duration": "0s", "grpc_timeout_header_max": value["max_grpc_timeout"]}
    return {**_without(value, "max_grpc_timeout"), "max_stream_duration": limit}


def passthrough_by_family(value: dict[str, Any], where: Path) -> dict[str, Any]:
    """A cluster, and chains with the range, for each family, as Istio had until 1.2x: the chain says which it is."""
    if value.get("name") in ("virtualInbound", "virtualInbound-catchall-http") and "filters" in value:
        match = {**value["filter_chain_match"], "prefix_ranges": [{"address_prefix": "0.0.0.0", "prefix_len": 0}]}
        return {**value, "filter_chain_match": match}
    if value.get("name") == "InboundPassthroughCluster" and "upstream_bind_config" in value:
        binding = _without(value["upstream_bind_config"], "extra_source_addresses")
        return {**value, "upstream_bind_config": binding, "alt_stat_name": f"{value['name']};"}
    return value


def one_family(value: dict[str, Any], where: Path) -> dict[str, Any]:
    """istiod listens on :: for services too, on a node that has no IPv6 address."""
    return _without(value, "additional_addresses") if value.get("name") == "0.0.0.0_8000" else value


def unsaid_defaults(value: dict[str, Any], where: Path) -> dict[str, Any]:
    """What Envoy's dump shows of messages that are empty, or of what it knows itself."""
    if value.get("name") == "PassthroughFilterChain":
        return _without(value, "filter_chain_match")
    if "cluster_name" in value and "endpoints" in value:
        return _without(value, "policy")
    if "lb_endpoints" in value:
        return {**value, "locality": {"region": "", "zone": "", "sub_zone": ""}}
    if "health_status" in value:
        return {**_without(value, "health_status"), "endpoint": _without(value["endpoint"], "health_check_config")}
    return value


DIFFERENT: list[Callable[[dict[str, Any], Path], dict[str, Any]]] = [
    routes_from_a_file,
    endpoints_from_a_file,
    secrets_from_files,
    typed_names,
    stream_limit,
    passthrough_by_family,
    one_family,
    unsaid_defaults,
]


def ours(value: Any, where: Path) -> Any:
    """istiod's value as ours is meant to be."""
    if isinstance(value, list):
        return [ours(each, where) for each in value]
    if isinstance(value, str):
        names = ("InboundPassthroughCluster", "InboundPassthroughCluster;")
        return value.replace("Cluster", "ClusterIpv4") if value in names else value
    if not isinstance(value, dict):
        return value
    for differ in DIFFERENT:
        value = differ(value, where)
    return {name: ours(each, where) for name, each in value.items()}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("httpbin")
    documents = directory / "documents"
    documents.mkdir()
    (documents / "httpbin.yaml").write_text(HTTPBIN)
    options = Options(
        namespace="demo", addresses=("10.9.0.1",), secrets="/sds", access_log="/dev/stdout", trace_tags=TAGS
    )
    reading = read_directory(documents, options)
    assert (reading.errors, reading.warnings) == ({}, ())
    publisher(directory, options).publish(see(reading.resources, options))
    return directory / "xds"


def resource(published: Path, file: str, name: str) -> Any:
    found = json.loads((published / file).read_text())["resources"]
    return next(each for each in found if name in (each.get("name"), each.get("cluster_name")))


def named(side: str, kind: str) -> list[Any]:
    found = json.loads(ISTIOD.read_text())[side][kind]
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize(
    ("side", "kind", "file"),
    [
        ("inbound", "listener", "lds/lds.json"),
        ("inbound", "clusters", "cds/cds.json"),
        ("outbound", "listeners", "lds/lds.json"),
        ("outbound", "routes", "rds/8000.json"),
        ("outbound", "clusters", "cds/cds.json"),
        ("outbound", "endpoints", "eds/outbound_8000__httpbin.demo.svc.cluster.local.json"),
    ],
)
def test_every_field_is_istiods(published: Path, side: str, kind: str, file: str) -> None:
    for pushed in named(side, kind):
        wanted = ours(pushed, published)
        assert resource(published, file, wanted.get("name") or wanted["cluster_name"]) == wanted


@pytest.mark.parametrize("differ", DIFFERENT, ids=lambda differ: str(differ.__name__))
def test_every_difference_is_one(published: Path, differ: Callable[[dict[str, Any], Path], dict[str, Any]]) -> None:
    """A reason that no longer applies has to go."""

    def differs(value: Any) -> bool:
        if isinstance(value, list):
            return any(map(differs, value))
        return isinstance(value, dict) and (differ(value, published) != value or any(map(differs, value.values())))

    assert differs(json.loads(ISTIOD.read_text()))
