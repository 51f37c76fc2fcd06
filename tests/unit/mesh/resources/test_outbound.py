"""Outbound listeners: where each port listens, what shares a listener, and the chains of TCP and TLS."""

from typing import Any

import pytest

from tests.unit.mesh.declared import Seen, document, endpoint_slice, kubernetes_service, service_entry


def tcp(name: str, ip: str = "10.96.0.1", port: int = 3306, protocol: str = "tcp") -> str:
    return kubernetes_service(name, f"[{{name: {protocol}, port: {port}}}]", f"clusterIP: {ip}")


def rule(routes: str, host: str = "db", name: str = "it") -> str:
    return document("VirtualService", f"{{hosts: ['{host}'], {routes}}}", name)


def chains(mesh: Seen, listener: str) -> dict[tuple[str, str], list[tuple[str, int]]]:
    """By CIDR range and server name: clusters, by the first part of their host, with weights."""
    found = {}
    for chain in mesh.listeners[listener]["chains"]:
        ranges = ",".join(f"{each['address_prefix']}/{each['prefix_len']}" for each in chain["prefix_ranges"])
        found[ranges, chain["server_name"]] = [
            (each["name"].removeprefix("outbound|").split(".")[0], each["weight"]) for each in chain["clusters"]
        ]
    return found


# ---- where a port listens --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "found"),
    [
        (service_entry("a", port=80), {}, {"0.0.0.0_80"}),
        (service_entry("a", port=80, addresses=("10.0.0.1",)), {}, {"0.0.0.0_80"}),
        (service_entry("a", port=80), {"families": ("IPv6",)}, {"::_80"}),
        (service_entry("a", port=80), {"families": ("IPv4", "IPv6")}, {"0.0.0.0_80"}),
        (service_entry("a", port=80), {"interception_mode": "NONE"}, {"127.0.0.1_80"}),
        (service_entry("a", port=80), {"interception_mode": "NONE", "families": ("IPv6",)}, {"::1_80"}),
        (service_entry("a", port=80), {"interception_mode": "TPROXY"}, {"0.0.0.0_80"}),
        (tcp("db"), {}, {"10.96.0.1_3306"}),
        (tcp("db"), {"interception_mode": "NONE"}, {"127.0.0.1_3306"}),
        (
            kubernetes_service("db", "[{name: tcp, port: 1}]", "clusterIPs: [10.96.0.1, 'fd00::1']"),
            {},
            {"10.96.0.1_1", "fd00::1_1"},
        ),
        (
            kubernetes_service("db", "[{name: tcp, port: 1}]", "type: ExternalName, externalName: x.org"),
            {},
            {"0.0.0.0_1"},
        ),
        (service_entry("db", port=1, protocol="TCP"), {}, {"0.0.0.0_1"}),
        (service_entry("db", port=1, protocol="TCP", addresses=("10.0.0.0/8",)), {}, {"0.0.0.0_1"}),
        (
            service_entry("db", port=1, protocol="TCP", addresses=("10.0.0.0/8", "11.0.0.1")),
            {},
            {"0.0.0.0_1", "11.0.0.1_1"},
        ),
    ],
)
def test_where_a_port_listens(text: str, options: dict[str, Any], found: set[str]) -> None:
    mesh = Seen(text, **options)
    assert set(mesh.listeners) == found
    is_bound = options.get("interception_mode") == "NONE"
    assert {listener["is_bound"] for listener in mesh.listeners.values()} == {is_bound}


def test_two_families_share_a_listener() -> None:
    mesh = Seen(service_entry("a", port=80), families=("IPv4", "IPv6"))
    assert mesh.listeners["0.0.0.0_80"]["more_addresses"] == ["::"]
    assert Seen(tcp("db"), families=("IPv4", "IPv6")).listeners["10.96.0.1_3306"]["more_addresses"] == []


def headless(*addresses: str, port: str = "tcp") -> tuple[str, ...]:
    service = kubernetes_service("db", f"[{{name: {port}, port: 80}}]", "clusterIP: None")
    return (service, endpoint_slice("db", *addresses)) if addresses else (service,)


def test_a_headless_tcp_service_listens_where_its_endpoints_are() -> None:
    assert set(Seen(*headless("10.0.0.1", "10.0.0.2")).listeners) == {"10.0.0.1_80", "10.0.0.2_80"}
    assert set(Seen(*headless("10.0.0.1", port="http")).listeners) == {"0.0.0.0_80"}
    assert set(Seen(*headless("10.0.0.1"), interception_mode="NONE").listeners) == {"127.0.0.1_80"}


def test_a_headless_service_without_endpoints_takes_no_port_from_others() -> None:
    mesh = Seen(*headless(), service_entry("web", port=80))
    assert list(mesh.hosts("80")) == ["web.example.com:80"]
    assert set(mesh.listeners) == {"0.0.0.0_80"}


