"""The inbound side: which ports the workload has, and where what arrives goes."""

from typing import Any

import pytest

from tests.unit.mesh.declared import Seen, document, endpoint_slice, kubernetes_service, service_entry

OWN = "10.0.0.1"
PORTS = "[{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 3306}]"


def workload(*texts: str, **options: Any) -> Seen:
    return Seen(*texts, **{"addresses": (OWN,), **options})


def web(*addresses: str, more: str = "") -> tuple[str, str]:
    ports = "[{name: http, port: 8080}, {name: tcp, port: 3306}]"
    return kubernetes_service("web", PORTS), endpoint_slice("web", *addresses, ports=ports, more=more)


def ports(mesh: Seen) -> dict[int, list[tuple[str, bool]]]:
    """By port: transport protocol and whether HTTP, of each chain in order."""
    found: dict[int, list[tuple[str, bool]]] = {}
    chains: list[Any] = mesh.view.inbound.chains
    for chain in chains:
        if chain["port"] is not None:
            found.setdefault(chain["port"], []).append((chain["transport"], chain["is_http"]))
    return found


def test_ports_of_the_services_that_lead_here() -> None:
    mesh = workload(*web("10.0.0.2", OWN))
    assert ports(mesh) == {
        8080: [("raw_buffer", True)],
        3306: [("raw_buffer", False), ("tls", False)],
    }
    assert mesh.view.inbound.ports == [8080, 3306]
    cluster = mesh.inbound_clusters["inbound|8080||"]
    assert (cluster["endpoint"], cluster["source_addresses"], cluster["is_http2"]) == (None, ["127.0.0.6"], False)
    chain: Any = next(each for each in mesh.view.inbound.chains if each["port"] == 8080)
    assert (chain["cluster"], chain["name"]) == ("inbound|8080||", "0.0.0.0_8080")
    assert chain["operation"] == "web.default.svc.cluster.local:80/*"
    assert chain["virtual_host"] == "inbound|http|80"


@pytest.mark.parametrize(
    ("addresses", "more", "options", "found"),
    [
        (("10.0.0.2",), "", {}, set()),
        ((OWN,), "", {"interception_mode": "NONE"}, set()),
        ((OWN,), "", {"interception_mode": "TPROXY"}, {8080, 3306}),
        ((OWN,), "conditions: {ready: false}", {}, {8080, 3306}),  # its readiness is asked for through Envoy
        ((OWN,), "", {"inbound_port": 8080}, {3306}),
        ((OWN,), "", {"namespace": "other"}, {8080, 3306}),
    ],
)
def test_which_ports_there_are(addresses: tuple[str, ...], more: str, options: dict[str, Any], found: set[int]) -> None:
    assert set(ports(workload(*web(*addresses, more=more), **options))) == found


def test_a_service_nobody_else_may_see_has_its_port() -> None:
    ports_ = "[{number: 80, name: http, protocol: HTTP}]"
    spec = f"{{hosts: [a.org], ports: {ports_}, resolution: STATIC, endpoints: [{{address: {OWN}}}], exportTo: ['~']}}"
    mesh = workload(document("ServiceEntry", spec))
    assert (set(ports(mesh)), mesh.view.services) == ({80}, ())


@pytest.mark.parametrize(("protocol", "is_http2"), [("HTTP", False), ("GRPC", True), ("HTTP2", True)])
def test_the_protocol_to_the_application(protocol: str, is_http2: bool) -> None:
    mesh = workload(service_entry("a", port=80, protocol=protocol, endpoint=OWN))
    assert mesh.inbound_clusters["inbound|80||"]["is_http2"] is is_http2


def test_two_services_on_one_port_of_the_workload() -> None:
    same = [service_entry(name, port=port, target=8080, endpoint=OWN) for name, port in (("a", 80), ("b", 81))]
    mesh = workload(*same)
    assert (ports(mesh), mesh.problems) == ({8080: [("raw_buffer", True)]}, {})
    other = service_entry("b", port=81, target=8080, endpoint=OWN, protocol="TCP")
    mesh = workload(same[0], other)
    assert ports(mesh) == {8080: [("raw_buffer", True)]}
    assert "port 8080 of this workload is HTTP in a.example.com" in mesh.problems["spec.ports[0]"]


@pytest.mark.parametrize(
    ("families", "clusters", "sources"),
    [
        (("IPv4",), ["InboundPassthroughClusterIpv4"], ["127.0.0.6"]),
        (("IPv6",), ["InboundPassthroughClusterIpv6"], ["::6"]),
        (
            ("IPv4", "IPv6"),
            ["InboundPassthroughClusterIpv4", "InboundPassthroughClusterIpv6"],
            ["127.0.0.6", "::6"],
        ),
    ],
)
def test_families(families: tuple[str, ...], clusters: list[str], sources: list[str]) -> None:
    mesh = workload(*web(OWN), families=families)
    chains: list[Any] = mesh.view.inbound.chains
    passing = [chain for chain in chains if chain["port"] is None]
    assert list(dict.fromkeys(chain["cluster"] for chain in passing)) == clusters
    prefixes = {"InboundPassthroughClusterIpv4": ("0.0.0.0", 0), "InboundPassthroughClusterIpv6": ("::", 0)}
    assert all(chain["prefix"] == prefixes[chain["cluster"]] for chain in passing)
    assert [each["name"] for each in mesh.view.inbound.standing] == [
        "BlackHoleCluster",
        "PassthroughCluster",
        *clusters,
    ]
    assert mesh.inbound_clusters["inbound|8080||"]["source_addresses"] == sources


# ---- Sidecar ---------------------------------------------------------------------------------------------------------


def sidecar(*listeners: str) -> str:
    found = ", ".join(f"{{{each}}}" for each in listeners)
    return document("Sidecar", f"{{ingress: [{found}]}}")


