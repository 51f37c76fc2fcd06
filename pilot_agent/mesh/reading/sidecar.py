"""Istio's Sidecar (networking.istio.io): which ports this proxy listens on, and which services it sees.

The rules are those of Istio's own validation. Listeners on Unix sockets are left out with a warning.
"""

from typing import Literal, cast

from pilot_agent.mesh.model import Origin
from pilot_agent.mesh.policy import CaptureMode, EgressListener, IngressListener, Sidecar
from pilot_agent.mesh.reading.addresses import address, host
from pilot_agent.mesh.reading.fields import Field, shown
from pilot_agent.mesh.reading.metadata import label, metadata, selector
from pilot_agent.mesh.reading.service_entry import protocol
from pilot_agent.values import HostPort

MAX_LISTENERS = 256
MAX_HOSTS = 1024

_SPEC_KEYS = ("workloadSelector", "ingress", "egress", "outboundTrafficPolicy")
_INGRESS_KEYS = ("port", "bind", "captureMode", "defaultEndpoint")
_EGRESS_KEYS = ("port", "bind", "captureMode", "hosts")
_PORT_KEYS = ("number", "protocol", "name")
_CAPTURE_MODES = ("DEFAULT", "IPTABLES", "NONE")
_OUTBOUND_MODES = ("ALLOW_ANY", "REGISTRY_ONLY")
_OWN_HOSTS = ("", "127.0.0.1", "0.0.0.0", "::1", "::")  # noqa: S104 - the pod's own addresses, as Istio has them


def sidecar(document: Field, origin: Origin) -> Sidecar:
    """Shape: a Kubernetes object of kind Sidecar. Raises FieldRefused."""
    meta = metadata(document, origin)
    spec = document["spec"].mapping(_SPEC_KEYS)
    if not any(spec[key].value for key in ("ingress", "egress")) and not spec["outboundTrafficPolicy"].is_set:
        spec.refuse("says nothing: give ingress, egress or outboundTrafficPolicy")
    return Sidecar(
        origin=origin,
        name=meta.name,
        namespace=meta.namespace,
        selector=selector(spec["workloadSelector"], "labels"),
        ingress=_ingress(spec["ingress"]),
        egress=_egress(spec["egress"]),
        outbound_policy=_outbound_policy(spec["outboundTrafficPolicy"]),
    )


def _ingress(field: Field) -> tuple[IngressListener, ...]:
    listeners: dict[int, IngressListener] = {}
    for item in field.items(MAX_LISTENERS):
        item.mapping(_INGRESS_KEYS)
        port = _port(item["port"])
        number = port["number"].port()
        if number in listeners:
            port["number"].refuse(f"{number} is there twice: give each listener a port of its own")
        listeners[number] = IngressListener(
            port=number,
            protocol=_protocol(port),
            name=_name(port),
            bind=item["bind"].if_set(address) or "",
            capture_mode=_capture_mode(item["captureMode"]),
            default_endpoint=_default_endpoint(item["defaultEndpoint"]),
            place=item.place,
        )
    return tuple(listener for listener in listeners.values() if listener.protocol != "UDP")


def _egress(field: Field) -> tuple[EgressListener, ...]:
    listeners = []
    numbers: set[int | None] = set()
    items = field.items(MAX_LISTENERS)
    for item in items:
        item.mapping(_EGRESS_KEYS)
        if item["bind"].optional_text().startswith("unix:"):
            item["bind"].warn("Unix sockets are not supported here: the listener is left out")
            continue
        listener = _egress_listener(item)
        if listener.port is None and item.place < len(items) - 1:
            item["port"].refuse("is missing: only the last egress listener can do without one, for all other ports")
        if listener.port in numbers:
            item["port"]["number"].refuse(f"{listener.port} is there twice: give each listener a port of its own")
        numbers.add(listener.port)
        if listener.protocol != "UDP":
            listeners.append(listener)
    return tuple(listeners)


def _egress_listener(item: Field) -> EgressListener:
    port = _port(item["port"]) if item["port"].is_set else None
    return EgressListener(
        hosts=_hosts(item["hosts"]),
        port=port["number"].port() if port else None,
        protocol=_protocol(port) if port else "",
        name=_name(port) if port else "",
        bind=item["bind"].if_set(address) or "",
        capture_mode=_capture_mode(item["captureMode"]),
        place=item.place,
    )


def _port(field: Field) -> Field:
    if not field.is_set:
        field.refuse("is missing: give the listener's port with number and protocol")
    return field.mapping(_PORT_KEYS)


def _protocol(port: Field) -> str:
    return protocol(port["protocol"], "the listener")


def _name(port: Field) -> str:
    name = port["name"]
    return label(name, "a port's name") if name.optional_text() else ""


def _capture_mode(field: Field) -> CaptureMode:
    return cast(CaptureMode, field.choice(_CAPTURE_MODES)) if field.is_set else "DEFAULT"


def _default_endpoint(field: Field) -> str:
    """`127.0.0.1:8080`, `unix:///path`, as the values of policy have it; "" where it is not given."""
    text = field.optional_text()
    if not text:
        return ""
    if text.startswith("unix:"):
        path = text.removeprefix("unix://")
        if not path.startswith(("/", "@")) or path.endswith("/"):
            field.refuse(f"{shown(text)} is not a socket: write unix:///path/to/it")
        return text
    try:
        endpoint = HostPort.parse(text if not text.startswith(":") else f"127.0.0.1{text}")
    except ValueError:
        endpoint = None
    if endpoint is None or endpoint.host not in _OWN_HOSTS:
        field.refuse(f"{shown(text)} is not of this workload: write 127.0.0.1:PORT, 0.0.0.0:PORT or unix:///path")
    return str(endpoint)


def _hosts(field: Field) -> tuple[tuple[str, str], ...]:
    hosts = tuple(_namespaced(item) for item in field.items(MAX_HOSTS))
    if not hosts:
        field.refuse("is missing or empty: give hosts such as ./* or istio-system/*")
    return hosts


def _namespaced(field: Field) -> tuple[str, str]:
    """`namespace/host`: "*", ".", "~" or a namespace, and "*", a wildcard or a full name."""
    namespace, slash, name = field.text().partition("/")
    if not slash or not name:
        field.refuse(f"{shown(field.value)} has no namespace: write namespace/host, such as ./* or */api.example.com")
    if namespace not in ("*", ".", "~"):
        label(field.as_if(namespace), "a namespace")
    if name == "*":
        return namespace, name
    if "." not in name:
        field.refuse(f"{shown(name)} is a short name: write the full one, such as api.default.svc.cluster.local")
    return namespace, host(field.as_if(name))


def _outbound_policy(field: Field) -> Literal["", "ALLOW_ANY", "REGISTRY_ONLY"]:
    mode = field.mapping(("mode",))["mode"]
    if not field.is_set:
        return ""
    chosen = mode.choice(_OUTBOUND_MODES) if mode.is_set else "REGISTRY_ONLY"  # protobuf's default of the field
    return cast(Literal["ALLOW_ANY", "REGISTRY_ONLY"], chosen)
