"""Istio's names for Envoy's resources: clusters, listeners, domains, filter chain matches, and the files they live in.

Clients such as istioctl's views, statistics and EnvoyFilters depend on these names. Used by claims (who owns a name)
and by the modules that write resources, so that all mean the same.
"""

import re
from collections.abc import Iterable

from pilot_agent.mesh.model import Options, Service, ServicePort

_KUBERNETES_HOST = re.compile(r"(?P<name>[^.*]+)\.(?P<namespace>[^.]+)\.svc\.(?P<suffix>.+)", re.IGNORECASE)
_LONGEST_FILE = 200


def cluster_name(port: int, host: str, subset: str = "") -> str:
    """`outbound|8000|v1|httpbin.demo.svc.cluster.local`."""
    return f"outbound|{port}|{subset}|{host}"


def inbound_cluster_name(port: int) -> str:
    """`inbound|8080||`, by the port of the workload."""
    return f"inbound|{port}||"


def server_name(port: int, host: str, subset: str = "") -> str:
    """The SNI of mutual TLS inside the mesh, from which a gateway can tell the cluster."""
    return f"outbound_.{port}_.{subset}_.{host}"


def kubernetes_host(name: str, namespace: str, domain: str) -> str:
    return f"{name}.{namespace}.svc.{domain}"


def full_host(host: str, namespace: str, domain: str) -> str:
    """A host as a rule writes it: a name without dots is a Kubernetes service of the rule's namespace."""
    is_full = "." in host or ":" in host or host.startswith("*")
    return host if is_full else kubernetes_host(host, namespace, domain)


def endpoints_file(cluster: str) -> str:
    """A file name for a cluster's endpoints. A host has no `_` of its own, so two clusters never share one."""
    name = cluster.replace("|", "_").replace("*", "_")
    if len(name) > _LONGEST_FILE:
        import hashlib  # a file name has 255 bytes, the draft's suffix included

        name = f"{name[:_LONGEST_FILE]}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{name}.json"


def listener_addresses(service: Service, port: ServicePort, options: Options) -> list[str]:
    """Where a port listens. HTTP tells services apart by Host, so it needs the wildcard address only.

    The client of a headless service connects to an endpoint, so those are its addresses.
    """
    if not options.is_intercepting:
        return [options.loopback]
    if port.is_http:
        return [options.wildcard]
    addresses = service.addresses
    if service.is_headless:  # without endpoints there is nowhere to listen, and nothing to keep others from
        return list(dict.fromkeys(each.address for each in service.endpoints))
    if not addresses:
        return [options.wildcard]
    single = [address for address in addresses if "/" not in address]
    ranges = [options.wildcard] if len(single) < len(addresses) else []
    return [*single, *ranges]


def prefixes(service: Service, address: str, options: Options) -> list[str]:
    """The CIDR ranges that tell a TCP service apart on the listener at `address`.

    Ranges are for the wildcard address, and only where interception tells which address a client wanted.
    """
    is_shared = options.is_intercepting and address in options.wildcards
    return [known for known in service.addresses if "/" in known] if is_shared else []


def chain_matches(service: Service, port: ServicePort, address: str, options: Options) -> list[tuple[str, str]]:
    """(CIDR range, server name) of each filter chain of a TCP or TLS port on the listener at `address`, "" for any."""
    name = service.host.lower() if port.is_tls else ""
    return [(prefix, name) for prefix in prefixes(service, address, options) or [""]]


def domains(host: str, namespace: str) -> list[str]:
    """The Host headers that mean `host`, for a proxy in `namespace`: as istiod has them, without addresses.

    Only Kubernetes services (`name.namespace.svc.suffix`) have short forms; the bare name works in their own namespace.
    """
    match = _KUBERNETES_HOST.fullmatch(host)
    if not match:
        return [host]
    name, own = match["name"], match["namespace"]
    short = [name] if own == namespace else []
    return [host, f"{host}.", *short, f"{name}.{own}.svc", f"{name}.{own}"]


def address_domain(address: str) -> str:
    """An address as it stands in a Host header."""
    return f"[{address}]" if ":" in address else address


def matches_host(pattern: str, host: str) -> bool:
    """Whether the host of a rule, perhaps with a leading wildcard, takes in `host`; both in full form."""
    pattern, host = pattern.lower(), host.lower()
    if pattern == "*":
        return True
    if pattern.startswith("*"):
        return host.endswith(pattern[1:])
    return pattern == host


def most_specific(patterns: Iterable[str], host: str) -> str | None:
    """Of those that match, the exact one, else the longest wildcard."""
    found = [pattern for pattern in patterns if matches_host(pattern, host)]
    return max(found, key=lambda pattern: (not pattern.startswith("*"), len(pattern)), default=None)


def is_exported(export_to: tuple[str, ...], own: str, namespace: str) -> bool:
    """Whether what is declared in the namespace `own` is seen from `namespace`."""
    return not export_to or "*" in export_to or namespace in export_to or ("." in export_to and own == namespace)


def config_path(kind: str, namespace: str, name: str) -> str:
    """How istiod marks in metadata which rule made a resource: what the views show as its rule."""
    return f"/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}"
