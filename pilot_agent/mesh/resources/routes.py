"""Envoy's virtual hosts and HTTP routes for the services of one port: what of each varies, as plain JSON values.

A host without a VirtualService has one route to its cluster. Istio's rules decide the order of routes, the defaults of
retries, and what a match means. The shape of a route is the templates'. Called by outbound; pure.
"""

from collections.abc import Iterable, Iterator

from pilot_agent.mesh.model import Options, Path, Service, ServicePort
from pilot_agent.mesh.names import (
    address_domain,
    cluster_name,
    config_path,
    domains,
    full_host,
    is_exported,
    matches_host,
    most_specific,
)
from pilot_agent.mesh.resources.actions import (
    PARTS_OF_A_PERCENT,
    cors,
    fault,
    hash_policy,
    header_changes,
    joined,
    new_host,
    redirect,
    retry,
    rewrite,
)
from pilot_agent.mesh.resources.delegation import limited
from pilot_agent.mesh.resources.destinations import Destinations, policy_of
from pilot_agent.mesh.resources.matches import is_ours, operation, request_match
from pilot_agent.mesh.traffic import (
    Headers,
    HttpMatch,
    HttpRoute,
    Mirror,
    VirtualService,
    WeightedDestination,
)

Values = dict[str, object]


class Routing:
    """The VirtualServices this proxy follows, with what delegates to others put together."""

    def __init__(self, rules: Iterable[VirtualService], destinations: Destinations, options: Options) -> None:
        self._options, self._destinations = options, destinations
        rules = tuple(rules)
        self._delegates = {(rule.namespace, rule.name): rule for rule in rules if not rule.hosts}
        self._by_host: dict[str, VirtualService] = {}
        for rule in rules:
            if is_exported(rule.export_to, rule.namespace, options.namespace):
                for host in rule.hosts:
                    full = full_host(host, rule.namespace, options.domain).lower()
                    if self._by_host.setdefault(full, rule) is not rule:
                        text = f"{host} has the routes of {self._by_host[full].name} already: these are not used"
                        destinations.report(rule.origin, ("spec", "hosts"), text)
        self._patterns = [host for host in self._by_host if host.startswith("*")]

    def rule(self, host: str) -> VirtualService | None:
        """The one whose host fits best; the first of several with the same host."""
        exact = self._by_host.get(host.lower())
        if exact is not None or not self._patterns:
            return exact
        pattern = most_specific(self._patterns, host)
        return self._by_host[pattern] if pattern is not None else None

    def strangers(self, services: Iterable[Service]) -> Iterator[tuple[str, VirtualService]]:
        """Hosts with HTTP routes that none of these services has."""
        known = {service.host.lower() for service in services}
        patterns = [host for host in known if host.startswith("*")]
        for host, rule in self._by_host.items():
            has_service = host in known or any(matches_host(each, host) for each in patterns)
            if not has_service and host.startswith("*"):
                has_service = any(matches_host(host, each) for each in known)
            if rule.http and not has_service:
                yield host, rule

    def virtual_host(self, service: Service, port: ServicePort, names: list[str]) -> Values:
        rule = self.rule(service.host)
        routes = self.routes(rule, port.number, service.host) if rule is not None else []
        return {
            "name": f"{service.host}:{port.number}",
            "domains": names,
            # A rule without a route for this port is none, as in Istio.
            "routes": routes or [self._default(service, port)],
        }

    def _default(self, service: Service, port: ServicePort) -> Values:
        cluster = cluster_name(port.number, service.host)
        return {
            **_EMPTY,
            "name": "default",
            "match": {"prefix": "/"},
            "operation": f"{service.host}:{port.number}/*",
            "clusters": [{"name": cluster, "weight": 1, **header_changes(Headers())}],
            "retry": retry(None),
            "hash_policy": hash_policy(policy_of(self._destinations.rules.of(service), port.number)),
        }

    def routes(self, rule: VirtualService, port: int, host: str) -> list[Values]:
        """In the order of the rule, up to the first that takes everything."""
        found: list[Values] = []
        for owner, route, path in self._flat(rule):
            for match in route.matches or (HttpMatch(),):
                if not is_ours(match, port, self._options):
                    continue
                found.append(self._route(owner, route, match, port, (host, path)))
                if found[-1]["match"] == {"prefix": "/"}:
                    return found
        return found

    def _flat(self, rule: VirtualService) -> Iterator[tuple[VirtualService, HttpRoute, Path]]:
        """The routes of a rule, with those of its delegates in their places, and where each stands."""
        for route in rule.http:
            path: Path = ("spec", "http", route.place)
            if route.delegate is None:
                yield rule, route, path
                continue
            name, namespace = route.delegate
            delegate = self._delegates.get((namespace, name))
            if delegate is None or not is_exported(delegate.export_to, namespace, rule.namespace):
                text = f"{name} is no VirtualService without hosts in {namespace}: the route is left out"
                if delegate is not None:
                    text = f"{name} of {namespace} is not exported to {rule.namespace}: the route is left out"
                self._destinations.report(rule.origin, (*path, "delegate"), text)
                continue
            for inner in delegate.http:
                inner_path: Path = ("spec", "http", inner.place)
                joined = limited(route, inner)
                if joined is None:
                    text = f"matches nothing that {rule.name} delegates here: the route is left out"
                    self._destinations.report(delegate.origin, (*inner_path, "match"), text)
                    continue
                yield delegate, joined, inner_path

    def _route(
        self, rule: VirtualService, route: HttpRoute, match: HttpMatch, port: int, place: tuple[str, Path]
    ) -> Values:
        host, path = place
        found: Values = {
            **_EMPTY,
            "name": ".".join(filter(None, [route.name, match.name])),
            "match": request_match(match),
            "operation": f"{host}:{port}{operation(match)}",
            "config": config_path("virtual-service", rule.namespace, rule.name),
            "fault": fault(route.fault) if route.fault else None,
            "cors": cors(route.cors) if route.cors else None,
            **header_changes(route.headers, of_route=True),
        }
        if route.redirect is not None:
            return {**found, "redirect": redirect(route.redirect, port)}
        if route.direct_response is not None:
            response: Values = {"status": route.direct_response.status}
            if route.direct_response.body:
                response["body"] = {"inline_string": route.direct_response.body}
            return {**found, "direct_response": response}
        headers = route.headers
        if len(route.destinations) == 1:
            headers = joined(headers, route.destinations[0].headers)
        policies = [self._destinations.policy(each.destination, rule.namespace, port) for each in route.destinations]
        hashes = [hashed for policy in policies for hashed in hash_policy(policy)]
        return {
            **found,
            "clusters": self._clusters(rule, route.destinations, port, path),
            "timeout": route.timeout or "0s",
            "retry": retry(route.retries),
            **header_changes(headers, of_route=True),
            "rewrite": {**new_host(headers), **rewrite(route, match)},
            "mirrors": [self._mirror(rule, mirror, port, path) for mirror in route.mirrors],
            "hash_policy": [hashed for place, hashed in enumerate(hashes) if hashed not in hashes[:place]],
        }

    def _clusters(
        self, rule: VirtualService, wanted: tuple[WeightedDestination, ...], port: int, path: Path
    ) -> list[Values]:
        return [
            {
                "name": self._destinations.cluster(
                    each.destination, rule.namespace, port, (rule.origin, (*path, "route", index, "destination"))
                ),
                "weight": 1 if len(wanted) == 1 else each.weight,
                **header_changes(each.headers),
            }
            for index, each in enumerate(wanted)
        ]

    def _mirror(self, rule: VirtualService, mirror: Mirror, port: int, path: Path) -> Values:
        step: Path = ("mirror",) if mirror.place is None else ("mirrors", mirror.place, "destination")
        where = (rule.origin, (*path, *step))
        name = self._destinations.cluster(mirror.destination, rule.namespace, port, where)
        return {"cluster": name, "parts": round(mirror.percent * PARTS_OF_A_PERCENT)}


