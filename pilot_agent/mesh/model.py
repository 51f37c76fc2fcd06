"""What the local mesh is made of: services as Istio's documents declare them, problems found on the way, and options.

Plain values without behaviour beyond small facts about themselves. Documents make them; outbound and inbound turn them
into what templates see. NamedTuples, because `dataclasses` costs an import on the way to Envoy's start.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from pilot_agent.errors import MeshError

if TYPE_CHECKING:
    from pilot_agent.mesh.policy import DestinationRule, PeerAuthentication, Sidecar
    from pilot_agent.mesh.traffic import VirtualService

HTTP_PROTOCOLS = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"})
TLS_PROTOCOLS = frozenset({"HTTPS", "TLS"})
TCP_PROTOCOLS = frozenset({"TCP", "MONGO", "REDIS", "MYSQL"})
HTTP2_PROTOCOLS = frozenset({"HTTP2", "GRPC", "GRPC-WEB"})

Resolution = Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"]
InterceptionMode = Literal["REDIRECT", "TPROXY", "NONE"]
AddressFamily = Literal["IPv4", "IPv6"]
OutboundPolicy = Literal["ALLOW_ANY", "REGISTRY_ONLY"]
Path = tuple[str | int, ...]
"""The way to a field from the top of its document."""


class Options(NamedTuple):
    """What the agent's settings say about the local mesh; the proxy's own facts, none of them from documents.

    `families` has the node's, its first address's in front. `namespace`, `labels`, `addresses` are the proxy's: what
    selectors select, which short names of `*.svc` hosts work, which endpoints are its own. `access_log` is a path such
    as /dev/stdout, "" for none; `access_log_format` "" is Istio's. `trace_sampling` is in percent, `trace_tags` say who
    we are in spans. `secrets` is the directory of file-based SDS, "" for a proxy without an identity. `reserved` are
    ports of the agent and of Envoy's static listeners, which no service can have; the two ports of the virtual
    listeners are reserved by themselves.

    `endpoint_files` and `route_files` cap how many files Envoy watches beside those of LDS and CDS. It opens an inotify
    instance for each, the kernel gives a user 128 by default, two Envoys run during a hot restart, and an Envoy that
    gets none aborts (measured with 1.40). What is beyond the cap stands in the cluster or listener itself.
    """

    interception_mode: InterceptionMode = "REDIRECT"
    families: tuple[AddressFamily, ...] = ("IPv4",)
    namespace: str = "default"
    labels: Mapping[str, str] = {}
    addresses: tuple[str, ...] = ()
    trust_domain: str = "cluster.local"
    domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    outbound_policy: OutboundPolicy = "ALLOW_ANY"
    outbound_port: int = 15001
    inbound_port: int = 15006
    access_log: str = ""
    access_log_format: object = ""
    access_log_is_json: bool = False
    trace_sampling: float = 1
    trace_tags: Mapping[str, str] = {}
    secrets: str = ""
    has_auto_mtls: bool = True
    reserved: tuple[int, ...] = (15000, 15020, 15021, 15090)
    endpoint_files: int = 32
    route_files: int = 16

    @property
    def is_intercepting(self) -> bool:
        """True where iptables sends connections to virtualOutbound; else clients must connect to Envoy themselves."""
        return self.interception_mode != "NONE"

    @property
    def wildcards(self) -> tuple[str, ...]:
        """The wildcard address of each family."""
        return tuple("0.0.0.0" if family == "IPv4" else "::" for family in self.families)  # noqa: S104 - as Istio has it

    @property
    def wildcard(self) -> str:
        return self.wildcards[0]

    @property
    def loopback(self) -> str:
        return "127.0.0.1" if self.families[0] == "IPv4" else "::1"


class Origin(NamedTuple):
    """Where a resource was declared: its document in the file (from 0), the line it begins at, and the way down to it.

    `path` is empty but for the items of a `kind: List`.
    """

    file: str
    line: int
    document: int = 0
    path: Path = ()


class ServicePort(NamedTuple):
    """`place` counts from 0 in spec.ports. `target_name` is the name of a port of the pod, where one was given."""

    place: int
    number: int
    name: str
    protocol: str
    target_port: int
    target_name: str = ""

    @property
    def is_http(self) -> bool:
        return self.protocol in HTTP_PROTOCOLS

    @property
    def is_tls(self) -> bool:
        """The client speaks TLS, so Envoy sees the server name and nothing else."""
        return self.protocol in TLS_PROTOCOLS


class Endpoint(NamedTuple):
    """`ports` maps a service port's name to the endpoint's own port; `locality` is region, zone, sub-zone.

    `service_account` is the workload's, "" where it is not known; `is_ready` is false for one that gets no traffic.
    """

    address: str
    ports: Mapping[str, int]
    weight: int
    locality: tuple[str, str, str]
    labels: Mapping[str, str]
    service_account: str = ""
    is_ready: bool = True

    def port(self, port: ServicePort) -> int:
        return self.ports.get(port.name, port.target_port)


class ServiceEntry(NamedTuple):
    """One ServiceEntry. `addresses` holds single addresses and CIDR ranges in canonical form.

    `selector` picks WorkloadEntries of its namespace for endpoints, None where there is none. `export_to` is "*", "."
    or namespaces; empty for "*".
    """

    origin: Origin
    name: str
    namespace: str
    hosts: tuple[str, ...]
    addresses: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    resolution: Resolution
    location: str
    endpoints: tuple[Endpoint, ...]
    selector: Mapping[str, str] | None = None
    subject_alt_names: tuple[str, ...] = ()
    export_to: tuple[str, ...] = ()

    @property
    def vips(self) -> tuple[str, ...]:
        return tuple(address for address in self.addresses if "/" not in address)


class KubernetesService(NamedTuple):
    """A Kubernetes Service. `cluster_ips` is empty for a headless one and for ExternalName.

    `external_name` is "" but for `type: ExternalName`. `selector` picks WorkloadEntries of its namespace; its pods are
    told by Endpoints and EndpointSlices. `export_to` comes from the annotation networking.istio.io/exportTo.
    """

    origin: Origin
    name: str
    namespace: str
    cluster_ips: tuple[str, ...]
    is_headless: bool
    external_name: str
    ports: tuple[ServicePort, ...]
    selector: Mapping[str, str]
    export_to: tuple[str, ...] = ()


class ServiceEndpoints(NamedTuple):
    """One EndpointSlice, or one Endpoints object, of the Kubernetes Service `service` of its namespace.

    The endpoints' ports are by the name of the service's port ("" for the only, unnamed one).
    """

    origin: Origin
    name: str
    namespace: str
    service: str
    endpoints: tuple[Endpoint, ...]


class WorkloadEntry(NamedTuple):
    """One WorkloadEntry: its endpoint has its labels, and its ports are by name of the service's port."""

    origin: Origin
    name: str
    namespace: str
    endpoint: Endpoint


