"""The whole of a mesh: what is wrong with one document costs that one alone, and Envoy gets what was asked for."""

import json
from pathlib import Path
from typing import Any

import pytest

from pilot_agent.mesh.documents import MeshReader, read_directory
from pilot_agent.mesh.model import Options
from pilot_agent.mesh.view import see
from tests.unit.mesh.declared import Seen, document, endpoint_slice, kubernetes_service, publisher, service_entry

ALL = (
    service_entry("web", port=80),
    kubernetes_service("api", "[{name: http, port: 80}, {name: grpc, port: 81}]"),
    endpoint_slice("api", "10.0.0.1", ports="[{name: http, port: 8080}, {name: grpc, port: 8081}]"),
    service_entry("db", port=3306, protocol="TCP", addresses=("10.1.0.1",)),
)


def rendered(directory: Path, *texts: str, **options: Any) -> dict[str, Any]:
    """Every resource of the files, by the kind of file and name."""
    mesh = Seen(*texts, **options)
    publisher(directory, Options(**options)).publish(mesh.view)
    found = {}
    for path in sorted((directory / "xds").glob("*/*.json")):
        for resource in json.loads(path.read_text())["resources"]:
            found[f"{path.parent.name} {resource.get('name') or resource['cluster_name']}"] = resource
    return found


def test_each_problem_costs_what_it_is_about_alone() -> None:
    mesh = Seen(
        *ALL,
        document("VirtualService", "{hosts: [web.example.com], http: [{route: [{destination: {host: gone}}]}]}", "one"),
        document("VirtualService", "{hosts: [api], http: [{delegate: {name: gone}}]}", "two"),
        document("VirtualService", "{hosts: [db.example.com], tcp: [{route: [{destination: {host: gone}}]}]}", "three"),
        document("PeerAuthentication", "{mtls: {mode: STRICT}}"),
    )
    assert set(mesh.problems) == {
        "spec.http[0].route[0].destination.host",
        "spec.http[0].delegate",
        "spec.tcp[0].route[0].destination.host",
        "spec",
    }
    assert [problem.origin.document for problem in mesh.view.problems] == [6, 4, 5, 7]
    assert [route["name"] for route in mesh.routes("api.default.svc.cluster.local")] == ["default"]
    assert len(mesh.clusters) == 4


def test_a_problem_is_told_once() -> None:
    """Though the rule is used for two ports."""
    mesh = Seen(*ALL, document("VirtualService", "{hosts: [api], http: [{route: [{destination: {host: gone}}]}]}"))
    assert [problem.reason.partition(" is ")[0] for problem in mesh.view.problems] == ["gone.default.svc.cluster.local"]


def test_problems_have_lines(tmp_path: Path) -> None:
    text = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: it}
spec:
  hosts: [web.example.com]
  http:
  - route:
    - destination:
        host: gone