_EMPTY: Values = {
    "config": "",
    "clusters": [],
    "redirect": None,
    "direct_response": None,
    "timeout": "0s",
    "retry": None,
    "rewrite": {},
    "mirrors": [],
    "hash_policy": [],
    "fault": None,
    "cors": None,
    "headers": {},
}


def virtual_hosts(
    services: Iterable[tuple[Service, ServicePort]],
    strangers: Iterable[tuple[str, VirtualService]],
    routing: Routing,
    options: Options,
) -> Iterator[Values]:
    """The virtual hosts of one listener, without the one for everybody else. A domain is the first's who has it.

    `strangers` are hosts that have no service, and come after all that have.
    """
    taken: set[str] = set()
    for service, port in services:
        names = [*domains(service.host, options.namespace)]
        if service.is_headless:
            names.append(f"*.{service.host}")  # its pods by name
        names += [address_domain(address) for address in service.vips]
        own = [name for name in names if name.lower() not in taken]
        taken.update(name.lower() for name in own)
        if own:
            yield routing.virtual_host(service, port, own)
    for host, rule in strangers:
        domain = address_domain(host)
        routes = routing.routes(rule, 80, host)
        if routes and domain not in taken:
            yield {"name": f"{host}:80", "domains": [domain], "routes": routes}
