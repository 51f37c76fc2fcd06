"""Istio's names for Envoy's resources: clusters, listeners, domains, filter chain matches, and the files they live in.

Clients such as istioctl's views, statistics and EnvoyFilters depend on these names. Used by claims (who owns a name)
and by outbound (who writes it), so that both always mean the same.
"""

import re

from pilot_agent.mesh.model import Options, ServiceEntry, ServicePort

_KUBERNETES_HOST = re.compile(r"(?P<name>[^.*]+)\.(?P<namespace>[^.]+)\.svc\.(?P<suffix>.+)", re.IGNORECASE)
_LONGEST_FILE = 200


def cluster_name(port: int, host: str) -> str:
    """`outbound|8000||httpbin.demo.svc.cluster.local`; the empty part is the subset."""
    return f"outbound|{port}||{host}"


def endpoints_file(port: int, host: str) -> str:
    """A file name for a cluster's endpoints. A host has no `_` of its own, so two hosts never share one."""
    name = f"outbound_{port}__{host.replace('*', '_')}"
    if len(name) > _LONGEST_FILE:
        import hashlib  # a file name has 255 bytes, the draft's suffix included

        name = f"{name[:_LONGEST_FILE]}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{name}.json"


def listener_addresses(entry: ServiceEntry, port: ServicePort, options: Options) -> list[str]:
    """Where a port listens. HTTP tells services apart by Host, so it needs the wildcard address only."""
    if not options.is_intercepting:
        return [options.loopback]
    if port.is_http or not entry.addresses:
        return [options.wildcard]
    ranges = [options.wildcard] if len(entry.vips) < len(entry.addresses) else []
    return [*entry.vips, *ranges]


def chain_matches(entry: ServiceEntry, port: ServicePort, address: str, options: Options) -> list[tuple[str, str]]:
    """(CIDR range, server name) of each filter chain of a TCP or TLS port on the listener at `address`, "" for any.

    Ranges are for the wildcard address, and only where interception tells which address a client wanted.
    """
    is_shared = options.is_intercepting and address == options.wildcard
    ranges = [known for known in entry.addresses if "/" in known] if is_shared else []
    names = [host.lower() for host in entry.hosts] if port.is_tls else [""]
    return [(prefix, name) for prefix in ranges or [""] for name in names]


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
