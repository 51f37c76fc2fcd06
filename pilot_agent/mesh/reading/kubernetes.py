"""Kubernetes' Service, Endpoints and EndpointSlice: what they say of a service's names, ports and addresses.

A port's protocol follows Istio: appProtocol, then the beginning of the port's name, then TCP. Ports of UDP and SCTP are
left out with a warning.
"""

from pilot_agent.mesh.model import Endpoint, KubernetesService, Origin, ServiceEndpoints, ServicePort
from pilot_agent.mesh.reading.addresses import address, host
from pilot_agent.mesh.reading.fields import Field, shown
from pilot_agent.mesh.reading.metadata import EXPORT_TO, annotated_export_to, label, labels, metadata

MAX_PORTS = 256
MAX_ADDRESSES = 10_000
SERVICE_NAME = "kubernetes.io/service-name"

_SPEC_KEYS = ("type", "clusterIP", "clusterIPs", "externalName", "ports", "selector")
_SPEC_QUIET = frozenset(
    "allocateLoadBalancerNodePorts externalTrafficPolicy healthCheckNodePort ipFamilies ipFamilyPolicy "
    "loadBalancerClass loadBalancerIP loadBalancerSourceRanges publishNotReadyAddresses".split()
)
_SPEC_DEFAULTS = {"sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}
_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
_PORT_KEYS = ("name", "port", "targetPort", "protocol", "appProtocol")
_ENDPOINT_PORT_KEYS = ("name", "port", "protocol")
_TRANSPORTS = ("TCP", "UDP", "SCTP")
_ENDPOINT_KEYS = ("addresses", "conditions", "zone")
_ENDPOINT_QUIET = ("deprecatedTopology", "hints", "hostname", "nodeName", "targetRef")
_ADDRESS_QUIET = ("hostname", "nodeName", "targetRef")
_CONDITIONS_QUIET = ("serving", "terminating")
_PROTOCOLS = {
    "http": "HTTP",
    "http2": "HTTP2",
    "grpc": "GRPC",
    "grpc-web": "GRPC-WEB",
    "https": "HTTPS",
    "tls": "TLS",
    "tcp": "TCP",
    "mongo": "MONGO",
    "redis": "REDIS",
    "mysql": "MYSQL",
}
_APP_PROTOCOLS = _PROTOCOLS | {
    "kubernetes.io/h2c": "HTTP2",
    "kubernetes.io/ws": "HTTP",
    "kubernetes.io/wss": "HTTPS",
}


def service(document: Field, origin: Origin) -> KubernetesService:
    """Shape: a Service of v1. Raises FieldRefused."""
    meta = metadata(document, origin, annotations=(EXPORT_TO,))
    label(document["metadata"]["name"], "the name of a Service")
    spec = document["spec"].mapping(_SPEC_KEYS, ignored=_SPEC_QUIET | _SPEC_DEFAULTS.keys())
    for key, default in _SPEC_DEFAULTS.items():
        if spec[key].is_set and spec[key].value != default:
            spec[key].warn(f"{shown(spec[key].value)} is not supported here and has no effect")
    kind = spec["type"].choice(_TYPES) if spec["type"].is_set else "ClusterIP"
    is_external = kind == "ExternalName"
    is_headless, addresses = (False, ()) if is_external else _cluster_ips(spec)
    return KubernetesService(
        origin=origin,
        name=meta.name,
        namespace=meta.namespace,
        cluster_ips=addresses,
        is_headless=is_headless,
        external_name=_external_name(spec["externalName"]) if is_external else "",
        ports=_ports(spec["ports"]),
        selector=labels(spec["selector"]),
        export_to=annotated_export_to(meta),
    )


def endpoints(document: Field, origin: Origin) -> ServiceEndpoints:
    """Shape: an Endpoints of v1, which belongs to the Service of its name. Raises FieldRefused."""
    meta = metadata(document, origin, ("subsets",))
    found = [each for subset in document["subsets"].items(MAX_ADDRESSES) for each in _subset(subset)]
    return ServiceEndpoints(origin, meta.name, meta.namespace, meta.name, tuple(found))


def endpoint_slice(document: Field, origin: Origin) -> ServiceEndpoints | None:
    """Shape: an EndpointSlice of discovery.k8s.io/v1. None, with a warning, for one that no service can use."""
    meta = metadata(document, origin, ("addressType", "endpoints", "ports"))
    if document["addressType"].choice(("IPv4", "IPv6", "FQDN")) == "FQDN":
        document["addressType"].warn("FQDN is not supported here: the slice is left out; use IPv4 or IPv6")
        return None
    if not meta.labels.get(SERVICE_NAME):
        document["metadata"]["labels"].warn(f"have no {SERVICE_NAME}: the slice belongs to no service and is left out")
        return None
    ports = _endpoint_ports(document["ports"])
    found = [each for item in document["endpoints"].items(MAX_ADDRESSES) for each in _sliced(item, ports)]
    return ServiceEndpoints(origin, meta.name, meta.namespace, meta.labels[SERVICE_NAME], tuple(found))


def _cluster_ips(spec: Field) -> tuple[bool, tuple[str, ...]]:
    """Whether the service is headless, and its addresses otherwise; none before a cluster gave it one."""
    items = spec["clusterIPs"].items(MAX_PORTS) or ([spec["clusterIP"]] if spec["clusterIP"].optional_text() else [])
    if any(item.value == "None" for item in items):
        return True, ()
    return False, tuple(dict.fromkeys(address(item) for item in items))


def _external_name(field: Field) -> str:
    if not field.optional_text():
        field.refuse("is missing: a Service of type ExternalName needs the name it stands for")
    if field.text().startswith("*"):
        field.refuse(f"{shown(field.value)} can't be resolved: give a name without a wildcard")
    return host(field)


def _ports(field: Field) -> tuple[ServicePort, ...]:
    ports: dict[int, ServicePort] = {}
    names: set[str] = set()
    items = field.items(MAX_PORTS)
    for item in items:
        item.mapping(_PORT_KEYS, ignored=("nodePort",))
        name = item["name"].optional_text()
        if len(items) > 1 and not name:
            item["name"].refuse("is missing: each of several ports needs a name")
        if name in names:
            item["name"].refuse(f"{shown(name)} is there twice: give each port a name of its own")
        names.add(name)
        number = item["port"].port()
        if not _is_tcp(item["protocol"], "the port"):
            continue
        if number in ports:
            item["port"].refuse(f"{number} is there twice: remove one of the ports")
        target_port, target_name = _target(item["targetPort"], number)
        ports[number] = ServicePort(item.place, number, name, _protocol(item), target_port, target_name)
    return tuple(ports.values())


def _is_tcp(field: Field, subject: str) -> bool:
    transport = field.choice(_TRANSPORTS) if field.is_set else "TCP"
    if transport != "TCP":
        field.warn(f"{transport} is not proxied: {subject} is left out")
    return transport == "TCP"


def _target(field: Field, number: int) -> tuple[int, str]:
    """(port, name): a named one is found by the name of the endpoints' port, and keeps the service's number."""
    if field.value in (None, 0, ""):
        return number, ""
    if isinstance(field.value, str) and not field.value.isdigit():
        return number, label(field, "the name of a port")
    return field.port(), ""


def _protocol(port: Field) -> str:
    app = port["appProtocol"]
    if app.optional_text():
        known = _APP_PROTOCOLS.get(app.text().lower())
        if known is None:
            app.warn(
                f"{shown(app.value)} is unknown: the port is served as TCP; use one of {', '.join(_APP_PROTOCOLS)}"
            )
        return known or "TCP"
    name = port["name"].optional_text().lower()
    if name == "grpc-web" or name.startswith("grpc-web-"):
        return "GRPC-WEB"
    known = _PROTOCOLS.get(name.partition("-")[0])
    if known is None:
        port["name"].warn(
            "says no protocol: the port is served as TCP; begin the name with http-, http2-, grpc-, tls- or tcp-, "
            "or give appProtocol"
        )
    return known or "TCP"


def _endpoint_ports(field: Field) -> dict[str, int]:
    ports = {}
    for item in field.items(MAX_PORTS):
        item.mapping(_ENDPOINT_PORT_KEYS, ignored=("appProtocol",))
        if _is_tcp(item["protocol"], "the port") and item["port"].is_set:
            ports[item["name"].optional_text()] = item["port"].port()
    return ports


def _subset(field: Field) -> list[Endpoint]:
    field.mapping(("addresses", "notReadyAddresses", "ports"))
    ports = _endpoint_ports(field["ports"])
    found = []
    for key in ("addresses", "notReadyAddresses"):
        for item in field[key].items(MAX_ADDRESSES):
            item.mapping(("ip",), ignored=_ADDRESS_QUIET)
            found.append(_endpoint(item["ip"], ports, "", is_ready=key == "addresses"))
    return found


def _sliced(field: Field, ports: dict[str, int]) -> list[Endpoint]:
    field.mapping(_ENDPOINT_KEYS, ignored=_ENDPOINT_QUIET)
    ready = field["conditions"].mapping(("ready",), ignored=_CONDITIONS_QUIET)["ready"]
    zone = field["zone"].optional_text()
    is_ready = ready.flag() if ready.is_set else True
    addresses = field["addresses"].items(MAX_PORTS)
    if not addresses:
        field["addresses"].refuse("is missing or empty: give the endpoint's address")
    return [_endpoint(item, ports, zone, is_ready) for item in addresses]


def _endpoint(field: Field, ports: dict[str, int], zone: str, is_ready: bool) -> Endpoint:
    return Endpoint(address(field), ports, 1, ("", zone, ""), {}, is_ready=is_ready)
