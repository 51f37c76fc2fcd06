"""The listeners' view of meshes richer than the recorded one."""

import textwrap
from typing import Any

import pytest

from pilot_agent.inspect import config_dump, listeners
from pilot_agent.inspect.listeners import ListenerFilter
from tests.support import dumps
from tests.support.dumps import at, chain, http, tcp


def shown(*made: dict[str, Any], wanted: ListenerFilter | None = None, is_verbose: bool = True) -> str:
    found = config_dump.listeners(config_dump.parse(dumps.listeners(*made), "it"))
    return listeners.view(found, wanted or ListenerFilter(), is_verbose=is_verbose)


def listener(address: str, port: int, *chains: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": f"{address}_{port}", "address": at(address, port), "filter_chains": list(chains), **fields}


def rows(text: str) -> list[str]:
    return text.splitlines()[1:]


def only(filter_chain: dict[str, Any]) -> tuple[str, str]:
    """Match and destination of the only chain."""
    head, row = shown(listener("0.0.0.0", 80, filter_chain)).splitlines()
    middle = head.index("DESTINATION")
    return row[head.index("MATCH") : middle].rstrip(), row[middle:]


@pytest.mark.parametrize(
    ("match", "said"),
    [
        ({}, "ALL"),
        ({"server_names": ["a.com", "*.b.com"]}, "SNI: a.com,*.b.com"),
        (
            {"server_names": ["a.com"], "transport_protocol": "tls", "application_protocols": ["h2"]},
            "SNI: a.com; Trans: tls; App: h2",
        ),
        ({"application_protocols": ["http/1.0", "http/1.1", "h2c"]}, "App: HTTP"),
        ({"application_protocols": ["istio-peer-exchange", "istio"]}, "App: TCP TLS"),
        ({"application_protocols": ["istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"]}, "App: Istio HTTP Plain"),
        (
            {"application_protocols": ["http/1.0", "http/1.1", "h2c", "istio-http/1.0", "istio-http/1.1", "istio-h2"]},
            "App: HTTP TLS",
        ),
        ({"application_protocols": ["istio", "istio-peer-exchange"]}, "App: istio,istio-peer-exchange"),
        ({"destination_port": 80}, "Addr: *:80"),
        ({"prefix_ranges": [{"address_prefix": "10.0.0.1", "prefix_len": 32}]}, "Addr: 10.0.0.1/32"),
        ({"prefix_ranges": [{"address_prefix": "0.0.0.0", "prefix_len": 0}]}, "Addr: 0.0.0.0/0"),
        (
            {
                "prefix_ranges": [
                    {"address_prefix": "10.0.0.0", "prefix_len": 8},
                    {"address_prefix": "fd00::", "prefix_len": 64},
                ],
                "destination_port": 8080,
            },
            "Addr: 10.0.0.0/8,fd00::/64:8080",
        ),
        ({"source_prefix_ranges": [{"address_prefix": "1.2.3.4", "prefix_len": 32}]}, "ALL"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_chain_matches(match: dict[str, Any], said: str) -> None:
    assert only(chain(tcp("c"), **match))[0] == said


def of_routes(*routes: dict[str, Any], domains: tuple[str, ...] = ("*",)) -> dict[str, Any]:
    return {"virtual_hosts": [{"domains": list(domains), "routes": list(routes)}]}


ALL_TO = {"match": {"prefix": "/"}, "route": {"cluster": "outbound|80||a"}}


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ([tcp("outbound|80||a.com")], "Cluster: outbound|80||a.com"),
        ([tcp("PassthroughCluster")], "PassthroughCluster"),
        ([tcp("BlackHoleCluster")], "Non-HTTP/Non-TCP"),
        ([tcp("x", stat_prefix="BlackHoleCluster")], "Non-HTTP/Non-TCP"),
        # istioctl names no cluster where there are several.
        ([tcp(weighted_clusters={"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 2}]})], "Cluster: "),
        ([{"name": "envoy.filters.network.rbac"}, tcp("a")], "Cluster: a"),
        ([{"name": "envoy.filters.network.redis_proxy"}], "Non-HTTP/Non-TCP"),
        ([], "Non-HTTP/Non-TCP"),
        ([http(rds={"route_config_name": "http.8080"})], "Route: http.8080"),
        ([http()], "HTTP"),
        ([http(route_config=of_routes(ALL_TO))], "Cluster: outbound|80||a"),
        (
            [http(route_config=of_routes({"match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster"}}))],
            "PassthroughCluster",
        ),
        ([http(route_config=of_routes(ALL_TO, domains=("a.com", "b.com")))], "Inline Route: a.com/b.com /*"),
        (
            [http(route_config=of_routes({"match": {"path": "/x"}, "redirect": {"path_redirect": "/y"}}, ALL_TO))],
            "Inline Route: /x, /*",
        ),
        (
            [http(route_config=of_routes({"match": {"prefix": "/"}, "direct_response": {"status": 404}}))],
            "Inline Route: /*",
        ),
        (
            [
                http(
                    route_config=of_routes({"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": []}}})
                )
            ],
            "Inline Route: /*",
        ),
        ([http(route_config={"virtual_hosts": []})], "Inline Route: "),
        (
            [http(route_config={"virtual_hosts": [{"domains": ["*"]}, {"domains": ["a"], "routes": [ALL_TO]}]})],
            "Inline Route: ; a /*",
        ),
    ],
)
def test_where_a_chain_leads(filters: list[dict[str, Any]], said: str) -> None:
    assert only(chain(*filters))[1] == said


def test_a_gateway_an_ipv6_an_internal_and_a_unix_listener() -> None:
    made = (
        listener(
            "0.0.0.0",
            8443,
            chain(http(rds={"route_config_name": "https.443.https.gw.demo"}), server_names=["*.example.com"]),
            chain(tcp("outbound|9443||db.demo.svc.cluster.local"), server_names=["db.example.com"]),
            default_filter_chain=chain(tcp("BlackHoleCluster")),
        ),
        listener("fd00:10::1", 443, chain(tcp("outbound|443|v1|a.demo.svc.cluster.local"))),
        listener("10.0.0.1", 443, chain(tcp("outbound|443||b.demo.svc.cluster.local"))),
        {"name": "connect_originate", "internal_listener": {}, "filter_chains": [chain(tcp("encap"))]},
        {"name": "uds", "address": {"pipe": {"path": "/var/run/x"}}, "filter_chains": [chain(tcp("local"))]},
    )
    expected = """\
    ADDRESSES  PORT MATCH               DESTINATION
               0    ALL                 Cluster: encap
    /var/run/x 0    ALL                 Cluster: local
    10.0.0.1   443  ALL                 Cluster: outbound|443||b.demo.svc.cluster.local
    fd00:10::1 443  ALL                 Cluster: outbound|443|v1|a.demo.svc.cluster.local
    0.0.0.0    8443 SNI: *.example.com  Route: https.443.https.gw.demo
    0.0.0.0    8443 ALL                 Non-HTTP/Non-TCP
    0.0.0.0    8443 SNI: db.example.com Cluster: outbound|9443||db.demo.svc.cluster.local
    """
    assert shown(*made) == textwrap.dedent(expected)


def test_types_without_verbose() -> None:
    made = (
        listener("0.0.0.0", 1, chain(http())),
        listener("0.0.0.0", 2, chain(tcp("a"))),
        listener("0.0.0.0", 3, chain(http()), default_filter_chain=chain(tcp("a"))),
        listener("0.0.0.0", 4, chain(tcp("BlackHoleCluster"))),
        listener("0.0.0.0", 5),
    )
    assert shown(*made, is_verbose=False) == (
        "ADDRESSES PORT TYPE\n0.0.0.0   1    HTTP\n0.0.0.0   2    TCP\n0.0.0.0   3    HTTP+TCP\n"
        "0.0.0.0   4    UNKNOWN\n0.0.0.0   5    UNKNOWN\n"
    )


@pytest.mark.parametrize(
    ("wanted", "ports"),
    [
        (ListenerFilter(port=443), ["443", "443"]),
        (ListenerFilter(address="FD00::1"), ["443"]),
        (ListenerFilter(address="::"), ["80"]),
        (ListenerFilter(kind="http"), ["80"]),
        (ListenerFilter(kind="tcp", address="10.0.0.1"), ["443"]),
        (ListenerFilter(kind="udp"), []),
        (ListenerFilter(port=444), []),
    ],
)
def test_filters(wanted: ListenerFilter, ports: list[str]) -> None:
    made = (
        listener("fd00::1", 443, chain(tcp("a"))),
        listener("10.0.0.1", 443, chain(tcp("a"))),
        listener("0.0.0.0", 80, chain(http()), additional_addresses=[{"address": at("::", 80)}]),
    )
    text = shown(*made, wanted=wanted)
    assert [row.split()[1] for row in rows(text)] == ports


def test_only_what_serves_is_shown() -> None:
    warming = {"name": "w", "warming_state": {"listener": listener("0.0.0.0", 1)}}
    failed = {"name": "e", "error_state": {"failed_configuration": {}, "details": "no"}}
    serving = {"name": "a", "active_state": {"listener": listener("0.0.0.0", 2)}, "draining_state": {"listener": {}}}
    dump = dumps.dump(Listeners={"dynamic_listeners": [warming, failed, serving], "static_listeners": [{}]})
    assert [each["name"] for each in config_dump.listeners(config_dump.parse(dump, "it"))] == ["0.0.0.0_2"]
