"""What different documents say of one service, put together."""

import pytest

from tests.unit.mesh.declared import Seen, document, endpoint_slice, kubernetes_service, service_entry

WEB = "web.default.svc.cluster.local"
CLUSTER = f"outbound|80||{WEB}"


def workload(address: str, rest: str = "labels: {app: web}", name: str = "one", namespace: str = "default") -> str:
    return document("WorkloadEntry", f"{{address: {address}, {rest}}}", name, namespace)


def selecting(labels: str, namespace: str = "default") -> str:
    ports = "[{number: 80, name: http, protocol: HTTP, targetPort: 8080}]"
    spec = f"{{hosts: [a.example.com], ports: {ports}, resolution: STATIC, workloadSelector: {{labels: {labels}}}}}"
    return document("ServiceEntry", spec, "a", namespace)


@pytest.mark.parametrize(
    ("selector", "namespace", "found"),
    [
        ("{app: web}", "default", ["10.0.0.1:8080", "10.0.0.2:81"]),
        ("{app: web, version: v2}", "default", ["10.0.0.2:81"]),
        ("{app: other}", "default", []),
        ("{app: web}", "elsewhere", []),
    ],
)
def test_a_selector_takes_workloads_of_its_namespace(selector: str, namespace: str, found: list[str]) -> None:
    mesh = Seen(
        selecting(selector, namespace),
        workload("10.0.0.1"),
        workload("10.0.0.2", "labels: {app: web, version: v2}, ports: {http: 81}", "two"),
    )
    assert mesh.addresses("outbound|80||a.example.com") == found


@pytest.mark.parametrize(
    "selected", [workload("10.0.0.1"), workload("10.0.0.1", "labels: {app: web}, ports: {http: 80}")]
)
def test_an_endpoint_told_twice_is_one(selected: str) -> None:
    service = kubernetes_service("web", more="selector: {app: web}")
    assert Seen(service, endpoint_slice("web", "10.0.0.1"), selected).addresses(CLUSTER) == ["10.0.0.1:80"]


def test_an_endpoint_on_two_ports_is_two() -> None:
    service, other = kubernetes_service("web"), endpoint_slice("web", "10.0.0.1", ports="[{name: http, port: 81}]")
    mesh = Seen(service, endpoint_slice("web", "10.0.0.1"), other.replace("web-10", "web-11"))
    assert mesh.addresses(CLUSTER) == ["10.0.0.1:80", "10.0.0.1:81"]


def test_a_workload_entry_describes_the_endpoint_at_its_address() -> None:
    known = "labels: {version: v1}, serviceAccount: web, locality: eu/west/a"
    mesh = Seen(kubernetes_service("web"), endpoint_slice("web", "10.0.0.1", "10.0.0.2"), workload("10.0.0.1", known))
    one, two = mesh.view.services[0].endpoints
    assert (one.labels, one.service_account, one.locality) == ({"version": "v1"}, "web", ("eu", "west", "a"))
    assert (two.labels, two.service_account) == ({}, "")
    elsewhere = workload("10.0.0.1", known, namespace="elsewhere")
    (endpoint,) = (
        Seen(kubernetes_service("web"), endpoint_slice("web", "10.0.0.1"), elsewhere).view.services[0].endpoints
    )
    assert endpoint.labels == {}


def test_what_is_not_ready_gets_no_traffic() -> None:
    service = kubernetes_service("web", more="selector: {app: web}")
    waiting = endpoint_slice("web", "10.0.0.1", more="conditions: {ready: false}")
    mesh = Seen(service, waiting, endpoint_slice("web", "10.0.0.2"), workload("10.0.0.1"))
    assert mesh.addresses(CLUSTER) == ["10.0.0.2:80"]
    assert [endpoint.address for endpoint in mesh.view.services[0].unready] == ["10.0.0.1"]


def test_endpoints_of_both_kinds_are_of_their_service_alone() -> None:
    endpoints = (
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\n"
        "subsets:\n"
        "- {addresses: [{ip: 10.0.0.3}], notReadyAddresses: [{ip: 10.0.0.4}], ports: [{name: http, port: 90}]}\n"
    )
    mesh = Seen(kubernetes_service("web"), endpoints, endpoint_slice("other", "10.0.0.5"))
    assert mesh.addresses(CLUSTER) == ["10.0.0.3:90"]


def test_a_host_in_two_documents_has_the_ports_of_both() -> None:
    mesh = Seen(
        service_entry("a", port=80, endpoint="10.0.0.1"),
        service_entry("b", host="a.example.com", port=443, protocol="TLS", endpoint="10.0.0.2"),
        document(
            "VirtualService",
            "{hosts: [b.org], http: [{route: [{destination: {host: a.example.com, port: {number: 443}}}]}]}",
        ),
    )
    assert mesh.problems == {}
    assert list(mesh.clusters) == ["outbound|443||a.example.com", "outbound|80||a.example.com"]
    assert mesh.addresses("outbound|443||a.example.com") == ["10.0.0.2:443"]


@pytest.mark.parametrize(
    ("more", "kind", "found"),
    [
        ("type: ExternalName, externalName: api.example.org", "STRICT_DNS", ["api.example.org:80"]),
        ("clusterIP: None", "ORIGINAL_DST", []),
        ("clusterIP: 10.96.0.1", "EDS", ["10.0.0.1:80"]),
    ],
)
def test_kinds_of_kubernetes_services(more: str, kind: str, found: list[str]) -> None:
    texts = () if "External" in more else (endpoint_slice("web", "10.0.0.1"),)
    mesh = Seen(kubernetes_service("web", more=more), *texts)
    assert (mesh.clusters[CLUSTER]["type"], mesh.addresses(CLUSTER)) == (kind, found)


def test_without_interception_a_headless_service_is_its_endpoints() -> None:
    mesh = Seen(
        kubernetes_service("web", more="clusterIP: None"), endpoint_slice("web", "10.0.0.1"), interception_mode="NONE"
    )
    assert (mesh.clusters[CLUSTER]["type"], mesh.addresses(CLUSTER)) == ("EDS", ["10.0.0.1:80"])


def test_a_workload_whose_address_is_a_name_is_no_endpoint_of_addresses() -> None:
    mesh = Seen(
        kubernetes_service("web", more="selector: {app: web}"),
        workload("vm.example.com"),
        workload("10.0.0.1", name="two"),
    )
    assert mesh.addresses(CLUSTER) == ["10.0.0.1:80"]
    (problem,) = mesh.view.problems
    assert (problem.path, problem.reason.split(",")[0]) == (("spec", "address"), "vm.example.com is a name")
