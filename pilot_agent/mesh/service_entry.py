"""Istio's ServiceEntry (networking.istio.io) from an untyped document: its fields and the values they may have.

The rules are those of Istio's own validation where an element has an effect here. Called by documents for each document
of this kind; raises FieldRefused for what can't be used and leaves warnings for what has no effect.
"""

import ipaddress
import re
from typing import Literal, cast

from pilot_agent.mesh.fields import Field, shown
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

API_VERSIONS = ("networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3")

MAX_HOSTS = 256
MAX_ADDRESSES = 256
MAX_PORTS = 256
MAX_ENDPOINTS = 4096
MAX_LABELS = 256
MAX_WEIGHT = 2**32 - 1  # Envoy sums weights in 32 bits and refuses an assignment that overflows

_OBJECT_KEYS = ("apiVersion", "kind", "metadata", "spec")
_METADATA_QUIET = frozenset(
    "annotations creationTimestamp finalizers generateName generation labels managedFields ownerReferences "
    "resourceVersion selfLink uid".split()
)
_SPEC_KEYS = ("hosts", "addresses", "ports", "location", "resolution", "endpoints")
_PORT_KEYS = ("number", "name", "protocol", "targetPort")
_ENDPOINT_KEYS = ("address", "ports", "weight", "locality", "labels")
_RESOLUTIONS = ("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN")
_LOCATIONS = ("MESH_EXTERNAL", "MESH_INTERNAL")
_PROTOCOLS = HTTP_PROTOCOLS | TLS_PROTOCOLS | TCP_PROTOCOLS

_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*\.?")
_NAMESPACE = re.compile(_LABEL)


def service_entry(document: Field, origin: Origin) -> ServiceEntry:
    """Shape: a Kubernetes object of kind ServiceEntry. Raises FieldRefused."""
    document.mapping(_OBJECT_KEYS, ignored=("status",))
    metadata = document["metadata"].mapping(("name", "namespace"), ignored=_METADATA_QUIET)
    spec = document["spec"].mapping(_SPEC_KEYS)
    if not spec.is_set:
        spec.refuse("is missing: a ServiceEntry needs spec.hosts and spec.ports")
    entry = ServiceEntry(
        origin=origin,
        name=metadata["name"].text(),
        namespace=_namespace(metadata["namespace"]),
        hosts=_hosts(spec["hosts"]),
        addresses=_addresses(spec["addresses"]),
        ports=(ports := _ports(spec["ports"])),
        resolution=(resolution := _resolution(spec["resolution"])),
        location=spec["location"].choice(_LOCATIONS) if spec["location"].is_set else _LOCATIONS[0],
        endpoints=_endpoints(spec["endpoints"], resolution, ports),
    )
    _check_endpoints(spec, entry)
    return entry


def _namespace(field: Field) -> str:
    if not field.is_set:
        return "default"
    if not _NAMESPACE.fullmatch(field.text()):
        field.refuse(f"{shown(field.value)} is not a namespace: use letters, digits and dashes")
    return field.text()


def _host(field: Field) -> str:
    host = field.text()
    if len(host) > 253 or not _HOST.fullmatch(host):
        field.refuse(f"{shown(host)} is not a host name: write a name such as api.example.com or *.example.com")
    return host.removesuffix(".")


def _hosts(field: Field) -> tuple[str, ...]:
    hosts: dict[str, str] = {}
    for item in field.items(MAX_HOSTS):
        host = _host(item)
        if host.lower() in hosts:
            item.refuse(f"{shown(host)} is there twice: remove one of them")
        hosts[host.lower()] = host
    if not hosts:
        field.refuse("is missing or empty: give at least one host name")
    return tuple(hosts.values())


def _addresses(field: Field) -> tuple[str, ...]:
    return tuple(dict.fromkeys(address for item in field.items(MAX_ADDRESSES) for address in _address(item)))


def _address(field: Field) -> list[str]:
    """An address or CIDR range in canonical form; nothing for 0.0.0.0 and ::, Istio's spelling of "no address"."""
    text = field.text()
    try:
        if "%" in text:
            raise ValueError
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        field.refuse(f"{shown(text)} is not an address: give an IP address or a range such as 10.0.0.0/24")
    if network.prefixlen < network.max_prefixlen:
        return [str(network)]
    return [] if network.network_address.is_unspecified else [str(network.network_address)]


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
    target = field["targetPort"]
    return ServicePort(
        place=cast(int, field.path[-1]),
        number=number,
        name=field["name"].text(),
        protocol=_protocol(field["protocol"]),
        target_port=target.port() if target.is_set else number,
    )