def test_http_services_of_a_port_share_its_routes() -> None:
    mesh = Seen(service_entry("b", port=80), service_entry("a", port=80, protocol="GRPC"), service_entry("c", port=81))
    assert list(mesh.hosts("80")) == ["a.example.com:80", "b.example.com:80"]
    assert {name: each["route"] for name, each in mesh.listeners.items()} == {"0.0.0.0_80": "80", "0.0.0.0_81": "81"}


def test_beyond_the_files_routes_stand_in_the_listener() -> None:
    mesh = Seen(*(service_entry(f"s{port}", port=port) for port in (80, 81)), route_files=1)
    assert list(mesh.view.outbound.routes) == ["80"]
    assert mesh.listeners["0.0.0.0_80"]["configuration"] is None
    assert mesh.listeners["0.0.0.0_81"]["configuration"]["virtual_hosts"][0]["name"] == "s81.example.com:81"


# ---- TCP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "listener", "found", "has_default"),
    [
        ((), "0.0.0.0_1", {("", "")}, False),
        (("11.0.0.1",), "11.0.0.1_1", {("", "")}, False),
        (("10.0.0.0/8", "fd00::/8"), "0.0.0.0_1", {("10.0.0.0/8", ""), ("fd00::/8", "")}, True),
    ],
)
def test_a_tcp_service_is_told_by_its_address(
    addresses: tuple[str, ...], listener: str, found: set[tuple[str, str]], has_default: bool
) -> None:
    mesh = Seen(service_entry("db", port=1, protocol="TCP", addresses=addresses))
    assert set(chains(mesh, listener)) == found
    assert mesh.listeners[listener]["has_default"] is has_default
    assert mesh.listeners[listener]["inspects_tls"] is False


@pytest.mark.parametrize(
    ("routes", "found"),
    [
        ("tcp: [{route: [{destination: {host: other}}]}]", {("", ""): [("3307||other", 1)]}),
        (
            "tcp: [{route: [{destination: {host: db}, weight: 90}, {destination: {host: other}, weight: 10}]}]",
            {("", ""): [("3306||db", 90), ("3307||other", 10)]},
        ),
        (
            "tcp: [{route: [{destination: {host: db}, weight: 1}, {destination: {host: other}, weight: 0}]}]",
            {("", ""): [("3306||db", 1)]},
        ),
        ("tcp: [{match: [{port: 3306}], route: [{destination: {host: other}}]}]", {("", ""): [("3307||other", 1)]}),
        ("tcp: [{match: [{port: 1}], route: [{destination: {host: other}}]}]", {("", ""): [("3306||db", 1)]}),
        (
            "tcp: [{match: [{sourceLabels: {app: you}}], route: [{destination: {host: other}}]}]",
            {("", ""): [("3306||db", 1)]},
        ),
        (
            "tcp: [{match: [{sourceNamespace: default}], route: [{destination: {host: other}}]}]",
            {("", ""): [("3307||other", 1)]},
        ),
        (
            "tcp: [{match: [{destinationSubnets: [10.1.0.0/16, 10.2.0.1]}], route: [{destination: {host: other}}]}]",
            {
                ("10.1.0.0/16", ""): [("3307||other", 1)],
                ("10.2.0.1/32", ""): [("3307||other", 1)],
                ("", ""): [("3306||db", 1)],
            },
        ),
        # The first route that takes everything counts.
        (
            "tcp: [{route: [{destination: {host: other}}]}, {route: [{destination: {host: db}}]}]",
            {("", ""): [("3307||other", 1)]},
        ),
        # Routes of other kinds say nothing about TCP.
        ("http: [{route: [{destination: {host: other}}]}]", {("", ""): [("3306||db", 1)]}),
        (
            "tls: [{match: [{sniHosts: [db]}], route: [{destination: {host: other}}]}]",
            {("", ""): [("3306||db", 1)]},
        ),
    ],
)
def test_tcp_routes(routes: str, found: dict[tuple[str, str], list[tuple[str, int]]]) -> None:
    mesh = Seen(tcp("db"), tcp("other", "10.96.0.2", 3307), rule(routes), labels={"app": "me"})
    assert chains(mesh, "10.96.0.1_3306") == found
    assert mesh.problems == {}


@pytest.mark.parametrize(
    ("destination", "field", "cluster"),
    [
        ("{host: nobody}", "host", "3306||nobody"),
        ("{host: db, port: {number: 7}}", "port", "7||db"),
        ("{host: db, subset: v1}", "subset", "3306|v1|db"),
    ],
)
def test_a_tcp_route_to_what_is_not_there(destination: str, field: str, cluster: str) -> None:
    mesh = Seen(tcp("db"), rule(f"tcp: [{{route: [{{destination: {destination}}}]}}]"))
    assert list(mesh.problems) == [f"spec.tcp[0].route[0].destination.{field}"]
    assert chains(mesh, "10.96.0.1_3306") == {("", ""): [(cluster, 1)]}


