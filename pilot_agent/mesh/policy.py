"""DestinationRule, PeerAuthentication and Sidecar as values: whom to talk to how, what is let in, what is seen.

Made by the modules of the same names from documents, read by clusters, inbound and view. Durations are in protobuf's
JSON form ("1.5s"), as Envoy reads them; None is "not said".
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pilot_agent.mesh.model import Origin

TlsMode = Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]
PeerMode = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]
CaptureMode = Literal["DEFAULT", "IPTABLES", "NONE"]


class Cookie(NamedTuple):
    name: str
    path: str = ""
    ttl: str | None = None


class ConsistentHash(NamedTuple):
    """One of header, cookie, source address, query parameter; the ring (with its size) or Maglev (its table)."""

    header: str = ""
    cookie: Cookie | None = None
    uses_source_ip: bool = False
    query_parameter: str = ""
    minimum_ring_size: int | None = None
    maglev_table_size: int | None = None


class LoadBalancer(NamedTuple):
    """`simple` is Istio's name (ROUND_ROBIN, LEAST_REQUEST, RANDOM, PASSTHROUGH), "" for the default."""

    simple: str = ""
    consistent_hash: ConsistentHash | None = None
    warmup: str | None = None


class ConnectionPool(NamedTuple):
    """tcp.* and http.* of Istio, flat; a limit that is not said is none."""

    max_connections: int | None = None
    connect_timeout: str | None = None
    tcp_idle_timeout: str | None = None
    max_connection_duration: str | None = None
    keepalive_probes: int | None = None
    keepalive_time: str | None = None
    keepalive_interval: str | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    idle_timeout: str | None = None
    h2_upgrade: str = ""
    uses_client_protocol: bool = False
    max_concurrent_streams: int | None = None


class OutlierDetection(NamedTuple):
    consecutive_5xx: int | None = None
    consecutive_gateway: int | None = None
    splits_local_errors: bool = False
    consecutive_local: int | None = None
    interval: str | None = None
    base_ejection_time: str | None = None
    max_ejection_percent: int | None = None
    min_health_percent: int | None = None


class ClientTls(NamedTuple):
    """Paths of PEM files for MUTUAL; `ca_certificates` for SIMPLE and MUTUAL, "" for the system's."""

    mode: TlsMode
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    sni: str = ""
    subject_alt_names: tuple[str, ...] = ()
    skips_verification: bool = False


class TrafficPolicy(NamedTuple):
    """`ports` by number: what is said there replaces all four parts of the policy for that port, as in Istio."""

    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTls | None = None
    ports: Mapping[int, "TrafficPolicy"] = {}


class Subset(NamedTuple):
    name: str
    labels: Mapping[str, str]
    policy: TrafficPolicy = TrafficPolicy()
    place: int = 0


class DestinationRule(NamedTuple):
    """`host` as written. `selector` limits it to clients with these labels, None where there is none."""

    origin: Origin
    name: str
    namespace: str
    host: str
    policy: TrafficPolicy = TrafficPolicy()
    subsets: tuple[Subset, ...] = ()
    selector: Mapping[str, str] | None = None
    export_to: tuple[str, ...] = ()


class PeerAuthentication(NamedTuple):
    """`selector` None is the whole namespace (the whole mesh in the root namespace). `ports` are of the workload."""

    origin: Origin
    name: str
    namespace: str
    selector: Mapping[str, str] | None = None
    mode: PeerMode = "UNSET"
    ports: Mapping[int, PeerMode] = {}


class IngressListener(NamedTuple):
    """`default_endpoint` is `127.0.0.1:PORT`, `0.0.0.0:PORT`, `[::1]:PORT`, `unix:///path`; "" is the port itself."""

    port: int
    protocol: str
    name: str = ""
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"
    default_endpoint: str = ""
    place: int = 0


class EgressListener(NamedTuple):
    """`hosts` are (namespace, host): namespace "*", ".", "~" or a name; host "*", a wildcard or a name.

    `port` None takes every service's own port.
    """

    hosts: tuple[tuple[str, str], ...]
    port: int | None = None
    protocol: str = ""
    name: str = ""
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"
    place: int = 0


class Sidecar(NamedTuple):
    """`selector` None is every workload of the namespace (of the mesh, in the root namespace)."""

    origin: Origin
    name: str
    namespace: str
    selector: Mapping[str, str] | None = None
    ingress: tuple[IngressListener, ...] = ()
    egress: tuple[EgressListener, ...] = ()
    outbound_policy: Literal["", "ALLOW_ANY", "REGISTRY_ONLY"] = ""
