"""Envoy's clusters and endpoints for the services this proxy sees: what of each varies, as plain JSON values.

A cluster for each host, port and subset, with the DestinationRule's policy and, towards peers of the mesh, mutual TLS.
The shape is the templates'. Called by view; pure.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pilot_agent.mesh.model import HTTP2_PROTOCOLS, Endpoint, Options, Problem, Service, ServicePort
from pilot_agent.mesh.names import cluster_name, config_path, endpoints_file, server_name
from pilot_agent.mesh.policy import (
    ClientTls,
    ConnectionPool,
    DestinationRule,
    LoadBalancer,
    OutlierDetection,
    Subset,
    TrafficPolicy,
)
from pilot_agent.mesh.registry import selects
from pilot_agent.mesh.resources.destinations import Rules, policy_of
from pilot_agent.mesh.resources.peers import Peers

Values = dict[str, object]
TLS_MODE_LABEL = "security.istio.io/tlsMode"
NO_LIMIT = 4294967295
_DISCOVERY = {"STATIC": "EDS", "DNS": "STRICT_DNS", "DNS_ROUND_ROBIN": "LOGICAL_DNS", "NONE": "ORIGINAL_DST"}
_BALANCERS = {"ROUND_ROBIN": "ROUND_ROBIN", "LEAST_REQUEST": "LEAST_REQUEST", "RANDOM": "RANDOM"}
_TLS_PARTS = {"DISABLE": None, "SIMPLE": "simple", "MUTUAL": "mutual"}


class _Part(NamedTuple):
    """One cluster to be: a service's port, the subset of it, None for the whole, and what is said of that."""

    service: Service
    port: ServicePort
    subset: Subset | None
    rule: DestinationRule | None
    policy: TrafficPolicy

    @property
    def name(self) -> str:
        return cluster_name(self.port.number, self.service.host, self.subset.name if self.subset else "")

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        found = self.service.endpoints or _own_endpoints(self.service)
        labels = self.subset.labels if self.subset else {}
        return tuple(endpoint for endpoint in found if selects(labels, endpoint.labels))

    @property
    def is_http2(self) -> bool:
        """Requests are sent as HTTP/2."""
        pool = self.policy.connection_pool
        upgrades = self.port.is_http and pool is not None and pool.h2_upgrade == "UPGRADE"
        return self.port.protocol in HTTP2_PROTOCOLS or upgrades