@pytest.mark.parametrize(
    ("pool", "found"),
    [
        ("", (None, None)),
        ("trafficPolicy: {connectionPool: {tcp: {idleTimeout: 5s, maxConnectionDuration: 60s}}}", ("5s", "60s")),
    ],
)
def test_how_long_a_connection_lasts(pool: str, found: tuple[str | None, str | None]) -> None:
    mesh = Seen(tcp("db"), document("DestinationRule", f"{{host: db, {pool}}}"))
    (chain,) = mesh.listeners["10.96.0.1_3306"]["chains"]
    assert (chain["idle_timeout"], chain["max_duration"]) == found
    routed = rule("tcp: [{route: [{destination: {host: db}}]}]", "other")
    mesh = Seen(
        tcp("db"), tcp("other", "10.96.0.2", 3307), document("DestinationRule", f"{{host: db, {pool}}}"), routed
    )
    (chain,) = mesh.listeners["10.96.0.2_3307"]["chains"]
    assert (chain["idle_timeout"], chain["max_duration"]) == found


# ---- TLS -------------------------------------------------------------------------------------------------------------


def tls(name: str, host: str = "", port: int = 443) -> str:
    return service_entry(name, host=host, port=port, protocol="TLS", resolution="DNS", endpoint="x.org")


def test_tls_services_of_a_port_are_told_by_server_name() -> None:
    mesh = Seen(tls("a"), tls("b", "'*.b.org'"), tls("c", "UP.org"))
    assert chains(mesh, "0.0.0.0_443") == {
        ("", "*.b.org"): [("443||*", 1)],
        ("", "a.example.com"): [("443||a", 1)],
        ("", "up.org"): [("443||UP", 1)],
    }
    listener = mesh.listeners["0.0.0.0_443"]
    assert (listener["inspects_tls"], listener["has_default"]) == (True, True)
    assert Seen(tls("a"), interception_mode="NONE").listeners["127.0.0.1_443"]["has_default"] is False


@pytest.mark.parametrize(
    ("routes", "found"),
    [
        (
            "tls: [{match: [{sniHosts: [a.example.com]}], route: [{destination: {host: b.example.com}}]}]",
            {("", "a.example.com"): [("444||b", 1)]},
        ),
        (
            "tls: [{match: [{sniHosts: [a.example.com], port: 443}], route: "
            "[{destination: {host: a.example.com}, weight: 1}, {destination: {host: b.example.com}, weight: 3}]}]",
            {("", "a.example.com"): [("443||a", 1), ("444||b", 3)]},
        ),
        (
            "tls: [{match: [{sniHosts: [a.example.com], port: 1}], route: [{destination: {host: b.example.com}}]}]",
            {("", "a.example.com"): [("443||a", 1)]},
        ),
        # The first match of a server name counts.
        (
            "tls: [{match: [{sniHosts: [a.example.com]}], route: [{destination: {host: b.example.com}}]}, "
            "{match: [{sniHosts: [a.example.com]}], route: [{destination: {host: a.example.com}}]}]",
            {("", "a.example.com"): [("444||b", 1)]},
        ),
        ("tcp: [{route: [{destination: {host: b.example.com}}]}]", {("", "a.example.com"): [("443||a", 1)]}),
    ],
)
def test_tls_routes(routes: str, found: dict[tuple[str, str], list[tuple[str, int]]]) -> None:
    mesh = Seen(tls("a"), tls("b", port=444), rule(routes, "a.example.com"))
    assert chains(mesh, "0.0.0.0_443") == found
    assert mesh.problems == {}


def test_a_server_name_within_a_wildcard_host() -> None:
    routes = "tls: [{match: [{sniHosts: [x.b.org]}], route: [{destination: {host: a.example.com}}]}]"
    mesh = Seen(tls("a"), tls("b", "'*.b.org'"), rule(routes, "'*.b.org'".strip("'")))
    assert chains(mesh, "0.0.0.0_443") == {
        ("", "*.b.org"): [("443||*", 1)],
        ("", "a.example.com"): [("443||a", 1)],
        ("", "x.b.org"): [("443||a", 1)],
    }


def test_a_rule_of_several_hosts_has_each_server_name_at_its_own_service() -> None:
    routes = (
        "tls: [{match: [{sniHosts: [a.example.com, b.example.com]}], route: [{destination: {host: a.example.com}}]}]"
    )
    text = document("VirtualService", f"{{hosts: [a.example.com, b.example.com], {routes}}}")
    mesh = Seen(tls("a"), tls("b", port=444), text)
    assert set(chains(mesh, "0.0.0.0_443")) == {("", "a.example.com")}
    assert set(chains(mesh, "0.0.0.0_444")) == {("", "b.example.com")}


# ---- who may be asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["ALLOW_ANY", "REGISTRY_ONLY"])
def test_everybody_else_is_the_policys(policy: str) -> None:
    mesh = Seen(service_entry("a", port=80), outbound_policy=policy)
    assert (mesh.view.policy, mesh.view.outbound.routes["80"]["policy"]) == (policy, policy)