class Service(NamedTuple):
    """One host that can be asked for, whichever kind of document says so: what Envoy's outbound resources are made of.

    `path` leads to the host in its document; `addresses` holds single addresses and CIDR ranges. `endpoints` are those
    that get traffic, `unready` those that get none yet; a headless service of Kubernetes has resolution NONE, the
    client chose the address, and its endpoints tell who may be there. `is_external` is MESH_EXTERNAL of a ServiceEntry.
    """

    origin: Origin
    path: Path
    name: str
    namespace: str
    host: str
    addresses: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    resolution: Resolution
    endpoints: tuple[Endpoint, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    export_to: tuple[str, ...] = ()
    is_headless: bool = False
    is_external: bool = False
    unready: tuple[Endpoint, ...] = ()

    @property
    def vips(self) -> tuple[str, ...]:
        return tuple(address for address in self.addresses if "/" not in address)


Resource: TypeAlias = (
    "ServiceEntry | KubernetesService | ServiceEndpoints | WorkloadEntry"
    " | VirtualService | DestinationRule | PeerAuthentication | Sidecar"
)


class FieldWarning(NamedTuple):
    """Something in a document that is not used; the rest of the file is."""

    file: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.reason}"


class Problem(NamedTuple):
    """What is wrong with a document only because of what other documents say, or don't; the rest of it is used."""

    origin: Origin
    path: Path
    reason: str


class DocumentRefused(MeshError):
    """A file that can't be used, with the first reason found. `line` is 1-based, 0 where no line is to blame."""

    def __init__(self, file: str, line: int, field: str, reason: str) -> None:
        self.file, self.line, self.field, self.reason = file, line, field, reason
        place = f"{file}:{line}" if line else file
        super().__init__(f"{place}: {field}: {reason}" if field else f"{place}: {reason}")


class Document(NamedTuple):
    """What one file says, usable as a whole: its resources in the order they are written."""

    resources: tuple[Resource, ...]
    warnings: tuple[FieldWarning, ...]
