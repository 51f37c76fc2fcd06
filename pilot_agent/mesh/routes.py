"""Envoy's virtual hosts and HTTP routes for the services of one port: what of each varies, as plain JSON values.

A host without a VirtualService has one route to its cluster. Istio's rules decide the order of routes, the defaults of
retries, and what a match means. The shape of a route is the templates'. Called by outbound; pure.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pilot_agent.mesh.destinations import Destinations, policy_of
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
from pilot_agent.mesh.policy import TrafficPolicy
from pilot_agent.mesh.registry import selects
from pilot_agent.mesh.traffic import (
    Cors,
    Fault,
    HeaderChanges,
    Headers,
    HttpMatch,
    HttpRoute,
    Mirror,
    Redirect,
    Retries,
    StringMatch,
    VirtualService,
    WeightedDestination,
)

Values = dict[str, object]
RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
_HOST = ("host", ":authority")
_MILLION = 10_000
"""Parts of a million in a percent."""


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
        for host, rule in self._by_host.items():
            if rule.http and not any(matches_host(host, each) or matches_host(each, host) for each in known):
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
            "clusters": [{"name": cluster, "weight": 1, **_headers(Headers())}],
            "retry": _retry(None),
            "hash_policy": _hash_policy(policy_of(self._destinations.rules.of(service), port.number)),
        }

    def routes(self, rule: VirtualService, port: int, host: str) -> list[Values]:
        """In the order of the rule, up to the first that takes everything."""
        found: list[Values] = []
        for owner, route, path in self._flat(rule):
            for match in route.matches or (HttpMatch(),):
                if not _is_ours(match, port, self._options):
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
                joined = _under(route, inner)
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
            "match": _match(match),
            "operation": f"{host}:{port}{_operation(match)}",
            "config": config_path("virtual-service", rule.namespace, rule.name),
            "fault": _fault(route.fault) if route.fault else None,
            "cors": _cors(route.cors) if route.cors else None,
            **_headers(route.headers, of_route=True),
        }
        if route.redirect is not None:
            return {**found, "redirect": _redirect(route.redirect, port)}
        if route.direct_response is not None:
            response: Values = {"status": route.direct_response.status}
            if route.direct_response.body:
                response["body"] = {"inline_string": route.direct_response.body}
            return {**found, "direct_response": response}
        headers = route.headers
        if len(route.destinations) == 1:
            headers = _joined(headers, route.destinations[0].headers)
        policies = [self._destinations.policy(each.destination, rule.namespace, port) for each in route.destinations]
        hashes = [hashed for policy in policies for hashed in _hash_policy(policy)]
        return {
            **found,
            "clusters": self._clusters(rule, route.destinations, port, path),
            "timeout": route.timeout or "0s",
            "retry": _retry(route.retries),
            **_headers(headers, of_route=True),
            "rewrite": {**_new_host(headers), **_rewrite(route, match)},
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
                **_headers(each.headers),
            }
            for index, each in enumerate(wanted)
        ]

    def _mirror(self, rule: VirtualService, mirror: Mirror, port: int, path: Path) -> Values:
        step: Path = ("mirror",) if mirror.place is None else ("mirrors", mirror.place, "destination")
        where = (rule.origin, (*path, *step))
        name = self._destinations.cluster(mirror.destination, rule.namespace, port, where)
        return {"cluster": name, "parts": round(mirror.percent * _MILLION)}


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


def _is_ours(match: HttpMatch, port: int, options: Options) -> bool:
    """What a match says of the client, that is of this proxy."""
    return (
        match.port in (None, port)
        and match.source_namespace in ("", options.namespace)
        and selects(match.source_labels, options.labels)
    )


def _under(outer: HttpRoute, inner: HttpRoute) -> HttpRoute | None:
    """A delegate's route, limited to what the root's matches let through, None where that is nothing.

    What the delegate does not say is as the root's route says.
    """
    matches = inner.matches or outer.matches
    if outer.matches and inner.matches:
        both = (_both(first, second) for second in inner.matches for first in outer.matches)
        matches = tuple(match for match in both if match is not None)
        if not matches:
            return None
    return inner._replace(
        name="-".join(filter(None, [outer.name, inner.name])),
        matches=matches,
        rewrite=inner.rewrite or (outer.rewrite if inner.destinations else None),
        timeout=inner.timeout or outer.timeout,
        retries=inner.retries or outer.retries,
        fault=inner.fault or outer.fault,
        mirrors=inner.mirrors or outer.mirrors,
        cors=inner.cors or outer.cors,
        headers=outer.headers if inner.headers == Headers() else inner.headers,
    )


def _both(outer: HttpMatch, inner: HttpMatch) -> HttpMatch | None:
    """A match for which both hold; None where they can't, or where Envoy has no way to say it."""
    single: dict[str, Any] = {}
    for name in ("scheme", "method", "authority", "port"):
        mine, theirs = getattr(outer, name), getattr(inner, name)
        if mine is not None and theirs is not None and mine != theirs:
            return None
        single[name] = mine if mine is not None else theirs
    uris = _both_uris(outer.uri, inner.uri)
    labels = {**outer.source_labels, **inner.source_labels}
    if not uris or not selects(outer.source_labels, labels):
        return None
    if outer.source_namespace and inner.source_namespace not in ("", outer.source_namespace):
        return None
    return inner._replace(
        **single,
        uri=uris[0],
        ignores_uri_case=inner.ignores_uri_case if inner.uri else outer.ignores_uri_case,
        name="-".join(filter(None, [outer.name, inner.name])),
        headers=(*outer.headers, *inner.headers),
        without_headers=(*outer.without_headers, *inner.without_headers),
        query_params=(*outer.query_params, *inner.query_params),
        source_labels=labels,
        source_namespace=inner.source_namespace or outer.source_namespace,
    )