"""
    (tmp_path / "a.yaml").write_text(service_entry("web") + "---\n" + text)
    reader = MeshReader(tmp_path, Options())
    (problem,) = see(reader.read().resources, Options()).problems
    (placed,) = reader.place([problem])
    assert str(placed).startswith("a.yaml:24: spec.http[0].route[0].destination.host: gone.default")


@pytest.mark.parametrize(
    ("first", "second", "field", "reason"),
    [
        (
            service_entry("a", protocol="TCP", addresses=("10.0.0.1",)),
            service_entry("b", protocol="TCP", addresses=("10.0.0.1",)),
            "spec.ports[0].number",
            "listener 10.0.0.1_8000 belongs to a (a.yaml:1) already",
        ),
        (
            service_entry("a"),
            service_entry("b", host="a.example.com"),
            "spec.hosts[0]",
            "a.example.com:8000 belongs to",
        ),
        (
            service_entry("a"),
            service_entry("b", protocol="TCP"),
            "spec.ports[0].protocol",
            "listener 0.0.0.0_8000 is TCP here but HTTP in a",
        ),
        (
            service_entry("a"),
            document("ServiceEntry", "&it {hosts: [b.org], ports: [*it]}"),
            "",
            "it contains itself by an alias",
        ),
    ],
)
def test_what_belongs_to_another_file_is_refused(
    tmp_path: Path, first: str, second: str, field: str, reason: str
) -> None:
    (tmp_path / "a.yaml").write_text(first)
    (tmp_path / "b.yaml").write_text(second)
    reading = read_directory(tmp_path)
    refused = reading.errors["b.yaml"]
    assert refused.field == field and reason in str(refused) and refused.line > 0
    assert [service.host for service in see(reading.resources, Options()).services] == ["a.example.com"]


# ---- what the templates make of it -----------------------------------------------------------------------------------


def test_original_source_with_tproxy(tmp_path: Path) -> None:
    listener = rendered(tmp_path, *ALL, interception_mode="TPROXY")["lds virtualInbound"]
    assert listener["transparent"] is True
    names = [each["name"].rpartition(".")[2] for each in listener["listener_filters"]]
    assert names == ["original_dst", "original_src", "tls_inspector", "http_inspector"]
    assert listener["listener_filters"][1]["typed_config"]["mark"] == 1337


def test_redirect_is_not_transparent(tmp_path: Path) -> None:
    listener = rendered(tmp_path, *ALL)["lds virtualInbound"]
    assert "transparent" not in listener
    assert [each["name"].rpartition(".")[2] for each in listener["listener_filters"]] == [
        "original_dst",
        "tls_inspector",
        "http_inspector",
    ]


def loggers(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [found for each in value for found in loggers(each)]
    if not isinstance(value, dict):
        return []
    own = [value] if value.get("name") == "envoy.access_loggers.file" else []
    return own + [found for each in value.values() for found in loggers(each)]


@pytest.mark.parametrize(
    ("options", "key", "found"),
    [
        ({}, "text_format_source", "%START_TIME%"),
        ({"access_log_format": '%PATH% "x"\n'}, "text_format_source", '%PATH% "x"\n'),
        ({"access_log_is_json": True}, "json_format", "%RESPONSE_CODE%"),
        ({"access_log_is_json": True, "access_log_format": {"p": "%PATH%", "n": {"m": 1}}}, "json_format", "%PATH%"),
    ],
)
def test_access_logs(tmp_path: Path, options: dict[str, Any], key: str, found: str) -> None:
    resources = rendered(tmp_path, *ALL, access_log="/dev/stdout", **options)
    for name in ("lds 0.0.0.0_80", "lds 10.1.0.1_3306", "lds virtualInbound", "lds virtualOutbound"):
        logs = loggers(resources[name])
        assert logs, name
        for log in logs:
            assert log["typed_config"]["path"] == "/dev/stdout"
            assert list(log["typed_config"]["log_format"]) == [key]
            assert json.dumps(found)[1:-1] in json.dumps(log)


@pytest.mark.parametrize(
    ("policy", "cluster", "answer"),
    [("ALLOW_ANY", "PassthroughCluster", "allow_any"), ("REGISTRY_ONLY", "BlackHoleCluster", "block_all")],
)
def test_what_nobody_declared(tmp_path: Path, policy: str, cluster: str, answer: str) -> None:
    resources = rendered(tmp_path, *ALL, outbound_policy=policy)
    last = resources["rds 80"]["virtual_hosts"][-1]
    assert (last["name"], last["domains"]) == (answer, ["*"])
    proxies = [
        resources["lds virtualOutbound"]["filter_chains"][-1]["filters"][0]["typed_config"],
        resources["lds 0.0.0.0_80"]["default_filter_chain"]["filters"][0]["typed_config"],
    ]
    assert [proxy["cluster"] for proxy in proxies] == [cluster, cluster]


def test_a_sidecar_decides_for_both(tmp_path: Path) -> None:
    text = document("Sidecar", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}")
    resources = rendered(tmp_path, *ALL, text)
    assert resources["rds 80"]["virtual_hosts"][-1]["name"] == "block_all"
    proxy = resources["lds virtualOutbound"]["filter_chains"][-1]["filters"][0]["typed_config"]
    assert proxy["cluster"] == "BlackHoleCluster"


@pytest.mark.parametrize(
    ("families", "first", "more"),
    [(("IPv4",), "0.0.0.0", []), (("IPv6",), "::", []), (("IPv4", "IPv6"), "0.0.0.0", ["::"])],
)
def test_listeners_of_each_family(tmp_path: Path, families: Any, first: str, more: list[str]) -> None:
    resources = rendered(tmp_path, *ALL, families=families)
    for name in ("virtualInbound", "virtualOutbound", f"{first}_80"):
        listener = resources[f"lds {name}"]
        assert listener["address"]["socket_address"]["address"] == first
        others = [each["address"]["socket_address"]["address"] for each in listener.get("additional_addresses", [])]
        assert others == more


def test_a_connection_of_tcp_lasts_as_its_rule_says(tmp_path: Path) -> None:
    pool = "{tcp: {idleTimeout: 5s, maxConnectionDuration: 60s}}"
    rule = document("DestinationRule", f"{{host: '*', trafficPolicy: {{connectionPool: {pool}}}}}")
    resources = rendered(tmp_path, *ALL, rule)
    proxy = resources["lds 10.1.0.1_3306"]["filter_chains"][0]["filters"][0]["typed_config"]
    assert (proxy["idle_timeout"], proxy["max_downstream_connection_duration"]) == ("5s", "60s")
    protocols = resources["cds outbound|80||web.example.com"]["typed_extension_protocol_options"]
    (options,) = protocols.values()
    assert options["common_http_protocol_options"]["max_connection_duration"] == "60s"
