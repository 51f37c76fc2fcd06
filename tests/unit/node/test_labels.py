"""Which labels count, and what they say: the node's locality and the name of its cluster."""

from typing import Any

import pytest

from pilot_agent.node.labels import cluster_name
from pilot_agent.node.podinfo import PodInfo
from pilot_agent.node.surroundings import Platform, Surroundings
from tests.unit.node.nodes import NO_POD, metadata, node
from tests.unit.settings.told import proxy_config

SOMEWHERE = Platform("aws", {"region": "us-east-1", "zone": "us-east-1a", "sub_zone": ""})


def labelled(**env: str) -> dict[str, str]:
    return {"ISTIO_METAJSON_LABELS": '{"app": "web", "istio-locality": "r.z.s"}', **env}


# Locality


@pytest.mark.parametrize(
    ("labels", "locality", "text"),
    [
        ({"istio-locality": "r.z.s"}, {"region": "r", "zone": "z", "sub_zone": "s"}, "r/z/s"),
        ({"istio-locality": "r/z.1/s"}, {"region": "r", "zone": "z.1", "sub_zone": "s"}, "r/z.1/s"),
        ({"topology.istio.io/locality": "a.b", "istio-locality": "c.d"}, {"region": "a", "zone": "b"}, "a/b"),
        ({"istio-locality": "r"}, {"region": "r"}, "r"),
        ({"istio-locality": "r//s"}, {"region": "r", "sub_zone": "s"}, "r//s"),
        ({"istio-locality": "r/z/s/more"}, {"region": "r", "zone": "z", "sub_zone": "s"}, "r/z/s/more"),
        ({"istio-locality": ""}, {}, ""),
        ({"app": "x"}, {}, None),
    ],
)
def test_locality(labels: dict[str, str], locality: dict[str, str], text: str | None) -> None:
    found = node(pod=PodInfo(labels, None))
    assert found.locality == locality
    assert found.metadata["LABELS"].get("istio-locality") == text
    assert {key: value for key, value in found.metadata["LABELS"].items() if key != "istio-locality"} == {
        key: value for key, value in labels.items() if key != "istio-locality"
    }


def test_the_locality_of_told_labels_is_rewritten_in_both_but_not_at_the_top() -> None:
    found = metadata(**labelled())
    assert found["LABELS"] == found["STATIC_LABELS"] == {"app": "web", "istio-locality": "r/z/s"}
    assert found["istio-locality"] == "r.z.s"


def test_with_a_file_the_static_labels_stay_as_they_were_told() -> None:
    found = node(pod=PodInfo({"app": "pod"}, None), env=labelled()).metadata
    assert found["LABELS"] == {"app": "pod", "istio-locality": "r/z/s"}
    assert found["STATIC_LABELS"] == {"app": "web", "istio-locality": "r.z.s"}


def test_without_a_label_the_platform_says_where_the_node_is() -> None:
    found = node(around=Surroundings(SOMEWHERE))
    assert found.locality == {"region": "us-east-1", "zone": "us-east-1a"}
    assert "LABELS" not in found.metadata
    assert node(env=labelled(), around=Surroundings(SOMEWHERE)).locality["region"] == "r"


def test_a_label_that_names_no_place_still_hides_the_platforms() -> None:
    assert node(pod=PodInfo({"istio-locality": "/"}, None), around=Surroundings(SOMEWHERE)).locality == {}


# Static labels


INSTANCE = Platform("aws", labels={"team": "instance", "app": "instance"})
OUTSIDE = INSTANCE._replace(is_kubernetes=False)


def test_instance_labels_count_outside_kubernetes_only() -> None:
    assert "STATIC_LABELS" not in node(around=Surroundings(INSTANCE)).metadata
    assert node(around=Surroundings(OUTSIDE)).metadata["STATIC_LABELS"] == OUTSIDE.labels


def test_instance_labels_come_over_told_ones_and_under_the_pods() -> None:
    found = node(env=labelled(), around=Surroundings(OUTSIDE)).metadata
    assert found["LABELS"] == found["STATIC_LABELS"]
    assert found["LABELS"] == {"app": "instance", "team": "instance", "istio-locality": "r/z/s"}
    found = node(pod=PodInfo({"app": "pod"}, None), env=labelled(), around=Surroundings(OUTSIDE)).metadata
    assert found["LABELS"]["app"] == "pod"
    assert found["STATIC_LABELS"]["app"] == "instance"


