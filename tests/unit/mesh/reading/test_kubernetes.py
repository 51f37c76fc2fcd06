"""Service, Endpoints, EndpointSlice and WorkloadEntry: what whole ones mean, refusals, and what is left out."""

import pytest

from pilot_agent.mesh.model import (
    Endpoint,
    KubernetesService,
    ServiceEndpoints,
    ServiceEntry,
    ServicePort,
    WorkloadEntry,
)
from tests.unit.mesh.reading.outcome import (
    ENDPOINT_SLICE,
    ENDPOINTS,
    SERVICE,
    SERVICE_ENTRY,
    WORKLOAD_ENTRY,
    document,
    read,
    read_one,
    refusal,
    warnings,
)


def service(*lines: str) -> str:
    """A Service with these fields: the first of them is in line 5."""
    return document("Service", "spec:\n  " + "\n  ".join(lines))


def read_service(*lines: str) -> KubernetesService:
    found = read_one(service(*lines))
    assert isinstance(found, KubernetesService)
    return found


def endpoint(address: str, ports: dict[str, int], zone: str = "", is_ready: bool = True) -> Endpoint:
    return Endpoint(address, ports, 1, ("", zone, ""), {}, is_ready=is_ready)


def test_a_whole_service_is_understood() -> None:
    found = read_one(SERVICE)
    assert isinstance(found, KubernetesService)
    assert (found.name, found.namespace, found.selector) == ("web", "demo", {"app": "web"})
    assert (found.cluster_ips, found.is_headless, found.external_name) == (("10.0.0.5", "fd00::5"), False, "")
    assert found.ports == (
        ServicePort(0, 80, "http-web", "HTTP", 80, "web"),
        ServicePort(1, 81, "admin", "HTTP2", 8081),
    )
    assert found.export_to == (".", "other")


def test_kinds_of_services() -> None:
    assert read_service("clusterIP: None").is_headless
    assert read_service("clusterIPs: [None]").is_headless
    bare = read_service("ports: [{name: http, port: 80}]")
    assert (bare.cluster_ips, bare.is_headless) == ((), False)
    external = read_service("type: ExternalName", "externalName: db.example.com.", "clusterIP: ''")
    assert (external.external_name, external.cluster_ips, external.is_headless) == ("db.example.com", (), False)
    assert read_service("type: LoadBalancer", "clusterIP: 10.0.0.1", "externalName: ignored").external_name == ""


@pytest.mark.parametrize(
    ("port", "protocol"),
    [
        ("name: http", "HTTP"),
        ("name: HTTP-web", "HTTP"),
        ("name: http2-web", "HTTP2"),
        ("name: grpc", "GRPC"),
        ("name: grpc-web", "GRPC-WEB"),
        ("name: grpc-web-a", "GRPC-WEB"),
        ("name: grpc-webs", "GRPC"),
        ("name: https-a", "HTTPS"),
        ("name: tls", "TLS"),
        ("name: tcp-a", "TCP"),
        ("name: mongo", "MONGO"),
        ("name: redis", "REDIS"),
        ("name: mysql", "MYSQL"),
        ("name: tcp-a, appProtocol: http", "HTTP"),
        ("name: a, appProtocol: HTTPS", "HTTPS"),
        ("appProtocol: grpc-web", "GRPC-WEB"),
        ("appProtocol: kubernetes.io/h2c", "HTTP2"),
        ("appProtocol: kubernetes.io/ws", "HTTP"),
        ("name: http, appProtocol: ''", "HTTP"),
    ],
)
def test_the_protocol_of_a_port(port: str, protocol: str) -> None:
    text = service(f"ports: [{{port: 1, {port}}}]")
    found = read_one(text)
    assert isinstance(found, KubernetesService)
    assert (found.ports[0].protocol, warnings(text)) == (protocol, [])


