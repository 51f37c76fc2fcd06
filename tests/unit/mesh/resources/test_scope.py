"""What a proxy sees of the mesh: exportTo, and its Sidecar."""

import pytest

from tests.unit.mesh.declared import Seen, document, service_entry

OWN, OTHER = "a.own.svc.cluster.local", "b.other.svc.cluster.local"


def service(name: str, namespace: str, rest: str = "", port: int = 80, protocol: str = "HTTP") -> str:
    ports = f"[{{number: {port}, name: main, protocol: {protocol}}}]"
    host = f"{name}.{namespace}.svc.cluster.local"
    return document("ServiceEntry", f"{{hosts: [{host}], ports: {ports}{rest}}}", name, namespace)


def sidecar(spec: str, name: str = "it", namespace: str = "own") -> str:
    return document("Sidecar", spec, name, namespace)


def egress(*hosts: str) -> str:
    return "{egress: [{hosts: [" + ", ".join(f"'{host}'" for host in hosts) + "]}]}"


def seen(*texts: str, **options: object) -> Seen:
    return Seen(*texts, namespace="own", **options)


def hosts(mesh: Seen) -> set[str]:
    return {service.host for service in mesh.view.services}


@pytest.mark.parametrize(
    ("export_to", "is_seen"),
    [("['*']", True), ("[.]", False), ("['~']", False), ("[own]", True), ("[third]", False), ("[., own]", True)],
)
def test_export_to(export_to: str, is_seen: bool) -> None:
    mesh = seen(service("a", "own", ", exportTo: ['.']"), service("b", "other", f", exportTo: {export_to}"))
    assert hosts(mesh) == ({OWN, OTHER} if is_seen else {OWN})


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["./*"], {OWN}),
        (["*/*"], {OWN, OTHER}),
        (["other/*"], {OTHER}),
        (["own/*", "other/*"], {OWN, OTHER}),
        (["~/*"], set()),
        (["~/*", "other/*"], {OTHER}),
        ([f"*/{OTHER}"], {OTHER}),
        ([f"./{OTHER}"], set()),
        (["*/*.svc.cluster.local"], {OWN, OTHER}),
        (["*/*.other.svc.cluster.local"], {OTHER}),
    ],
)
def test_egress_hosts(wanted: list[str], found: set[str]) -> None:
    mesh = seen(service("a", "own"), service("b", "other"), sidecar(egress(*wanted)))
    assert hosts(mesh) == found
    assert set(mesh.listeners) == ({"0.0.0.0_80"} if found else set())


MINE = "{workloadSelector: {labels: {app: me}}, " + egress(f"*/{OWN}")[1:]
NOT_MINE = MINE.replace("app: me", "app: you")


@pytest.mark.parametrize(
    ("sidecars", "found"),
    [
        ([], {OWN, OTHER}),
        ([sidecar(egress("other/*"), namespace="istio-system")], {OTHER}),
        ([sidecar(egress("other/*"), namespace="istio-system"), sidecar(egress("./*"))], {OWN}),
        ([sidecar(egress("other/*")), sidecar(MINE, "mine")], {OWN}),
        ([sidecar(egress("other/*")), sidecar(NOT_MINE, "mine")], {OTHER}),
        ([sidecar(MINE, namespace="istio-system")], {OWN, OTHER}),
        ([sidecar(egress("./*"), namespace="third")], {OWN, OTHER}),
        ([sidecar(egress("./*"), "first"), sidecar(egress("other/*"), "second")], {OWN}),
        ([sidecar("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}")], {OWN, OTHER}),
    ],
)
def test_which_sidecar_counts(sidecars: list[str], found: set[str]) -> None:
    assert hosts(seen(service("a", "own"), service("b", "other"), *sidecars, labels={"app": "me"})) == found


