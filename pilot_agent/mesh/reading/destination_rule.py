"""Istio's DestinationRule (networking.istio.io): how to talk to a host, and the subsets of its endpoints.

The policies are read by traffic_policy. Called by kinds; raises FieldRefused for what can't be used and leaves warnings
for what has no effect.
"""

from pilot_agent.mesh.model import Origin
from pilot_agent.mesh.policy import DestinationRule, Subset, TrafficPolicy
from pilot_agent.mesh.reading.addresses import host
from pilot_agent.mesh.reading.fields import Field, shown
from pilot_agent.mesh.reading.metadata import Metadata, export_to, label, labels, metadata, selector
from pilot_agent.mesh.reading.traffic_policy import traffic_policy

MAX_SUBSETS = 1024

_SPEC_KEYS = ("host", "trafficPolicy", "subsets", "exportTo", "workloadSelector")
_SUBSET_KEYS = ("name", "labels", "trafficPolicy")


def destination_rule(document: Field, origin: Origin) -> DestinationRule:
    """Shape: a Kubernetes object of kind DestinationRule. Raises FieldRefused."""
    meta = metadata(document, origin)
    spec = document["spec"].mapping(_SPEC_KEYS)
    wanted = selector(spec["workloadSelector"], "matchLabels")
    return DestinationRule(
        origin=origin,
        name=meta.name,
        namespace=meta.namespace,
        host="*" if spec["host"].value == "*" else host(spec["host"]),
        policy=_policy(spec["trafficPolicy"]),
        subsets=_subsets(spec["subsets"]),
        selector=wanted,
        export_to=_export_to(spec["exportTo"], meta, is_selective=wanted is not None),
    )


def _policy(field: Field) -> TrafficPolicy:
    return field.if_set(traffic_policy) or TrafficPolicy()


def _subsets(field: Field) -> tuple[Subset, ...]:
    subsets: dict[str, Subset] = {}
    for item in field.items(MAX_SUBSETS):
        item.mapping(_SUBSET_KEYS)
        name = label(item["name"], "the name of a subset")
        if name in subsets:
            item["name"].refuse(f"{shown(name)} is there twice: give each subset a name of its own")
        subsets[name] = Subset(name, labels(item["labels"]), _policy(item["trafficPolicy"]), item.place)
    return tuple(subsets.values())


def _export_to(field: Field, meta: Metadata, is_selective: bool) -> tuple[str, ...]:
    namespaces = export_to(field)
    if is_selective and set(namespaces) - {".", meta.namespace}:
        field.refuse("goes beyond the rule's own namespace, which a rule with a workloadSelector can't: use `.`")
    return namespaces
