"""The outbound side for the templates: listeners with their chains and routes, as plain JSON values.

HTTP services of a port share a listener and its route configuration; each other service is a filter chain. What is in a
route is routes'. Called by view; pure.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pilot_agent.mesh.model import Options, Service, ServicePort
from pilot_agent.mesh.names import chain_matches, cluster_name, full_host, listener_addresses, matches_host, prefixes
from pilot_agent.mesh.policy import ConnectionPool, TrafficPolicy
from pilot_agent.mesh.resources.destinations import Destinations, policy_of
from pilot_agent.mesh.resources.matches import is_ours
from pilot_agent.mesh.resources.routes import Routing, virtual_hosts
from pilot_agent.mesh.resources.scope import Scope
from pilot_agent.mesh.traffic import ConnectionMatch, ConnectionRoute, VirtualService

Values = dict[str, object]


class Outbound(NamedTuple):
    """`routes` by name, for the listeners whose routes have files; the others have theirs in `listeners`."""

    listeners: list[Values]
    routes: dict[str, Values]


class _Place(NamedTuple):
    """Where a listener listens. `is_bound` opens the port on the machine."""

    address: str
    port: int
    is_bound: bool

    @property
    def name(self) -> str:
        return f"{self.address}_{self.port}"


class _Gathering:
    """Listeners under construction: a place is HTTP's or TCP's, the first service there says which."""

    def __init__(self) -> None:
        self.http: dict[_Place, list[tuple[Service, ServicePort]]] = {}
        self.tcp: dict[_Place, dict[tuple[str, str], Values]] = {}
        self.owners: dict[str, Scope] = {}

    def is_for(self, place: _Place, scope: Scope) -> bool:
        """A listener that a Sidecar asks for by its port leads to the services named there, and to no others."""
        owner = self.owners.setdefault(place.name, scope)
        return owner is scope or owner.port is None


def outbound(
    scopes: tuple[Scope, ...], routing: Routing, destinations: Destinations, options: Options, policy: str
) -> Outbound:
    gathering = _Gathering()
    for scope in scopes:
        for service in scope.services:
            for port in scope.ports(service):
                _gather(gathering, scope, service, port, routing, destinations, options)
    listeners: list[Values] = []
    routes: dict[str, Values] = {}
    strangers = _strangers(scopes, routing)
    if not any(place.port == 80 for place in gathering.http):
        for host, rule in strangers:
            text = f"{host} is no service of this mesh, and there is none on port 80 either: its routes are not used"
            destinations.report(rule.origin, ("spec", "hosts"), text)
    named: set[str] = set()
    for place in sorted({*gathering.http, *gathering.tcp}):
        if place not in gathering.http:
            listeners.append(_tcp_listener(place, gathering.tcp[place], options))
            continue
        known = gathering.http[place]
        hosts = virtual_hosts(known, strangers if place.port == 80 else (), routing, options)
        name = str(place.port) if str(place.port) not in named else f"{place.address}:{place.port}"
        named.add(name)
        configuration: Values = {
            "name": name,
            "virtual_hosts": sorted(hosts, key=lambda host: str(host["name"])),
            "policy": policy,
        }
        is_watched = len(routes) < options.route_files
        if is_watched:
            routes[name] = configuration
        listeners.append(_http_listener(place, name, None if is_watched else configuration, options))
    return Outbound(listeners, routes)


def _gather(
    gathering: _Gathering,
    scope: Scope,
    service: Service,
    port: ServicePort,
    routing: Routing,
    destinations: Destinations,
    options: Options,
) -> None:
    for address in [scope.bind] if scope.bind else _addresses(scope, service, port, options):
        place = _Place(address, port.number, scope.is_bound)
        if not gathering.is_for(place, scope):
            continue
        if port.is_http:
            if place not in gathering.tcp:
                gathering.http.setdefault(place, []).append((service, port))
        elif place not in gathering.http:
            chains = gathering.tcp.setdefault(place, {})
            for key, chain in _chains(service, port, address, routing, destinations, options):
                chains.setdefault(key, chain)


def _addresses(scope: Scope, service: Service, port: ServicePort, options: Options) -> list[str]:
    return [options.loopback] if scope.is_bound else listener_addresses(service, port, options)


def _strangers(scopes: tuple[Scope, ...], routing: Routing) -> list[tuple[str, VirtualService]]:
    """Hosts of rules that no service has: they are served on port 80, as istiod does."""
    found = routing.strangers(service for scope in scopes for service in scope.services)
    return [(host, rule) for host, rule in found if any(scope.sees(rule.namespace, host) for scope in scopes)]


def _chains(
    service: Service,
    port: ServicePort,
    address: str,
    routing: Routing,
    destinations: Destinations,
    options: Options,
) -> Iterator[tuple[tuple[str, str], Values]]:
    """By what they match: TLS has a chain per server name, TCP by range; each leads to one or several clusters."""
    rule = routing.rule(service.host)
    routed = rule.tls if rule is not None and port.is_tls else rule.tcp if rule is not None else ()
    if rule is not None:
        for route in routed:
            for key in _routed_matches(rule, route, service, port, address, options):
                first = route.destinations[0].destination
                policy = destinations.policy(first, rule.namespace, port.number)
                yield key, _chain(key, _clusters(rule, route, port, destinations), policy)
    policy = policy_of(destinations.rules.of(service), port.number)
    for key in chain_matches(service, port, address, options):
        yield key, _chain(key, [{"name": cluster_name(port.number, service.host), "weight": 1}], policy)


def _routed_matches(
    rule: VirtualService, route: ConnectionRoute, service: Service, port: ServicePort, address: str, options: Options
) -> Iterator[tuple[str, str]]:
    for match in route.matches or (ConnectionMatch(),):
        if not is_ours(match, port.number, options):
            continue
        names = [host.lower() for host in match.sni_hosts if _is_about(host, service, rule, options)] or [""]
        if port.is_tls and names == [""]:
            continue
        ranges = match.subnets or prefixes(service, address, options) or [""]
        for prefix in ranges:
            for name in names:
                yield prefix, name


def _is_about(host: str, service: Service, rule: VirtualService, options: Options) -> bool:
    full = full_host(host, rule.namespace, options.domain)
    return matches_host(service.host, full) or matches_host(full, service.host)


def _clusters(
    rule: VirtualService, route: ConnectionRoute, port: ServicePort, destinations: Destinations
) -> list[Values]:
    kind = "tls" if port.is_tls else "tcp"
    return [
        {
            "name": destinations.cluster(
                each.destination,
                rule.namespace,
                port.number,
                (rule.origin, ("spec", kind, route.place, "route", index, "destination")),
            ),
            "weight": 1 if len(route.destinations) == 1 else each.weight,
        }
        for index, each in enumerate(route.destinations)
        if each.weight or len(route.destinations) == 1
    ]


def _chain(key: tuple[str, str], clusters: list[Values], policy: TrafficPolicy) -> Values:
    prefix, name = key
    address, _, length = prefix.partition("/")
    pool = policy.connection_pool or ConnectionPool()
    return {
        "prefix_ranges": [{"address_prefix": address, "prefix_len": int(length)}] if prefix else [],
        "server_name": name,
        "clusters": clusters,
        "idle_timeout": pool.tcp_idle_timeout,
        "max_duration": pool.max_connection_duration,
    }


def _http_listener(place: _Place, route: str, configuration: Values | None, options: Options) -> Values:
    return {**_listener(place, options), "route": route, "configuration": configuration, "chains": []}


def _tcp_listener(place: _Place, chains: dict[tuple[str, str], Values], options: Options) -> Values:
    return {
        **_listener(place, options),
        "route": "",
        "configuration": None,
        "chains": [chain for _, chain in sorted(chains.items())],
        "inspects_tls": any(name for _, name in chains),
        # What no chain wants passes through, unless a chain takes everything.
        "has_default": ("", "") not in chains and not place.is_bound,
    }


def _listener(place: _Place, options: Options) -> Values:
    others = options.wildcards[1:] if place.address == options.wildcard and not place.is_bound else ()
    return {
        "name": place.name,
        "address": place.address,
        "more_addresses": list(others),
        "port": place.port,
        "is_bound": place.is_bound,
        "inspects_tls": False,
        "has_default": not place.is_bound,
    }
