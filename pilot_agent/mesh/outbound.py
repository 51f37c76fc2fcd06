"""The outbound side for the templates: names, domains, addresses of every service, as plain JSON values.

One function per kind of Envoy resource. The shape of the configuration is the templates'; here is only what varies.
Called by publish; pure.
"""

from collections.abc import Iterable, Iterator

from pilot_agent.mesh.model import (
    HTTP2_PROTOCOLS,
    Endpoint,
    Options,
    ServiceEntry,
    ServicePort,
)
from pilot_agent.mesh.names import (
    address_domain,
    chain_matches,
    cluster_name,
    domains,
    endpoints_file,
    listener_addresses,
)

Values = dict[str, object]
_DISCOVERY = {"STATIC": "STATIC", "DNS": "STRICT_DNS", "DNS_ROUND_ROBIN": "LOGICAL_DNS", "NONE": "ORIGINAL_DST"}


def clusters(entries: Iterable[ServiceEntry], options: Options) -> list[Values]:
    """One per host and port: {name, type, is_http2, dns_family, endpoints_file | localities}."""
    entries = tuple(entries)
    watched = _watched(entries, options)
    found: list[Values] = [
        {
            "name": cluster_name(port.number, host),
            "type": "EDS" if (port.number, host) in watched else _DISCOVERY[entry.resolution],
            "is_http2": port.protocol in HTTP2_PROTOCOLS,
            "dns_family": "V4_ONLY" if options.address_family == "IPv4" else "V6_ONLY",
            "endpoints_file": endpoints_file(port.number, host) if (port.number, host) in watched else "",
            "localities": [] if (port.number, host) in watched else _localities(entry, port, host),
        }
        for entry, port, host in _services(entries)
    ]
    return sorted(found, key=lambda cluster: str(cluster["name"]))


def endpoints(entries: Iterable[ServiceEntry], options: Options) -> dict[str, Values]:
    """By file name, for the services whose addresses are given, as many as may be watched: {cluster, localities}."""
    entries = tuple(entries)
    watched = _watched(entries, options)
    return {
        endpoints_file(port.number, host): {
            "cluster": cluster_name(port.number, host),
            "localities": _localities(entry, port, host),
        }
        for entry, port, host in _services(entries)
        if (port.number, host) in watched
    }


def _watched(entries: Iterable[ServiceEntry], options: Options) -> set[tuple[int, str]]:
    """The services, by port and host, whose endpoints have a file of their own."""
    given = {(port.number, host) for entry, port, host in _services(entries) if entry.resolution == "STATIC"}
    return set(sorted(given)[: options.endpoint_files])


def routes(entries: Iterable[ServiceEntry], options: Options) -> dict[int, list[Values]]:
    """By HTTP port, its virtual hosts: {name, cluster, domains}. An entry's first host has its addresses."""
    found: dict[int, list[Values]] = {}
    for entry, port, host in _services(entries):
        if port.is_http:
            addresses = entry.vips if host == entry.hosts[0] else ()
            names = [*domains(host, options.namespace), *map(address_domain, addresses)]
            virtual_host: Values = {
                "name": f"{host}:{port.number}",
                "cluster": cluster_name(port.number, host),
                "domains": names,
            }
            found.setdefault(port.number, []).append(virtual_host)
    return {
        number: sorted(hosts, key=lambda virtual_host: str(virtual_host["name"]))
        for number, hosts in sorted(found.items())
    }


def listeners(entries: Iterable[ServiceEntry], options: Options) -> list[Values]:
    """One per address and port: {name, address, port, route | chains, inspects_tls, has_default}.

    HTTP services of a port share a listener and its route configuration; each other service is a filter chain.
    `virtual_hosts` is None where the routes have a file of their own.
    """
    entries = tuple(entries)
    by_port = routes(entries, options)
    written_out = dict(list(by_port.items())[options.route_files :])
    chains: dict[tuple[str, int, bool], list[Values]] = {}
    for entry in entries:
        for port in entry.ports:
            for address in listener_addresses(entry, port, options):
                found = [] if port.is_http else _chains(entry, port, address, options)
                chains.setdefault((address, port.number, port.is_http), []).extend(found)
    return [
        {**_listener(*where, found), "virtual_hosts": written_out.get(where[1])}
        for where, found in sorted(chains.items())
    ]


def _chains(entry: ServiceEntry, port: ServicePort, address: str, options: Options) -> list[Values]:
    """TLS has a chain per host, told apart by server name; TCP can't tell hosts apart, so its first host has it."""
    hosts = {host.lower(): host for host in entry.hosts}
    return [
        {
            "prefix": prefix,
            "server_name": server_name,
            "cluster": cluster_name(port.number, hosts.get(server_name, entry.hosts[0])),
        }
        for prefix, server_name in chain_matches(entry, port, address, options)
    ]


def _listener(address: str, port: int, is_http: bool, chains: list[Values]) -> Values:
    return {
        "name": f"{address}_{port}",
        "address": address,
        "port": port,
        "route": str(port) if is_http else "",
        "chains": sorted(chains, key=lambda chain: (str(chain["prefix"]), str(chain["server_name"]))),
        "inspects_tls": any(chain["server_name"] for chain in chains),
        # What no chain wants passes through, unless a chain takes everything.
        "has_default": all(chain["prefix"] or chain["server_name"] for chain in chains),
    }


def _services(entries: Iterable[ServiceEntry]) -> Iterator[tuple[ServiceEntry, ServicePort, str]]:
    for entry in entries:
        for port in entry.ports:
            for host in entry.hosts:
                yield entry, port, host


def _localities(entry: ServiceEntry, port: ServicePort, host: str) -> list[Values]:
    """Endpoints by locality: {region, zone, sub_zone, weight, endpoints: {address, port, weight}}."""
    by_locality: dict[tuple[str, str, str], list[Endpoint]] = {}
    for endpoint in entry.endpoints or _own_endpoints(entry, host):
        by_locality.setdefault(endpoint.locality, []).append(endpoint)
    return [
        {
            "region": region,
            "zone": zone,
            "sub_zone": sub_zone,
            "weight": sum(endpoint.weight for endpoint in found),
            "endpoints": [
                {"address": endpoint.address, "port": endpoint.port(port), "weight": endpoint.weight}
                for endpoint in found
            ],
        }
        for (region, zone, sub_zone), found in sorted(by_locality.items())
    ]


def _own_endpoints(entry: ServiceEntry, host: str) -> tuple[Endpoint, ...]:
    """A DNS service without endpoints resolves its own host."""
    if not entry.resolution.startswith("DNS"):
        return ()
    return (Endpoint(address=host, ports={}, weight=1, locality=("", "", ""), labels={}),)