class Clusters:
    """`values` for CDS in the order of names, `endpoints` by file for those whose addresses have one."""

    def __init__(self, services: Iterable[Service], rules: Rules, peers: Peers, options: Options) -> None:
        self._peers, self._options = peers, options
        self.values: list[Values] = []
        self.endpoints: dict[str, Values] = {}
        self.problems: list[Problem] = []
        parts = sorted(_parts(services, rules), key=lambda part: part.name)
        known = [part.name for part in parts if self._type(part) == "EDS"]
        watched = set(known[: options.endpoint_files])
        for part in parts:
            cluster = self._cluster(part, is_watched=part.name in watched)
            if cluster is not None:
                self.values.append(cluster)

    def _cluster(self, part: _Part, *, is_watched: bool) -> Values | None:
        policy = part.policy
        tls = self._tls(part, policy.tls)
        if tls == "impossible":
            self.problems.append(_no_identity(part))
            return None
        kind = self._type(part)
        if kind == "EDS" and not is_watched:
            kind = "STATIC"
        localities = [] if kind == "ORIGINAL_DST" else self._localities(part)
        file = ""
        if is_watched:
            file = endpoints_file(part.name)
            self.endpoints[file] = {"cluster": part.name, "localities": localities}
            localities = []
        return {
            "name": part.name,
            "type": kind,
            "dns_family": {"IPv4": "V4_ONLY", "IPv6": "V6_ONLY"}[self._options.families[0]]
            if len(self._options.families) == 1
            else "V4_PREFERRED",
            "endpoints_file": file,
            "localities": localities,
            "http": _http(part, policy.connection_pool or ConnectionPool()),
            "balancing": _balancing(policy.load_balancer or LoadBalancer(), kind),
            "pool": _pool(policy.connection_pool or ConnectionPool()),
            "outliers": _outliers(policy.outlier_detection) if policy.outlier_detection else None,
            "panic_threshold": policy.outlier_detection.min_health_percent if policy.outlier_detection else None,
            "tls": tls,
            "rule": _rule(part),
        }

    def _type(self, part: _Part) -> str:
        """Envoy's type of cluster; EDS for addresses we know, though not each can have a file."""
        balancer, service = part.policy.load_balancer, part.service
        if balancer is not None and balancer.simple == "PASSTHROUGH":
            return "ORIGINAL_DST"
        if service.is_headless and not self._options.is_intercepting:
            return "EDS"  # nobody tells which of them the client wanted
        return _DISCOVERY[service.resolution]

    def _localities(self, part: _Part) -> list[Values]:
        """Endpoints by locality: {region, zone, sub_zone, weight, endpoints: {address, port, weight, is_mtls}}."""
        by_locality: dict[tuple[str, str, str], list[Endpoint]] = {}
        for endpoint in part.endpoints:
            by_locality.setdefault(endpoint.locality, []).append(endpoint)
        return [
            {
                "region": region,
                "zone": zone,
                "sub_zone": sub_zone,
                "weight": sum(endpoint.weight for endpoint in found),
                "endpoints": [
                    {
                        "address": endpoint.address,
                        "port": endpoint.port(part.port),
                        "weight": endpoint.weight,
                        "is_mtls": self._speaks_mtls(part, endpoint),
                    }
                    for endpoint in found
                ],
            }
            for (region, zone, sub_zone), found in sorted(by_locality.items())
        ]

    def _speaks_mtls(self, part: _Part, endpoint: Endpoint) -> bool:
        """As istiod tells: by the label, else by whether the workload has a service account."""
        if not self._options.secrets or part.service.is_external:
            return False
        mode = endpoint.labels.get(TLS_MODE_LABEL, "istio" if endpoint.service_account else "disabled")
        if mode != "istio":
            return False
        return self._peers.mode(part.service.namespace, endpoint.labels, endpoint.port(part.port)) != "DISABLE"

    def _tls(self, part: _Part, wanted: ClientTls | None) -> Values | str | None:
        """None for plain text; `kind` is auto (by the endpoint), istio, simple or mutual."""
        if wanted is None:
            return self._auto_tls(part)
        if wanted.mode == "ISTIO_MUTUAL":
            if not self._options.secrets:
                return "impossible"
            return self._istio_tls(part, "istio", wanted.sni, wanted.subject_alt_names)
        kind = _TLS_PARTS[wanted.mode]
        if kind is None:
            return None
        host = "" if "*" in part.service.host else part.service.host
        names = wanted.subject_alt_names or part.service.subject_alt_names
        if not (names or wanted.sni or wanted.skips_verification) and host:
            names = (host,)  # or anybody's certificate of the same CA would do
        return {
            "kind": kind,
            "sni": wanted.sni or host,
            "sans": [{"exact": name} for name in names],
            "alpn": ["h2"] if part.is_http2 else ["http/1.1"] if part.port.is_http else [],
            "certificate": wanted.client_certificate,
            "private_key": wanted.private_key,
            "ca": "" if wanted.skips_verification else wanted.ca_certificates or _system_roots(),
        }

    def _auto_tls(self, part: _Part) -> Values | None:
        if not self._options.secrets or not self._options.has_auto_mtls or part.service.is_external:
            return None
        speaking = [self._speaks_mtls(part, endpoint) for endpoint in part.service.endpoints]
        if self._type(part) == "ORIGINAL_DST":
            # The address is the client's choice, so there is no endpoint to tell by: all of them or none.
            return self._istio_tls(part, "istio") if speaking and all(speaking) else None
        return (
            self._istio_tls(part, "auto") if any(speaking) or part.service.host.endswith(_svc(self._options)) else None
        )

    def _istio_tls(self, part: _Part, kind: str, sni: str = "", names: tuple[str, ...] = ()) -> Values:
        subset = part.subset.name if part.subset else ""
        return {
            "kind": kind,
            "sni": sni or server_name(part.port.number, part.service.host, subset),
            "sans": [{"exact": name} for name in names] or self._peers_names(part, kind),
            "alpn": ["istio", "h2"] if part.is_http2 else ["istio"],
            "secrets": self._options.secrets,
        }

    def _peers_names(self, part: _Part, kind: str) -> list[dict[str, str]]:
        """Whom a peer may be: the service accounts of its endpoints, or where one is not known, its namespace.

        With `auto` only those that speak mutual TLS are peers, else all are asked to.
        """
        of_namespace = f"spiffe://{self._options.trust_domain}/ns/{part.service.namespace}/"
        endpoints = part.service.endpoints
        peers = [each for each in endpoints if kind != "auto" or self._speaks_mtls(part, each)]
        accounts = {f"{of_namespace}sa/{peer.service_account}" for peer in peers if peer.service_account}
        names = [{"exact": name} for name in (*sorted(accounts), *part.service.subject_alt_names)]
        if names and all(peer.service_account for peer in peers):
            return names
        return [{"prefix": of_namespace}, *({"exact": name} for name in part.service.subject_alt_names)]


def _system_roots() -> str:
    from pilot_agent.identity.channel import SYSTEM_BUNDLES, system_bundle  # only for TLS to outside

    return str(system_bundle() or SYSTEM_BUNDLES[0])  # Envoy says which file is missing


