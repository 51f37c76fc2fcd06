"""Istio's VirtualService (networking.istio.io): hosts and the routes of their requests and connections.

`http` is read by http_route. Called by kinds; raises FieldRefused for what can't be used and leaves warnings for what
has no effect, such as everything that is for gateways only.
"""

from pilot_agent.mesh.model import Origin
from pilot_agent.mesh.reading.addresses import canonical, covers, host, network
from pilot_agent.mesh.reading.destination import MAX_DESTINATIONS, check_weights, destination, weight
from pilot_agent.mesh.reading.fields import Field, shown
from pilot_agent.mesh.reading.http_match import is_for_mesh, port, source_namespace
from pilot_agent.mesh.reading.http_route import MAX_ROUTES, http_routes
from pilot_agent.mesh.reading.metadata import export_to, labels, metadata
from pilot_agent.mesh.traffic import ConnectionMatch, ConnectionRoute, VirtualService, WeightedDestination

MAX_HOSTS = 256
MAX_MATCHES = 256
MAX_SUBNETS = 256

_SPEC_KEYS = ("hosts", "gateways", "http", "tls", "tcp", "exportTo")
_TLS_KEYS = ("sniHosts", "destinationSubnets", "port", "sourceLabels", "sourceNamespace", "gateways")
_TCP_KEYS = _TLS_KEYS[1:]


def virtual_service(document: Field, origin: Origin) -> VirtualService | None:
    """Shape: a Kubernetes object of kind VirtualService. Raises FieldRefused.

    None, with a warning, for one that is for gateways only.
    """
    meta = metadata(document, origin)
    spec = document["spec"].mapping(_SPEC_KEYS)
    if not any(spec[key].value for key in ("http", "tls", "tcp")):
        spec.refuse("has no route: give http, tls or tcp")
    hosts = _hosts(spec["hosts"])
    if not hosts:
        _check_delegate(spec)
    elif not is_for_mesh(spec):
        return None
    _check_mesh_hosts(spec["hosts"])
    service = VirtualService(
        origin=origin,
        name=meta.name,
        namespace=meta.namespace,
        hosts=hosts,
        http=http_routes(spec["http"], meta.namespace, is_delegate=not hosts),
        tls=_connection_routes(spec["tls"], hosts),
        tcp=_connection_routes(spec["tcp"], None),
        export_to=export_to(spec["exportTo"]),
    )
    return service if service.http or service.tls or service.tcp else None


def _hosts(field: Field) -> tuple[str, ...]:
    hosts: list[str] = []
    for item in field.items(MAX_HOSTS):
        name = item.text() if item.value == "*" else canonical(item.text()) or host(item)
        if any(covers(known, name) or covers(name, known) for known in hosts):
            item.refuse(f"{shown(name)} is there twice, as itself or in a wildcard: remove one of them")
        hosts.append(name)
    return tuple(hosts)


def _check_mesh_hosts(field: Field) -> None:
    for item in field.items(MAX_HOSTS):
        if item.value == "*":
            item.refuse("'*' is for gateways: name the hosts, with a wildcard such as *.example.com if need be")


def _check_delegate(spec: Field) -> None:
    """A VirtualService without hosts is the part of another one."""
    for key in ("gateways", "tls", "tcp"):
        if spec[key].value:
            spec[key].refuse("is given without hosts: a delegate has http alone; give hosts if it is none")


def _connection_routes(field: Field, hosts: tuple[str, ...] | None) -> tuple[ConnectionRoute, ...]:
    """Routes of `tls`, whose server names must be of these hosts, or of `tcp`."""
    routes = []
    for item in field.items(MAX_ROUTES):
        item.mapping(("match", "route"))
        matches = item["match"].items(MAX_MATCHES)
        if hosts is not None and not matches:
            item["match"].refuse("is missing or empty: give at least one match with sniHosts")
        served = [match for match in matches if is_for_mesh(match.mapping(_TCP_KEYS if hosts is None else _TLS_KEYS))]
        route = ConnectionRoute(
            tuple(_match(match, hosts) for match in served), _destinations(item["route"]), item.place
        )
        if served or not matches:
            routes.append(route)
    return tuple(routes)


def _destinations(field: Field) -> tuple[WeightedDestination, ...]:
    found = []
    for item in field.items(MAX_DESTINATIONS):
        item.mapping(("destination", "weight"))
        found.append(WeightedDestination(destination(item["destination"]), weight(item)))
    check_weights(field, [each.weight for each in found])
    return tuple(found)


def _match(field: Field, hosts: tuple[str, ...] | None) -> ConnectionMatch:
    return ConnectionMatch(
        sni_hosts=() if hosts is None else _sni_hosts(field["sniHosts"], hosts),
        subnets=tuple(str(network(item)) for item in field["destinationSubnets"].items(MAX_SUBNETS)),
        port=port(field["port"]),
        source_labels=labels(field["sourceLabels"]),
        source_namespace=source_namespace(field["sourceNamespace"]),
    )


def _sni_hosts(field: Field, hosts: tuple[str, ...]) -> tuple[str, ...]:
    names = []
    for item in field.items(MAX_HOSTS):
        name = item.text() if item.value == "*" else host(item)
        if not any(covers(known, name) for known in hosts):
            item.refuse(f"{shown(name)} is none of spec.hosts: add it there, or give one of them")
        names.append(name)
    if not names:
        field.refuse("is missing or empty: give at least one server name")
    return tuple(names)