PORT = "port: {number: 9080, protocol: HTTP, name: main}"


def test_a_sidecars_ports_replace_those_of_services() -> None:
    mesh = workload(*web(OWN), sidecar(PORT))
    assert ports(mesh) == {9080: [("raw_buffer", True)]}
    assert workload(*web(OWN), document("Sidecar", "{egress: [{hosts: ['*/*']}]}")).view.inbound.ports == [8080, 3306]


@pytest.mark.parametrize(
    ("endpoint", "address", "sources"),
    [
        ("", None, ["127.0.0.6"]),
        ("127.0.0.1:8081", {"socket_address": {"address": "127.0.0.1", "port_value": 8081}}, []),
        ("':8081'", {"socket_address": {"address": "127.0.0.1", "port_value": 8081}}, []),
        ("'[::1]:8081'", {"socket_address": {"address": "::1", "port_value": 8081}}, []),
        # To its own address Envoy's connection would be caught again, but for where it comes from.
        ("0.0.0.0:8081", {"socket_address": {"address": OWN, "port_value": 8081}}, ["127.0.0.6"]),
        ("unix:///run/app.sock", {"pipe": {"path": "/run/app.sock"}}, []),
        ("unix://@app", {"pipe": {"path": "@app"}}, []),
    ],
)
def test_where_a_captured_port_leads(endpoint: str, address: object, sources: list[str]) -> None:
    mesh = workload(sidecar(f"{PORT}, defaultEndpoint: {endpoint}" if endpoint else PORT))
    cluster = mesh.inbound_clusters["inbound|9080||"]
    assert (cluster["endpoint"], cluster["source_addresses"]) == (address, sources)
    assert (mesh.view.inbound.listeners, mesh.problems) == ([], {})


@pytest.mark.parametrize(
    ("listener", "options", "bind"),
    [
        ("captureMode: NONE", {}, "0.0.0.0"),
        ("captureMode: NONE, bind: 127.0.0.2", {}, "127.0.0.2"),
        ("captureMode: DEFAULT", {"interception_mode": "NONE"}, "0.0.0.0"),
        ("captureMode: NONE", {"families": ("IPv6",)}, "::"),
    ],
)
def test_a_port_without_capture_is_a_listener(listener: str, options: dict[str, Any], bind: str) -> None:
    mesh = workload(sidecar(f"{PORT}, defaultEndpoint: 127.0.0.1:8081, {listener}"), **options)
    (found,) = mesh.view.inbound.listeners
    assert (found["name"], found["address"], found["port"]) == (f"{bind}_9080", bind, 9080)
    assert (ports(mesh), mesh.view.inbound.ports) == ({}, [])
    assert mesh.inbound_clusters["inbound|9080||"]["source_addresses"] == []
    assert mesh.problems == {}


@pytest.mark.parametrize(
    ("protocol", "options", "inspects", "transports"),
    [
        ("HTTP", {}, False, ["raw_buffer"]),
        ("TCP", {}, True, ["raw_buffer", "tls"]),
        ("HTTP", {"secrets": "/sds"}, True, ["tls", "raw_buffer"]),
    ],
)
def test_chains_of_a_listener(protocol: str, options: dict[str, Any], inspects: bool, transports: list[str]) -> None:
    port = PORT.replace("HTTP", protocol)
    mesh = workload(sidecar(f"{port}, captureMode: NONE, defaultEndpoint: 127.0.0.1:81"), **options)
    found: Any = mesh.view.inbound.listeners[0]
    assert found["inspects_tls"] is inspects
    assert [chain["transport"] for chain in found["chains"]] == transports


def test_strict_without_identity_holds_for_a_listener() -> None:
    strict = document("PeerAuthentication", "{mtls: {mode: STRICT}}")
    mesh = workload(strict, sidecar(f"{PORT}, captureMode: NONE, defaultEndpoint: 127.0.0.1:81"))
    found: Any = mesh.view.inbound.listeners[0]
    assert [chain["cluster"] for chain in found["chains"]] == ["BlackHoleCluster"]


@pytest.mark.parametrize(
    ("bind", "endpoint", "is_problem"),
    [
        ("", None, True),
        (", bind: 0.0.0.0", None, True),
        (", bind: 127.0.0.1", None, True),
        (f", bind: {OWN}", {"socket_address": {"address": "127.0.0.1", "port_value": 9080}}, False),
    ],
)
def test_a_listener_never_leads_to_itself(bind: str, endpoint: object, is_problem: bool) -> None:
    mesh = workload(sidecar(f"{PORT}, captureMode: NONE{bind}"))
    assert mesh.inbound_clusters["inbound|9080||"]["endpoint"] == endpoint
    assert list(mesh.problems) == (["spec.ingress[0].defaultEndpoint"] if is_problem else [])


@pytest.mark.parametrize("number", [15001, 15006, 15021])
def test_a_port_of_envoys_own_is_left_out(number: int) -> None:
    """The chain would be virtualInbound's blackhole twice, and Envoy refuses all of it."""
    mesh = workload(sidecar(PORT.replace("9080", str(number)), PORT))
    assert set(ports(mesh)) == {9080}
    assert list(mesh.problems) == ["spec.ingress[0].port.number"]


def test_a_listener_where_a_service_listens_is_left_out() -> None:
    mesh = workload(
        service_entry("a", port=9080),
        sidecar(f"{PORT}, bind: 127.0.0.1, defaultEndpoint: 127.0.0.1:81"),
        interception_mode="NONE",
    )
    assert (mesh.view.inbound.listeners, list(mesh.listeners)) == ([], ["127.0.0.1_9080"])
    assert "is the port of a service already" in mesh.problems["spec.ingress[0].port.number"]
