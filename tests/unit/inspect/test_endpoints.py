"""The endpoints' views: as Envoy judges them, and as istiod told them."""

import json
from typing import Any

import pytest

from pilot_agent.inspect import config_dump, endpoints
from pilot_agent.inspect.endpoints import EndpointFilter
from tests.support import dumps
from tests.support.dumps import at


def judged(address: dict[str, Any], status: str = "HEALTHY", **flags: bool) -> dict[str, Any]:
    return {"address": address, "health_status": {"eds_health_status": status, **flags}}


def internal(listener: str, endpoint_id: str) -> dict[str, Any]:
    return {"envoy_internal_address": {"server_listener_name": listener, "endpoint_id": endpoint_id}}


STATUSES: list[dict[str, Any]] = [
    {
        "name": "outbound|80||b.demo",
        "host_statuses": [
            judged(at("10.0.0.2", 8080), failed_outlier_check=True),
            judged(at("10.0.0.10", 8080), "UNHEALTHY", failed_active_health_check=True),
            judged(at("fd00::1", 8080), "DRAINING"),
            {"address": {"pipe": {"path": "/var/run/app.sock"}}},
        ],
    },
    {
        "name": "outbound|80|v1|a.demo",
        "host_statuses": [
            judged(at("10.0.0.2", 8080), "DEGRADED"),
            judged(at("10.0.0.2", 443)),
            judged(internal("connect_originate", "10.1.1.1:80")),
            judged({}),
        ],
    },
    {"name": "PassthroughCluster"},
]


def shown(wanted: EndpointFilter | None = None) -> str:
    dump = config_dump.parse(json.dumps({"cluster_statuses": STATUSES}).encode(), "it")
    return endpoints.view(config_dump.cluster_statuses(dump), wanted or EndpointFilter())


def test_statuses_outliers_sockets_ipv6_and_internal_addresses() -> None:
    assert shown() == dumps.recorded("rich-endpoints.txt")


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (EndpointFilter(address="10.0.0.2"), 3),
        (EndpointFilter(address="10.0.0.2:443"), 1),
        (EndpointFilter(address="FD00::1"), 1),
        (EndpointFilter(address="unix:///var/run/app.sock"), 1),
        (EndpointFilter(port=443), 1),
        (EndpointFilter(cluster="OUTBOUND|80||b.demo"), 4),
        (EndpointFilter(status="healthy"), 4),
        (EndpointFilter(status="unknown"), 1),
        (EndpointFilter(status="healthy", cluster="outbound|80||b.demo"), 1),
        (EndpointFilter(status="happy"), 0),
    ],
)
def test_filters(wanted: EndpointFilter, count: int) -> None:
    assert len(shown(wanted).splitlines()) - 1 == count


def test_as_a_document_a_cluster_comes_whole() -> None:
    found = endpoints.narrowed(STATUSES, EndpointFilter(status="draining"))
    assert found == STATUSES[:1]


def told(address: dict[str, Any], status: str = "HEALTHY") -> dict[str, Any]:
    return {"endpoint": {"address": address}, "health_status": status}


ASSIGNMENTS: list[dict[str, Any]] = [
    {
        "cluster_name": "outbound|80||b.demo",
        "endpoints": [
            {
                "locality": {"region": "eu", "zone": "eu-1", "sub_zone": "rack2"},
                "lb_endpoints": [told(at("10.0.0.2", 8080)), told(at("10.0.0.3", 8080), "DRAINING")],
            },
            {"locality": {"region": "us", "sub_zone": "lost"}, "lb_endpoints": [told(at("fd00::1", 80))]},
        ],
    },
    {"cluster_name": "outbound|9080||a.demo", "endpoints": [{"lb_endpoints": [told(internal("encap", "1.2.3.4:80"))]}]},
    {"cluster_name": "outbound|80||a.demo", "endpoints": [{"lb_endpoints": [{"endpoint": {}}]}]},
    {"cluster_name": "outbound|80||empty.demo", "endpoints": []},
]


def test_what_istiod_told_has_localities_and_comes_by_service() -> None:
    assert endpoints.assigned_view(ASSIGNMENTS, EndpointFilter()) == dumps.recorded("rich-assignments.txt")


def test_what_istiod_told_can_be_narrowed_by_address_with_and_without_port() -> None:
    for address in ("10.0.0.2", "10.0.0.2:8080"):
        found = endpoints.assigned(ASSIGNMENTS, EndpointFilter(address=address))
        assert [each["cluster_name"] for each in found] == ["outbound|80||b.demo"]
        assert [len(group.get("lb_endpoints", [])) for group in found[0]["endpoints"]] == [1, 0]
    assert len(ASSIGNMENTS[0]["endpoints"][0]["lb_endpoints"]) == 2, "the dump itself stays as it is"
