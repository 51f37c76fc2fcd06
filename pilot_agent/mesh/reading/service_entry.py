"""Istio's ServiceEntry (networking.istio.io) from an untyped document: its fields and the values they may have.

The rules are those of Istio's own validation where an element has an effect here. Called by kinds for each document
of this kind; raises FieldRefused for what can't be used and leaves warnings for what has no effect.
"""

from typing import Literal, cast

from pilot_agent.mesh.model import (
    HTTP_PROTOCOLS,
    TCP_PROTOCOLS,
    TLS_PROTOCOLS,
    Endpoint,
    Origin,
    Resolution,
    ServiceEntry,
    ServicePort,
)
from pilot_agent.mesh.reading.addresses import hosts, network
from pilot_agent.mesh.reading.fields import Field, shown
from pilot_agent.mesh.reading.metadata import export_to, metadata, selector
from pilot_agent.mesh.reading.workload_entry import MAX_WEIGHT, endpoint

MAX_HOSTS = 256
MAX_ADDRESSES = 256
MAX_PORTS = 256
MAX_ENDPOINTS = 4096
MAX_SUBJECTS = 256

_SPEC_KEYS = (
    "hosts",
    "addresses",
    "ports",
    "location",
    "resolution",
    "endpoints",
    "workloadSelector",
    "exportTo",
    "subjectAltNames",
)
_PORT_KEYS = ("number", "name", "protocol", "targetPort")
_RESOLUTIONS = ("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN")
_LOCATIONS = ("MESH_EXTERNAL", "MESH_INTERNAL")
PROTOCOLS = HTTP_PROTOCOLS | TLS_PROTOCOLS | TCP_PROTOCOLS


def service_entry(document: Field, origin: Origin) -> ServiceEntry:
    """Shape: a Kubernetes object of kind ServiceEntry. Raises FieldRefused."""
    meta = metadata(document, origin)
    spec = document["spec"].mapping(_SPEC_KEYS)
    if not spec.is_set:
        spec.refuse("is missing: a ServiceEntry needs spec.hosts and spec.ports")
    entry = ServiceEntry(
        origin=origin,
        name=meta.name,
        namespace=meta.namespace,
        hosts=_hosts(spec["hosts"]),
        addresses=_addresses(spec["addresses"]),
        ports=(ports := _ports(spec["ports"])),
        resolution=(resolution := _resolution(spec["resolution"])),
        location=spec["location"].choice(_LOCATIONS) if spec["location"].is_set else _LOCATIONS[0],
        endpoints=_endpoints(spec["endpoints"], resolution, ports),
        selector=selector(spec["workloadSelector"], "labels"),
        subject_alt_names=tuple(item.text() for item in spec["subjectAltNames"].items(MAX_SUBJECTS)),
        export_to=export_to(spec["exportTo"]),
    )
    _check_endpoints(spec, entry)
    return entry


def protocol(field: Field, subject: str) -> str:
    """A protocol's name in capitals; UDP too, with a warning that `subject` ("the port") is left out."""
    if not field.is_set:
        field.warn(f"is missing: {subject} is served as TCP; write the protocol to say otherwise")
        return "TCP"
    name = field.text().upper()
    if name == "UDP":
        field.warn(f"UDP is not proxied: {subject} is left out")
    elif name not in PROTOCOLS:
        field.refuse(f"{shown(field.value)} is unknown: use one of {', '.join(sorted(PROTOCOLS))}")
    return name


def _hosts(field: Field) -> tuple[str, ...]:
    names = hosts(field, MAX_HOSTS)
    if not names:
        field.refuse("is missing or empty: give at least one host name")
    return names


def _addresses(field: Field) -> tuple[str, ...]:
    return tuple(dict.fromkeys(address for item in field.items(MAX_ADDRESSES) for address in _address(item)))


def _address(field: Field) -> list[str]:
    """An address or CIDR range in canonical form; nothing for 0.0.0.0 and ::, Istio's spelling of "no address"."""
    found = network(field)
    if found.prefixlen < found.max_prefixlen:
        return [str(found)]
    return [] if found.network_address.is_unspecified else [str(found.network_address)]


def _ports(field: Field) -> tuple[ServicePort, ...]:
    ports: dict[int, ServicePort] = {}
    names: set[str] = set()
    for item in field.items(MAX_PORTS):
        port = _port(item)
        if port.number in ports:
            item["number"].refuse(f"{port.number} is there twice: remove one of the ports")
        if port.name in names:
            item["name"].refuse(f"{shown(port.name)} is there twice: give each port a name of its own")
        names.add(port.name)
        ports[port.number] = port
    if not ports:
        field.refuse("is missing or empty: give at least one port with number, name and protocol")
    served = tuple(port for port in ports.values() if port.protocol != "UDP")
    if not served:
        field.refuse("has UDP ports only, which Envoy's listeners do not serve: add an HTTP or TCP port")
    return served


def _port(field: Field) -> ServicePort:
    field.mapping(_PORT_KEYS)
    number = field["number"].port()
    return ServicePort(
        place=field.place,
        number=number,
        name=field["name"].text(),
        protocol=protocol(field["protocol"], "the port"),
        target_port=field["targetPort"].if_set(Field.port) or number,
    )


def _resolution(field: Field) -> Resolution:
    return cast(Resolution, field.choice(_RESOLUTIONS)) if field.is_set else "NONE"


def _endpoints(field: Field, resolution: Resolution, ports: tuple[ServicePort, ...]) -> tuple[Endpoint, ...]:
    names = {port.name for port in ports}
    kind: Literal["IP", "host"] = "IP" if resolution == "STATIC" else "host"
    return tuple(endpoint(item, kind, names) for item in field.items(MAX_ENDPOINTS))


def _check_endpoints(spec: Field, entry: ServiceEntry) -> None:
    """What resolution asks of endpoints and hosts, as Istio's validation has it."""
    endpoints = spec["endpoints"]
    if entry.selector is not None:
        _check_selector(spec, entry)
    if entry.resolution == "NONE" and entry.endpoints:
        endpoints.refuse("are given with resolution NONE: remove them, or use resolution STATIC or DNS")
    if entry.resolution == "STATIC" and not entry.endpoints and entry.selector is None:
        if not endpoints.is_set:
            endpoints.refuse("is missing: resolution STATIC needs the addresses of the service, or a workloadSelector")
        endpoints.warn("is empty: every request to the service fails until an endpoint is there")
    if entry.resolution == "DNS_ROUND_ROBIN" and len(entry.endpoints) > 1:
        endpoints.refuse(f"has {len(entry.endpoints)} elements: DNS_ROUND_ROBIN takes one at most; use DNS for more")
    if entry.resolution in ("DNS", "DNS_ROUND_ROBIN") and not entry.endpoints:
        for item in spec["hosts"].items(MAX_HOSTS):
            if item.text().startswith("*"):
                item.refuse(f"{shown(item.value)} can't be resolved: give endpoints, or a name without a wildcard")
    if sum(endpoint.weight for endpoint in entry.endpoints) > MAX_WEIGHT:
        endpoints.refuse(f"have weights of more than {MAX_WEIGHT} together: use smaller weights")


def _check_selector(spec: Field, entry: ServiceEntry) -> None:
    if spec["endpoints"].is_set:
        spec["workloadSelector"].refuse("is given beside endpoints: keep one of them")
    if entry.resolution != "STATIC":
        spec["workloadSelector"].warn(f"has no effect with resolution {entry.resolution}: use STATIC")