def test_labels_told_as_a_key_are_labels_until_a_file_is_there() -> None:
    env = {"ISTIO_METAJSON_X": '{"LABELS": {"app": "key"}, "STATIC_LABELS": {"team": "a"}}'}
    found = node(env=env)
    assert (found.metadata["LABELS"], found.metadata["STATIC_LABELS"]) == ({"app": "key"}, {"team": "a"})
    assert found.cluster == "key."
    assert node(pod=PodInfo({}, None), env=env).metadata["LABELS"] == {"team": "a"}


def test_the_hidden_label_is_hidden_only_where_it_comes_from_the_file() -> None:
    found = node(pod=NO_POD, env={"ISTIO_METAJSON_LABELS": '{"pod-template-hash": "5d4"}'}).metadata
    assert found["LABELS"] == {"pod-template-hash": "5d4"}


# Cluster


@pytest.mark.parametrize(
    ("config", "facts", "expected"),
    [
        ({}, {}, "istio-proxy"),
        ({}, {"NAMESPACE": "ns"}, "istio-proxy.ns"),
        ({}, {"NAMESPACE": "ns", "WORKLOAD_NAME": "w"}, "w.ns"),
        ({}, {"NAMESPACE": "ns", "WORKLOAD_NAME": "w", "LABELS": {"app": "a"}}, "a.ns"),
        ({}, {"LABELS": {"app": "z"}}, "z."),
        ({}, {"NAMESPACE": "ns", "LABELS": {"app.kubernetes.io/name": "k", "app": ""}}, "k.ns"),
        ({}, {"NAMESPACE": "ns", "LABELS": {"service.istio.io/canonical-name": "c"}}, "c.ns"),
        (
            {},
            {"NAMESPACE": "ns", "LABELS": {"service.istio.io/canonical-name": "c", "app.kubernetes.io/name": "k"}},
            "k.ns",
        ),
        ({"serviceCluster": "mine"}, {"NAMESPACE": "ns", "LABELS": {"app": "a"}}, "mine"),
        ({"tracingServiceName": "APP_LABEL_AND_NAMESPACE"}, {"NAMESPACE": "ns", "LABELS": {"app": "a"}}, "a.ns"),
        ({"tracingServiceName": "APP_LABEL_AND_NAMESPACE"}, {"NAMESPACE": "ns"}, "istio-proxy.ns"),
        (
            {"tracingServiceName": "CANONICAL_NAME_ONLY"},
            {"NAMESPACE": "ns", "LABELS": {"app": "a", "service.istio.io/canonical-name": "c"}},
            "c",
        ),
        ({"tracingServiceName": "CANONICAL_NAME_ONLY"}, {"NAMESPACE": "ns", "WORKLOAD_NAME": "w"}, "w"),
        ({"tracingServiceName": "CANONICAL_NAME_ONLY"}, {"NAMESPACE": "ns"}, "istio-proxy.ns"),
        (
            {"tracingServiceName": "CANONICAL_NAME_AND_NAMESPACE"},
            {"NAMESPACE": "ns", "LABELS": {"app": "a", "app.kubernetes.io/name": "k"}},
            "k.ns",
        ),
        ({"tracingServiceName": "CANONICAL_NAME_AND_NAMESPACE"}, {"NAMESPACE": "ns"}, "istio-proxy.ns"),
        ({"tracingServiceName": "CANONICAL_NAME_AND_NAMESPACE"}, {"LABELS": {"app": "a"}}, "a"),
    ],
)
def test_cluster(config: dict[str, Any], facts: dict[str, Any], expected: str) -> None:
    assert cluster_name(proxy_config(**config), facts) == expected


def test_the_nodes_cluster_comes_from_its_own_metadata() -> None:
    found = node(pod=PodInfo({"app": "web"}, None), env={"POD_NAMESPACE": "shop"})
    assert found.cluster == "web.shop"
    assert node(env={"ISTIO_META_WORKLOAD_NAME": "w", "ISTIO_META_NAMESPACE": "shop"}).cluster == "w.shop"