@pytest.mark.parametrize(
    ("spec", "mesh_wide", "policy"),
    [
        ("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}", "ALLOW_ANY", "REGISTRY_ONLY"),
        ("{outboundTrafficPolicy: {mode: ALLOW_ANY}}", "REGISTRY_ONLY", "ALLOW_ANY"),
        ("{outboundTrafficPolicy: {}}", "ALLOW_ANY", "REGISTRY_ONLY"),
        (egress("*/*"), "REGISTRY_ONLY", "REGISTRY_ONLY"),
        (egress("*/*"), "ALLOW_ANY", "ALLOW_ANY"),
    ],
)
def test_outbound_policy(spec: str, mesh_wide: str, policy: str) -> None:
    mesh = seen(service("a", "own"), sidecar(spec), outbound_policy=mesh_wide)
    assert mesh.view.policy == policy
    assert mesh.view.outbound.routes["80"]["policy"] == policy


def test_a_rule_may_lead_beyond_the_sidecar() -> None:
    rule = "{hosts: [a], http: [{route: [{destination: {host: b.other.svc.cluster.local}}]}]}"
    mesh = seen(
        service("a", "own"), service("b", "other"), sidecar(egress("./*")), document("VirtualService", rule, "r", "own")
    )
    assert list(mesh.clusters) == [f"outbound|80||{OWN}", f"outbound|80||{OTHER}"]
    assert list(mesh.hosts("80")) == [f"{OWN}:80"]
    assert mesh.problems == {}


def test_a_listener_with_a_port_leads_to_its_hosts_alone() -> None:
    listeners = "{egress: [{port: {number: 80, protocol: HTTP}, hosts: [other/*]}, {hosts: ['*/*']}]}"
    mesh = seen(service("a", "own"), service("b", "other"), service("c", "own", port=81), sidecar(listeners))
    assert list(mesh.hosts("80")) == [f"{OTHER}:80"]
    assert set(mesh.listeners) == {"0.0.0.0_80", "0.0.0.0_81"}


@pytest.mark.parametrize(
    ("listener", "mode", "place", "is_bound"),
    [
        ("captureMode: NONE, bind: 127.0.0.1", "REDIRECT", "127.0.0.1", True),
        ("captureMode: NONE", "REDIRECT", "127.0.0.1", True),
        ("captureMode: IPTABLES", "REDIRECT", "0.0.0.0", False),
        ("captureMode: DEFAULT", "NONE", "127.0.0.1", True),
        ("bind: 127.0.0.9", "NONE", "127.0.0.9", True),
        ("bind: 10.1.1.1", "REDIRECT", "10.1.1.1", False),
    ],
)
def test_where_an_egress_listener_listens(listener: str, mode: str, place: str, is_bound: bool) -> None:
    spec = f"{{egress: [{{port: {{number: 80, protocol: HTTP}}, hosts: ['*/*'], {listener}}}]}}"
    mesh = seen(service("a", "own"), service("c", "own", port=81), sidecar(spec), interception_mode=mode)
    (found,) = mesh.listeners.values()
    assert (found["name"], found["address"], found["is_bound"]) == (f"{place}_80", place, is_bound)


def test_two_listeners_of_one_port_have_routes_of_their_own() -> None:
    """Routes are files by port; the second place takes its address into the name."""
    bound = "{port: {number: 80, protocol: HTTP}, bind: 127.0.0.1, captureMode: NONE, hosts: [own/*]}"
    spec = f"{{egress: [{bound}, {{hosts: [other/*]}}]}}"
    mesh = seen(service("a", "own"), service("b", "other"), sidecar(spec))
    assert {name: each["route"] for name, each in mesh.listeners.items()} == {
        "0.0.0.0_80": "80",
        "127.0.0.1_80": "127.0.0.1:80",
    }
    assert list(mesh.hosts("80")) == [f"{OTHER}:80"] and list(mesh.hosts("127.0.0.1:80")) == [f"{OWN}:80"]


def test_hosts_of_services_outside_the_sidecar_are_no_strangers() -> None:
    """A rule of another namespace that the Sidecar does not let in adds nothing to port 80."""
    rule = document(
        "VirtualService", f"{{hosts: [{OTHER}], http: [{{route: [{{destination: {{host: {OTHER}}}}}]}}]}}", "r", "other"
    )
    mesh = seen(service("a", "own"), service("b", "other"), sidecar(egress("./*")), rule)
    assert list(mesh.hosts("80")) == [f"{OWN}:80"]


def test_a_service_entry_is_of_the_default_namespace() -> None:
    assert hosts(Seen(service_entry("a"))) == {"a.example.com"}