def _both_uris(outer: StringMatch | None, inner: StringMatch | None) -> tuple[StringMatch | None, ...]:
    """The one that says both; nothing where there is no such."""
    if outer is None or inner is None or outer == inner:
        return (inner or outer,)
    if outer.kind == "prefix" and inner.kind in ("prefix", "exact") and inner.value.startswith(outer.value):
        return (inner,)
    return ()


def _match(match: HttpMatch) -> Values:
    found: Values = dict(_path(match.uri))
    if match.ignores_uri_case:
        found["case_sensitive"] = False
    headers = [_header(f":{name}", value) for name, value in _pseudo(match)]
    headers += [_header(name, value) for name, value in match.headers]
    headers += [_absent(name, value) for name, value in match.without_headers]
    if headers:
        found["headers"] = headers
    if match.query_params:
        found["query_parameters"] = [
            {"name": name, **({"present_match": True} if value is None else {"string_match": _text(value)})}
            for name, value in match.query_params
        ]
    return found


def _pseudo(match: HttpMatch) -> list[tuple[str, StringMatch]]:
    values = (("scheme", match.scheme), ("method", match.method), ("authority", match.authority))
    return [(name, value) for name, value in values if value is not None]


def _path(uri: StringMatch | None) -> Values:
    if uri is None:
        return {"prefix": "/"}
    if uri.kind == "exact":
        return {"path": uri.value}
    return {"prefix": uri.value} if uri.kind == "prefix" else {"safe_regex": {"regex": uri.value}}


def _text(match: StringMatch) -> Values:
    return {"safe_regex": {"regex": match.value}} if match.kind == "regex" else {match.kind: match.value}


def _header(name: str, value: StringMatch | None) -> Values:
    return {"name": name, **({"present_match": True} if value is None else {"string_match": _text(value)})}


def _absent(name: str, value: StringMatch | None) -> Values:
    if value is None:
        return {"name": name, "present_match": True, "invert_match": True}
    return {
        "name": name,
        "string_match": _text(value),
        "invert_match": True,
        "treat_missing_header_as_empty": True,
    }


def _operation(match: HttpMatch) -> str:
    """The path as spans name it."""
    uri = match.uri
    if uri is None:
        return "/*"
    return f"{uri.value}*" if uri.kind == "prefix" else uri.value


def _retry(retries: Retries | None) -> Values | None:
    """Istio's default is two retries of what can't have been seen by the server."""
    if retries is None:
        retries = Retries(attempts=2)
    if retries.attempts == 0:
        return None
    words = [word for word in (retries.retry_on or RETRY_ON).split(",") if word]
    codes = [int(word) for word in words if word.isdigit()]
    if codes:
        words = [word for word in words if not word.isdigit()]
        if "retriable-status-codes" not in words:
            words.append("retriable-status-codes")
    return {
        "retry_on": ",".join(words),
        "num_retries": retries.attempts,
        "codes": codes,
        "per_try_timeout": retries.per_try_timeout,
        "backoff": retries.backoff,
        "leaves_locality": bool(retries.retry_remote_localities),
    }


def _rewrite(route: HttpRoute, match: HttpMatch) -> Values:
    """host_rewrite_literal, and one of prefix_rewrite and regex_rewrite."""
    found: Values = {}
    rewrite = route.rewrite
    if rewrite is None:
        return found
    if rewrite.authority:
        found["host_rewrite_literal"] = rewrite.authority
    if rewrite.regex is not None:
        pattern, substitution = rewrite.regex
        found["regex_rewrite"] = {"pattern": {"regex": pattern}, "substitution": substitution}
    elif rewrite.uri:
        prefix = match.uri.value if match.uri is not None and match.uri.kind == "prefix" else ""
        if rewrite.uri == "/" and prefix not in ("", "/") and not prefix.endswith("/"):
            # /api/x must become /x, not //x, and /api itself /.
            pattern = f"^{'(?i)' if match.ignores_uri_case else ''}{re.escape(prefix)}(/?)(.*)"
            found["regex_rewrite"] = {"pattern": {"regex": pattern}, "substitution": r"/\2"}
        else:
            found["prefix_rewrite"] = rewrite.uri
    return found


