"""The inbound side for the templates: what happens to a connection that is meant for the workload beside this proxy.

Its ports are those of the services with an endpoint at one of the proxy's addresses, or what its Sidecar says. Each is
a filter chain of virtualInbound, or a listener of its own where nothing is intercepted. Called by view; pure.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pilot_agent.mesh.model import HTTP2_PROTOCOLS, HTTP_PROTOCOLS, Options, Path, Problem, Service, ServicePort
from pilot_agent.mesh.names import inbound_cluster_name
from pilot_agent.mesh.policy import IngressListener, PeerMode, Sidecar
from pilot_agent.mesh.registry import selects
from pilot_agent.mesh.resources.peers import Peers

Values = dict[str, object]
PASSTHROUGH = {"IPv4": "InboundPassthroughClusterIpv4", "IPv6": "InboundPassthroughClusterIpv6"}
SOURCES = {"IPv4": "127.0.0.6", "IPv6": "::6"}
"""What the rules of istio-iptables let pass: Envoy's own connection to the workload would be caught again."""
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - they stand for addresses
_EVERYTHING = {"IPv4": ("0.0.0.0", 0), "IPv6": ("::", 0)}  # noqa: S104 - a range, not a socket
ISTIO_HTTP = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
ISTIO_TCP = ("istio-peer-exchange", "istio")
ISTIO = ("istio", "istio-peer-exchange", *ISTIO_HTTP)
HTTP_INSPECTED = ("http/1.1", "h2c")


class Port(NamedTuple):
    """A port of the workload. `endpoint` is where its requests go, None for where they were meant to.

    `is_own_address`: that is the workload's own address, where iptables would catch Envoy's connection again.
    """

    number: int
    protocol: str
    service_port: int
    host: str
    endpoint: Values | None = None
    bind: str = ""
    is_bound: bool = False
    is_own_address: bool = False

    @property
    def is_http(self) -> bool:
        return self.protocol in HTTP_PROTOCOLS


class Inbound(NamedTuple):
    """`chains` are virtualInbound's, `listeners` those of a Sidecar that open ports, `clusters` where both lead.

    `ports` have chains of their own, so that what is spoken there is known; on `plain_ports` it is never mutual TLS.
    """

    chains: list[Values]
    ports: list[int]
    plain_ports: list[int]
    listeners: list[Values]
    clusters: list[Values]
    standing: list[Values]
    problems: list[Problem]


def inbound(
    services: tuple[Service, ...],
    sidecar: Sidecar | None,
    peers: Peers,
    options: Options,
    taken: frozenset[str] = frozenset(),
) -> Inbound:
    """`taken` are the names of listeners there are already."""
    problems: list[Problem] = []
    if sidecar is not None and sidecar.ingress:
        ports = list(_of_sidecar(sidecar, taken, problems, options))
    else:
        ports = list(_of_services(services, problems, options))
    mode = peers.mode(options.namespace, options.labels)
    chains = [chain for family in options.families for chain in _passthrough(family, mode, options)]
    listeners: list[Values] = []
    captured = [port.number for port in ports if not port.is_bound]
    modes = {port.number: peers.mode(options.namespace, options.labels, port.number) for port in ports}
    for port in ports:
        own = list(_chains(port, modes[port.number], options))
        if port.is_bound:
            name, address = f"{port.bind}_{port.number}", port.bind
            inspects_tls = any(chain["transport"] == "tls" for chain in own)
            listener = {"name": name, "address": address, "port": port.number, "chains": own}
            listeners.append({**listener, "inspects_tls": inspects_tls})
        else:
            chains += own
    clusters = [_cluster(port, options) for port in ports]
    plain = [number for number in captured if modes[number] == "DISABLE"]
    return Inbound(chains, captured, plain, listeners, clusters, _standing(options), problems)


def _of_services(services: tuple[Service, ...], problems: list[Problem], options: Options) -> Iterator[Port]:
    """The ports under which the mesh knows this workload; the first service has one that several lead to.

    Without interception nothing arrives that could be told apart by its destination: only a Sidecar gives ports.
    """
    if not options.is_intercepting:
        return
    seen: dict[int, tuple[Service, ServicePort]] = {}
    for service in services:
        for endpoint in (*service.endpoints, *service.unready):  # who is asked whether it is ready must be reached
            if endpoint.address not in options.addresses:
                continue
            for port in service.ports:
                number = endpoint.port(port)
                if number in seen:
                    _compare((service, port), seen[number], number, problems)
                    continue
                if number in (options.inbound_port, options.outbound_port):
                    continue
                seen[number] = (service, port)
                yield Port(number, port.protocol, port.number, service.host)


def _compare(
    one: tuple[Service, ServicePort], first: tuple[Service, ServicePort], number: int, problems: list[Problem]
) -> None:
    (service, port), (other, other_port) = one, first
    if port.protocol != other_port.protocol:
        text = (
            f"port {number} of this workload is {other_port.protocol} in {other.host}, and is served as that; "
            f"it is {port.protocol} here: say the same in both"
        )
        path: Path = ("spec", "ports", port.place)
        problems.append(Problem(service.origin, path, text))