def _protocol(field: Field) -> str:
    if not field.is_set:
        field.warn("is missing: the port is served as TCP; write the protocol to say otherwise")
        return "TCP"
    protocol = field.text().upper()
    if protocol == "UDP":
        field.warn("UDP is not proxied: the port is left out")
    elif protocol not in _PROTOCOLS:
        field.refuse(f"{shown(field.value)} is unknown: use one of {', '.join(sorted(_PROTOCOLS))}")
    return protocol


def _resolution(field: Field) -> Resolution:
    return cast(Resolution, field.choice(_RESOLUTIONS)) if field.is_set else "NONE"


def _endpoints(field: Field, resolution: Resolution, ports: tuple[ServicePort, ...]) -> tuple[Endpoint, ...]:
    return tuple(_endpoint(item, resolution, ports) for item in field.items(MAX_ENDPOINTS))


def _endpoint(field: Field, resolution: Resolution, ports: tuple[ServicePort, ...]) -> Endpoint:
    field.mapping(_ENDPOINT_KEYS)
    names = {port.name for port in ports}
    for port in (own_ports := field["ports"].entries(MAX_PORTS)):
        if port.path[-1] not in names:
            port.refuse(f"is not the name of a port in spec.ports: use one of {', '.join(sorted(names))}")
    weight = field["weight"]
    return Endpoint(
        address=_endpoint_address(field["address"], "IP" if resolution == "STATIC" else "host"),
        ports={str(port.path[-1]): port.port() for port in own_ports},
        weight=max(1, weight.whole_number(0, MAX_WEIGHT)) if weight.is_set else 1,
        locality=_locality(field["locality"]),
        labels={str(label.path[-1]): _label(label) for label in field["labels"].entries(MAX_LABELS)},
    )


def _label(field: Field) -> str:
    return "" if field.value == "" else field.text()


def _endpoint_address(field: Field, kind: Literal["IP", "host"]) -> str:
    if not field.is_set:
        field.refuse("is missing: give the endpoint's address")
    text = field.text()
    if text.startswith("unix:"):
        field.refuse(f"{shown(text)}: Unix sockets are not supported here; give an IP address")
    try:
        if "%" not in text:
            return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    if kind == "IP":
        field.refuse(f"{shown(text)} is not an IP address: give one, or use resolution DNS for a host name")
    if text.startswith("*"):
        field.refuse(f"{shown(text)} can't be resolved: give a name without a wildcard")
    return _host(field)


def _locality(field: Field) -> tuple[str, str, str]:
    if not field.is_set:
        return ("", "", "")
    parts = field.text().split("/")
    if len(parts) > 3:
        field.refuse(f"{shown(field.value)} has too many parts: write region/zone/sub-zone")
    region, zone, sub_zone = (*parts, "", "")[:3]
    return (region, zone, sub_zone)


def _check_endpoints(spec: Field, entry: ServiceEntry) -> None:
    """What resolution asks of endpoints and hosts, as Istio's validation has it."""
    endpoints = spec["endpoints"]
    if entry.resolution == "NONE" and entry.endpoints:
        endpoints.refuse("are given with resolution NONE: remove them, or use resolution STATIC or DNS")
    if entry.resolution == "STATIC" and not entry.endpoints:
        if not endpoints.is_set:
            endpoints.refuse("is missing: resolution STATIC needs the addresses of the service")
        endpoints.warn("is empty: every request to the service fails until an endpoint is there")
    if entry.resolution == "DNS_ROUND_ROBIN" and len(entry.endpoints) > 1:
        endpoints.refuse(f"has {len(entry.endpoints)} elements: DNS_ROUND_ROBIN takes one at most; use DNS for more")
    if entry.resolution in ("DNS", "DNS_ROUND_ROBIN") and not entry.endpoints:
        for item in spec["hosts"].items(MAX_HOSTS):
            if item.text().startswith("*"):
                item.refuse(f"{shown(item.value)} can't be resolved: give endpoints, or a name without a wildcard")
    if sum(endpoint.weight for endpoint in entry.endpoints) > MAX_WEIGHT:
        endpoints.refuse(f"have weights of more than {MAX_WEIGHT} together: use smaller weights")