def _svc(options: Options) -> str:
    return f".svc.{options.domain}"


def _parts(services: Iterable[Service], rules: Rules) -> Iterator[_Part]:
    for service in services:
        rule = rules.of(service)
        for port in service.ports:
            yield _Part(service, port, None, rule, policy_of(rule, port.number))
            for subset in rule.subsets if rule else ():
                yield _Part(service, port, subset, rule, policy_of(rule, port.number, subset.name))


def _own_endpoints(service: Service) -> tuple[Endpoint, ...]:
    """A DNS service without endpoints resolves its own host."""
    if not service.resolution.startswith("DNS"):
        return ()
    return (Endpoint(address=service.host, ports={}, weight=1, locality=("", "", ""), labels={}),)


def _no_identity(part: _Part) -> Problem:
    assert part.rule is not None
    text = "ISTIO_MUTUAL needs an identity, and this proxy has none: requests get 503; give it one, as with --caDir"
    return Problem(part.rule.origin, ("spec", "host"), text)


def _rule(part: _Part) -> Values | None:
    """What the views show of a DestinationRule."""
    if part.rule is None:
        return None
    path = config_path("destination-rule", part.rule.namespace, part.rule.name)
    return {"config": path, "subset": part.subset.name if part.subset else ""}


def _http(part: _Part, pool: ConnectionPool) -> Values | None:
    """How requests are sent; None for Envoy's defaults. `protocol`: http1, http2 or the client's."""
    options: Values = {
        "max_requests_per_connection": pool.max_requests_per_connection,
        "max_connection_duration": pool.max_connection_duration,
        "idle_timeout": pool.idle_timeout,
        "max_concurrent_streams": pool.max_concurrent_streams,
    }
    is_default = not part.is_http2 and not pool.uses_client_protocol and not any(options.values())
    if not part.port.is_http or is_default:
        return None
    return {"protocol": "client" if pool.uses_client_protocol else "http2" if part.is_http2 else "http1", **options}


def _balancing(balancer: LoadBalancer, kind: str) -> Values:
    found: Values = {"policy": "LEAST_REQUEST", "warmup": None, "minimum_ring_size": None, "table_size": None}
    if kind == "ORIGINAL_DST":
        return {**found, "policy": "CLUSTER_PROVIDED"}
    if balancer.consistent_hash is not None:
        hashing = balancer.consistent_hash
        if hashing.maglev_table_size is not None:
            return {**found, "policy": "MAGLEV", "table_size": hashing.maglev_table_size or None}
        return {**found, "policy": "RING_HASH", "minimum_ring_size": hashing.minimum_ring_size or 1024}
    return {**found, "policy": _BALANCERS.get(balancer.simple, "LEAST_REQUEST"), "warmup": balancer.warmup}


def _pool(pool: ConnectionPool) -> Values:
    """Limits and times of the connections; Envoy's own limits would be 1,024, the mesh limits nothing by itself."""
    keepalive = {
        "keepalive_probes": pool.keepalive_probes,
        "keepalive_time": _seconds(pool.keepalive_time),
        "keepalive_interval": _seconds(pool.keepalive_interval),
    }
    return {
        "connect_timeout": pool.connect_timeout or "10s",
        "keepalive": {name: value for name, value in keepalive.items() if value is not None},
        "thresholds": {
            "max_connections": _limit(pool.max_connections),
            "max_pending_requests": _limit(pool.max_pending_requests),
            "max_requests": _limit(pool.max_requests),
            "max_retries": _limit(pool.max_retries),
        },
    }


def _limit(value: int | None) -> int:
    return value or NO_LIMIT


def _seconds(duration: str | None) -> int | None:
    """Whole seconds, at least one: Linux has no fractions there."""
    return None if duration is None else max(1, int(float(duration.removesuffix("s"))))


def _outliers(detection: OutlierDetection) -> Values:
    """Envoy's outlier_detection, without what was not said; success rates don't count, as in Istio."""
    values: Values = {"enforcing_success_rate": 0}
    for name, count in (
        ("consecutive_5xx", detection.consecutive_5xx),
        ("consecutive_gateway_failure", detection.consecutive_gateway),
    ):
        if count is not None:
            values[f"enforcing_{name}"] = 100 if count else 0
            if count:
                values[name] = count
    if detection.splits_local_errors:
        values["split_external_local_origin_errors"] = True
        values["enforcing_local_origin_success_rate"] = 0
        if detection.consecutive_local:
            values["consecutive_local_origin_failure"] = detection.consecutive_local
            values["enforcing_consecutive_local_origin_failure"] = 100
    rest = {
        "interval": detection.interval,
        "base_ejection_time": detection.base_ejection_time,
        "max_ejection_percent": detection.max_ejection_percent,
    }
    return {**values, **{name: value for name, value in rest.items() if value is not None}}