def _redirect(redirect: Redirect, port: int) -> Values:
    found: Values = {"response_code": _CODES[redirect.code]}
    if redirect.authority:
        found["host_redirect"] = redirect.authority
    if redirect.uri.startswith("%PREFIX()%"):
        found["prefix_rewrite"] = redirect.uri.removeprefix("%PREFIX()%")
    elif redirect.uri:
        found["path_redirect"] = redirect.uri
    if redirect.scheme:
        found["scheme_redirect"] = redirect.scheme
    if redirect.port is not None:
        found["port_redirect"] = redirect.port
    elif redirect.derive_port == "FROM_REQUEST_PORT":
        found["port_redirect"] = port
    elif redirect.derive_port == "FROM_PROTOCOL_DEFAULT":
        found["port_redirect"] = 443 if redirect.scheme == "https" else 80
    return found


def _fault(fault: Fault) -> Values:
    found: Values = {}
    if fault.delay is not None:
        found["delay"] = {"fixed_delay": fault.delay, "percentage": _percentage(fault.delay_percent)}
    if fault.abort_status is not None:
        found["abort"] = {"http_status": fault.abort_status, "percentage": _percentage(fault.abort_percent)}
    elif fault.abort_grpc:
        found["abort"] = {"grpc_status": _grpc_status(fault.abort_grpc), "percentage": _percentage(fault.abort_percent)}
    return found


_GRPC = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
    "UNAUTHENTICATED"
).split()


def _grpc_status(name: str) -> int:
    return int(name) if name.isdigit() else _GRPC.index(name.upper())


def _percentage(percent: float) -> Values:
    return {"numerator": round(percent * _MILLION), "denominator": "MILLION"}


def _cors(cors: Cors) -> Values:
    found: Values = {
        "allow_origin_string_match": [_text(origin) for origin in cors.allow_origins],
        "allow_methods": ",".join(cors.allow_methods),
        "allow_headers": ",".join(cors.allow_headers),
        "expose_headers": ",".join(cors.expose_headers),
    }
    if cors.max_age is not None:
        found["max_age"] = cors.max_age.removesuffix("s")
    if cors.allow_credentials is not None:
        found["allow_credentials"] = cors.allow_credentials
    return {name: value for name, value in found.items() if value not in ("", [])}


def _joined(route: Headers, destination: Headers) -> Headers:
    """Of a route and of its only destination."""

    def both(first: HeaderChanges, second: HeaderChanges) -> HeaderChanges:
        return HeaderChanges(first.set + second.set, first.add + second.add, first.remove + second.remove)

    return Headers(both(route.request, destination.request), both(route.response, destination.response))


def _new_host(headers: Headers) -> Values:
    """Envoy changes the host by another field than other headers."""
    hosts = [value for name, value in (*headers.request.set, *headers.request.add) if name.lower() in _HOST]
    return {"host_rewrite_literal": hosts[-1]} if hosts else {}


def _headers(headers: Headers, *, of_route: bool = False) -> Values:
    """Members of a route or, with the host, of a weighted cluster."""
    found: Values = {} if of_route else _new_host(headers)
    for side, changes in (("request", headers.request), ("response", headers.response)):
        added = _added(changes)
        if added:
            found[f"{side}_headers_to_add"] = added
        if changes.remove:
            found[f"{side}_headers_to_remove"] = list(changes.remove)
    return {"headers": found}


def _added(changes: HeaderChanges) -> list[Values]:
    both = (("OVERWRITE_IF_EXISTS_OR_ADD", changes.set), ("APPEND_IF_EXISTS_OR_ADD", changes.add))
    return [
        {"header": {"key": name, "value": value}, "append_action": action}
        for action, pairs in both
        for name, value in pairs
        if name.lower() not in _HOST
    ]


def _hash_policy(policy: TrafficPolicy) -> list[Values]:
    hashing = policy.load_balancer.consistent_hash if policy.load_balancer else None
    if hashing is None:
        return []
    if hashing.header:
        return [{"header": {"header_name": hashing.header}}]
    if hashing.cookie is not None:
        cookie = {"name": hashing.cookie.name, "path": hashing.cookie.path, "ttl": hashing.cookie.ttl}
        return [{"cookie": {name: value for name, value in cookie.items() if value}}]
    if hashing.uses_source_ip:
        return [{"connection_properties": {"source_ip": True}}]
    if hashing.query_parameter:
        return [{"query_parameter": {"name": hashing.query_parameter}}]
    return []
