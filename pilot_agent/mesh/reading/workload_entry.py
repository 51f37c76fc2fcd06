"""Istio's WorkloadEntry (networking.istio.io), and its spec, which is also the shape of a ServiceEntry's endpoints."""

from collections.abc import Collection
from typing import Literal

from pilot_agent.mesh.model import Endpoint, Origin, WorkloadEntry
from pilot_agent.mesh.reading.addresses import endpoint_address
from pilot_agent.mesh.reading.fields import Field, shown
from pilot_agent.mesh.reading.metadata import labels, metadata

MAX_PORTS = 256
MAX_WEIGHT = 2**32 - 1  # Envoy sums weights in 32 bits and refuses an assignment that overflows

_KEYS = ("address", "ports", "weight", "locality", "labels", "serviceAccount")


def workload_entry(document: Field, origin: Origin) -> WorkloadEntry:
    """Shape: a Kubernetes object of kind WorkloadEntry. Raises FieldRefused."""
    meta = metadata(document, origin)
    spec = document["spec"]
    if not spec.is_set:
        spec.refuse("is missing: a WorkloadEntry needs spec.address")
    found = endpoint(spec, "host", None)
    # A label of the object wins over one of its spec, as in istiod.
    return WorkloadEntry(origin, meta.name, meta.namespace, found._replace(labels={**found.labels, **meta.labels}))


def endpoint(field: Field, kind: Literal["IP", "host"], ports: Collection[str] | None) -> Endpoint:
    """One endpoint at an IP address (or host), with ports of these names, or of any where `ports` is None."""
    field.mapping(_KEYS)
    own_ports = field["ports"].entries(MAX_PORTS)
    for port in own_ports:
        if ports is not None and port.name not in ports:
            port.refuse(f"is not the name of a port in spec.ports: use one of {', '.join(sorted(ports))}")
    weight = field["weight"]
    return Endpoint(
        address=endpoint_address(field["address"], kind),
        ports={port.name: port.port() for port in own_ports},
        weight=max(1, weight.whole_number(0, MAX_WEIGHT)) if weight.is_set else 1,
        locality=_locality(field["locality"]),
        labels=labels(field["labels"]),
        service_account=field["serviceAccount"].optional_text(),
    )


def _locality(field: Field) -> tuple[str, str, str]:
    parts = field.optional_text().split("/")
    if len(parts) > 3:
        field.refuse(f"{shown(field.value)} has too many parts: write region/zone/sub-zone")
    region, zone, sub_zone = (*parts, "", "")[:3]
    return (region, zone, sub_zone)
