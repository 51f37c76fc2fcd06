"""The clusters' view of meshes richer than the recorded one."""

from typing import Any

import pytest

from pilot_agent.inspect import clusters, config_dump
from pilot_agent.inspect.clusters import ClusterFilter
from tests.support import dumps
from tests.support.dumps import managed


def cluster(name: str, kind: str = "EDS", rule: str = "") -> dict[str, Any]:
    metadata = {"metadata": managed("destination-rule", rule)} if rule else {}
    return {"name": name, **({"type": kind} if kind else {}), **metadata}


MADE = (
    cluster("outbound|9080|v2|reviews.demo.svc.cluster.local", rule="reviews"),
    cluster("outbound|9080||reviews.demo.svc.cluster.local", rule="reviews"),
    cluster("outbound|443||*.wild.example.com", "ORIGINAL_DST"),
    cluster("outbound|80||api.example.com", "STRICT_DNS"),
    cluster("outbound_.9080_.v1_.reviews.demo.svc.cluster.local"),
    cluster("inbound|8080||", "ORIGINAL_DST"),
    cluster("inbound-vip|80|http|reviews.demo.svc.cluster.local", "STATIC"),
    cluster("outbound|8080||reviews.demo.svc.cluster.local"),
    cluster("dynamic_forward_proxy", ""),
    cluster("outbound|53||fd00::53", "STATIC"),
)


def shown(wanted: ClusterFilter | None = None) -> str:
    found = config_dump.clusters(config_dump.parse(dumps.clusters(*MADE), "it"))
    return clusters.view(found, wanted or ClusterFilter())


def test_subsets_rules_wildcards_and_names_of_gateways() -> None:
    assert shown() == dumps.recorded("rich-clusters.txt")


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (ClusterFilter(fqdn="reviews.demo"), 5),
        (ClusterFilter(fqdn="reviews.demo", port=9080), 2),
        (ClusterFilter(direction="inbound"), 2),
        (ClusterFilter(direction="outbound", subset="v2"), 1),
        (ClusterFilter(port=80), 2),
        (ClusterFilter(subset="http"), 1),
        (ClusterFilter(fqdn="nobody"), 0),
    ],
)
def test_filters_look_into_the_name(wanted: ClusterFilter, count: int) -> None:
    assert len(shown(wanted).splitlines()) - 1 == count


def test_warming_clusters_are_not_shown() -> None:
    sections = {"dynamic_warming_clusters": [{"cluster": cluster("w")}], "static_clusters": [{"cluster": cluster("s")}]}
    found = config_dump.clusters(config_dump.parse(dumps.dump(Clusters=sections), "it"))
    assert [each["name"] for each in found] == ["s"]