def _of_sidecar(sidecar: Sidecar, taken: frozenset[str], problems: list[Problem], options: Options) -> Iterator[Port]:
    reserved = {*options.reserved, options.inbound_port, options.outbound_port}
    for listener in sidecar.ingress:
        path: Path = ("spec", "ingress", listener.place)
        is_bound = listener.capture_mode == "NONE" or not options.is_intercepting
        bind = listener.bind or options.wildcard
        owner = "a port of the agent or of Envoy itself" if listener.port in reserved else ""
        if is_bound and f"{bind}_{listener.port}" in taken:
            owner = f"the port of a service already, at {bind}"
        if owner:
            text = f"{listener.port} is {owner}: the listener is left out; use another port"
            problems.append(Problem(sidecar.origin, (*path, "port", "number"), text))
            continue
        endpoint = _endpoint(listener, options)
        if endpoint is None and is_bound:
            if bind in (*_WILDCARDS, options.loopback):
                text = "is missing: nothing else tells where the application is, and requests get 503; give it"
                problems.append(Problem(sidecar.origin, (*path, "defaultEndpoint"), text))
            else:
                endpoint = _socket_address(options.loopback, listener.port)
        yield Port(
            number=listener.port,
            protocol=listener.protocol,
            service_port=listener.port,
            host=f"{sidecar.name}.{sidecar.namespace}",
            endpoint=endpoint,
            bind=bind,
            is_bound=is_bound,
            is_own_address=listener.default_endpoint.startswith(("0.0.0.0:", "[::]:")),
        )


def _endpoint(listener: IngressListener, options: Options) -> Values | None:
    """Envoy's address of `default_endpoint`; 0.0.0.0 and :: stand for the workload's own address."""
    wanted = listener.default_endpoint
    if not wanted:
        return None
    if wanted.startswith("unix:"):
        return {"pipe": {"path": wanted.removeprefix("unix:").removeprefix("//")}}
    host, _, number = wanted.rpartition(":")
    host = host.strip("[]")
    if host in _WILDCARDS:
        is_wide = ":" in host
        host = next((each for each in options.addresses if (":" in each) == is_wide), options.loopback)
    return _socket_address(host, int(number))


def _socket_address(address: str, port: int) -> Values:
    return {"socket_address": {"address": address, "port_value": port}}


def _passthrough(family: str, mode: PeerMode, options: Options) -> Iterator[Values]:
    """For ports no service has: to where the client wanted, after mutual TLS where the client speaks it."""
    common: Values = {
        "cluster": PASSTHROUGH[family],
        "prefix": _EVERYTHING[family],
        "port": None,
        "operation": ":0/*",
        "virtual_host": "inbound|http|0",
        "stat_prefix": PASSTHROUGH[family],
    }
    http, tcp = {**common, "name": "virtualInbound-catchall-http"}, {**common, "name": "virtualInbound"}
    has_mtls = mode != "DISABLE" and bool(options.secrets)
    if has_mtls:
        yield _made(http, is_http=True, transport="tls", alpn=ISTIO_HTTP, is_mtls=True)
    if mode != "STRICT":
        yield _made(http, is_http=True, transport="raw_buffer", alpn=HTTP_INSPECTED)
    if has_mtls:
        yield _made(tcp, transport="tls", alpn=ISTIO_TCP if mode != "STRICT" else (), is_mtls=True)
    if mode != "STRICT":
        yield _made(tcp, transport="raw_buffer")
        yield _made(tcp, transport="tls")


def _chains(port: Port, mode: PeerMode, options: Options) -> Iterator[Values]:
    """STRICT without an identity lets nobody in: a policy that can't be kept must not fail open."""
    common: Values = {
        "name": f"{options.wildcard}_{port.number}",
        "cluster": inbound_cluster_name(port.number),
        "prefix": None,
        "port": port.number,
        "operation": f"{port.host}:{port.service_port}/*",
        "virtual_host": f"inbound|http|{port.service_port}",
        "stat_prefix": f"inbound_{options.wildcard}_{port.number}",
    }
    if mode != "DISABLE" and options.secrets:
        alpn = ISTIO if mode == "PERMISSIVE" else ()
        yield _made(common, is_http=port.is_http, transport="tls", alpn=alpn, is_mtls=True)
    if mode == "STRICT" and not options.secrets:
        yield _made({**common, "cluster": "BlackHoleCluster"}, transport="")
    if mode == "DISABLE":
        yield _made(common, is_http=port.is_http, transport="")  # nobody looks for TLS there
    elif mode == "PERMISSIVE":
        yield _made(common, is_http=port.is_http, transport="raw_buffer")
        if not port.is_http:
            yield _made(common, transport="tls")


def _made(
    common: Values,
    *,
    transport: str,
    is_http: bool = False,
    alpn: tuple[str, ...] = (),
    is_mtls: bool = False,
) -> Values:
    return {**common, "transport": transport, "is_http": is_http, "alpn": list(alpn), "is_mtls": is_mtls}


def _cluster(port: Port, options: Options) -> Values:
    is_caught = (port.endpoint is None or port.is_own_address) and not port.is_bound
    return {
        "name": inbound_cluster_name(port.number),
        "endpoint": port.endpoint,
        "is_http2": port.protocol in HTTP2_PROTOCOLS,
        "source_addresses": [SOURCES[family] for family in options.families] if is_caught else [],
    }


def _standing(options: Options) -> list[Values]:
    """The clusters of every mesh."""
    found: list[Values] = [
        {"name": "BlackHoleCluster", "is_blackhole": True, "source_addresses": []},
        {"name": "PassthroughCluster", "is_blackhole": False, "source_addresses": []},
    ]
    for family in options.families:
        name, source = PASSTHROUGH[family], SOURCES[family]
        found.append({"name": name, "is_blackhole": False, "source_addresses": [source]})
    return found


def no_identity(peers: Peers, options: Options) -> Iterator[Problem]:
    """STRICT policies that this proxy can't keep but by letting nobody in."""
    if options.secrets:
        return
    for policy in peers.policies:
        strict = policy.mode == "STRICT" or "STRICT" in policy.ports.values()
        is_ours = policy.namespace in (options.namespace, options.root_namespace)
        if strict and is_ours and selects(policy.selector or {}, options.labels):
            text = "STRICT needs an identity, and this proxy has none: nobody is let in; give it one"
            yield Problem(policy.origin, ("spec",), text)