def test_what_a_service_leaves_out_is_a_warning() -> None:
    text = service(
        "ports:",
        "- {name: web, port: 80}",
        "- {name: a, port: 81, appProtocol: smtp}",
        "- {name: dns, port: 53, protocol: UDP}",
        "- {name: tcp-dns, port: 53, protocol: TCP}",
        "sessionAffinity: ClientIP",
        "internalTrafficPolicy: Cluster",
        "ipFamilyPolicy: SingleStack",
        "externalIPs: [1.2.3.4]",
    )
    found = read_one(text)
    assert isinstance(found, KubernetesService)
    assert [(port.number, port.protocol, port.place) for port in found.ports] == [
        (80, "TCP", 0),
        (81, "TCP", 1),
        (53, "TCP", 3),
    ]
    found_at = [line.split(": ")[:2] for line in warnings(text)]
    assert found_at == [
        ["a.yaml:6", "spec.ports[0].name"],
        ["a.yaml:7", "spec.ports[1].appProtocol"],
        ["a.yaml:8", "spec.ports[2].protocol"],
        ["a.yaml:10", "spec.sessionAffinity"],
        ["a.yaml:13", "spec.externalIPs"],
    ]
    assert "begin the name with http-" in warnings(text)[0]


@pytest.mark.parametrize("written", ["0", "''", "8080", "'8080'"])
def test_target_ports_that_are_numbers(written: str) -> None:
    (port,) = read_service(f"ports: [{{name: http, port: 80, targetPort: {written}}}]").ports
    assert (port.target_port, port.target_name) == (8080 if "8080" in written else 80, "")


REFUSED = {
    "a name with dots": (
        document("Service", "spec: {}", "a.b"),
        "3: metadata.name: 'a.b' is not the name of a Service",
    ),
    "a type": (service("type: Other"), "5: spec.type: 'Other' is unknown"),
    "an address": (service("clusterIP: a.org"), "5: spec.clusterIP: 'a.org' is not an IP address"),
    "no external name": (service("type: ExternalName"), "4: spec.externalName: is missing"),
    "a wildcard": (service("type: ExternalName", "externalName: '*.a.org'"), "6: spec.externalName: '*.a.org' can't"),
    "no port": (service("ports: [{name: http}]"), "5: spec.ports[0].port: is missing"),
    "a port without a name": (service("ports: [{port: 1}, {port: 2}]"), "5: spec.ports[0].name: is missing: each of"),
    "a name twice": (
        service("ports: [{name: a, port: 1}, {name: a, port: 2}]"),
        "5: spec.ports[1].name: 'a' is there twice",
    ),
    "a port twice": (
        service("ports: [{name: a, port: 1}, {name: b, port: 1}]"),
        "5: spec.ports[1].port: 1 is there twice",
    ),
    "a transport": (service("ports: [{port: 1, protocol: tcp}]"), "5: spec.ports[0].protocol: 'tcp' is unknown"),
    "a target": (service("ports: [{port: 1, targetPort: 70000}]"), "5: spec.ports[0].targetPort: 70000 is not a port"),
    "exportTo": (
        SERVICE.replace('"., other"', '"*, other"'),
        "6: metadata.annotations.networking.istio.io/exportTo: has `*`",
    ),
    "an endpoint's address": (
        document("Endpoints", "subsets: [{addresses: [{ip: a.org}]}]"),
        "4: subsets[0].addresses[0].ip: 'a.org' is not an IP address",
    ),
    "an endpoint's port": (
        document("Endpoints", "subsets: [{addresses: [{ip: 1.2.3.4}], ports: [{port: 0}]}]"),
        "4: subsets[0].ports[0].port: 0 is not a port",
    ),
    "a kind of addresses": (ENDPOINT_SLICE.replace("IPv4", "IPX"), "4: addressType: 'IPX' is unknown"),
    "no kind of addresses": (ENDPOINT_SLICE.replace("addressType: IPv4\n", ""), "1: addressType: is missing"),
    "no address": (ENDPOINT_SLICE.replace("[10.1.0.3]", "[]"), "9: endpoints[2].addresses: is missing or empty"),
    "a condition": (ENDPOINT_SLICE.replace("ready: false", "ready: 'no'"), "8: endpoints[1].conditions.ready: 'no' is"),
    "a workload without address": (
        document("WorkloadEntry", "spec: {weight: 1}"),
        "4: spec.address: is missing: give the endpoint's address",
    ),
    "a workload without spec": (document("WorkloadEntry", ""), "1: spec: is missing"),
    "a workload on a socket": (
        document("WorkloadEntry", "spec: {address: 'unix:///a'}"),
        "4: spec.address: 'unix:///a': Unix sockets are not supported here",
    ),
    "a workload's port": (
        document("WorkloadEntry", "spec: {address: 1.2.3.4, ports: {http: 0}}"),
        "4: spec.ports.http: 0 is not a port",
    ),
    "a locality": (
        document("WorkloadEntry", "spec: {address: 1.2.3.4, locality: a/b/c/d}"),
        "4: spec.locality: 'a/b/c/d' has too many parts",
    ),
    "both endpoints and a selector": (
        SERVICE_ENTRY.rstrip() + "\n  workloadSelector: {labels: {app: api}}\n",
        "14: spec.workloadSelector: is given beside endpoints: keep one of them",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_document_is_refused(text: str, message: str) -> None:
    assert refusal(text).startswith(f"a.yaml:{message}")


def test_whole_endpoints_are_understood() -> None:
    found = read_one(ENDPOINTS)
    assert isinstance(found, ServiceEndpoints)
    assert (found.service, found.namespace) == ("x", "demo")
    ports = {"http-web": 8080, "admin": 8081}
    assert found.endpoints == (endpoint("10.1.0.1", ports), endpoint("10.1.0.2", ports, is_ready=False))


def test_a_whole_endpoint_slice_is_understood() -> None:
    found = read_one(ENDPOINT_SLICE)
    assert isinstance(found, ServiceEndpoints)
    assert (found.name, found.service, found.namespace) == ("web-1", "web", "demo")
    ports = {"http-web": 8080}
    assert found.endpoints == (
        endpoint("10.1.0.1", ports, "eu-1"),
        endpoint("10.1.0.2", ports, is_ready=False),
        endpoint("10.1.0.3", ports),
    )


def test_the_only_port_needs_no_name() -> None:
    found = read_one(ENDPOINT_SLICE.replace("name: http-web, port", "port"))
    assert isinstance(found, ServiceEndpoints)
    assert found.endpoints[0].port(ServicePort(0, 80, "", "HTTP", 80)) == 8080


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        ("IPv4", "FQDN", "a.yaml:4: addressType: FQDN is not supported here: the slice is left out"),
        (
            "kubernetes.io/service-name",
            "app",
            "a.yaml:3: metadata.labels: have no kubernetes.io/service-name: the slice",
        ),
    ],
)
def test_a_slice_that_no_service_can_use_is_left_out(old: str, new: str, warning: str) -> None:
    text = ENDPOINT_SLICE.replace(old, new)
    assert read(text).resources == ()
    assert warnings(text)[0].startswith(warning)


def test_a_whole_workload_entry_is_understood() -> None:
    found = read_one(WORKLOAD_ENTRY)
    assert isinstance(found, WorkloadEntry)
    labels = {"app": "api", "by": "metadata", "version": "v1"}
    assert found.endpoint == Endpoint("vm.example.com", {"http": 8080}, 2, ("eu", "eu-1", ""), labels, "api")


def test_a_whole_service_entry_is_understood() -> None:
    found = read_one(SERVICE_ENTRY)
    assert isinstance(found, ServiceEntry)
    assert (found.export_to, found.subject_alt_names) == ((".", "other"), ("spiffe://cluster.local/ns/demo/sa/api",))
    assert found.endpoints == (Endpoint("10.9.9.9", {"http": 90}, 3, ("eu", "eu-1", "a"), {"v": "1"}, "api"),)


def test_static_endpoints_may_be_selected() -> None:
    text = document(
        "ServiceEntry",
        "spec:\n  hosts: [a.org]\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: STATIC\n"
        "  workloadSelector: {labels: {app: api}}",
    )
    found = read_one(text)
    assert isinstance(found, ServiceEntry)
    assert (found.selector, found.endpoints, warnings(text)) == ({"app": "api"}, (), [])
    assert warnings(text.replace("STATIC", "NONE")) == [
        "a.yaml:8: spec.workloadSelector: has no effect with resolution NONE: use STATIC"
    ]


def test_what_a_workload_leaves_out_is_a_warning() -> None:
    text = document("WorkloadEntry", "spec:\n  address: 1.2.3.4\n  network: a")
    assert warnings(text) == ["a.yaml:6: spec.network: is not supported here and has no effect"]
    annotated = document("WorkloadEntry", "spec: {address: 1.2.3.4}").replace(
        "{name: x", "{annotations: {a.istio.io/b: c, other.org/d: e}, name: x"
    )
    assert warnings(annotated) == [
        "a.yaml:3: metadata.annotations.a.istio.io/b: is not supported here and has no effect"
    ]
