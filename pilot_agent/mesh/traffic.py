"""VirtualService as values: which requests and connections go where, and what happens to them on the way.

Made by virtual_service from a document, read by routes and outbound. Durations are in protobuf's JSON form ("1.5s"),
as Envoy reads them; None is "not said".
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pilot_agent.mesh.model import Origin


class StringMatch(NamedTuple):
    """`prefix` of a URI matches characters, not path segments, as in Istio."""

    kind: Literal["exact", "prefix", "regex"]
    value: str


class HttpMatch(NamedTuple):
    """All of it must hold. In `headers` None is "is there"; a name of `without_headers` must not match (not be there).

    `source_labels` and `source_namespace` are the client's, that is of this proxy.
    """

    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: tuple[tuple[str, StringMatch | None], ...] = ()
    without_headers: tuple[tuple[str, StringMatch | None], ...] = ()
    query_params: tuple[tuple[str, StringMatch | None], ...] = ()
    ignores_uri_case: bool = False
    port: int | None = None
    source_labels: Mapping[str, str] = {}
    source_namespace: str = ""


class Destination(NamedTuple):
    """`host` as written, short names included; `port` None where the service's only port, or the listener's, counts."""

    host: str
    subset: str = ""
    port: int | None = None


class HeaderChanges(NamedTuple):
    """Of requests or of responses."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


class Headers(NamedTuple):
    request: HeaderChanges = HeaderChanges()
    response: HeaderChanges = HeaderChanges()


class WeightedDestination(NamedTuple):
    """`weight` 0 of several gets nothing; a single destination gets all, whatever its weight."""

    destination: Destination
    weight: int = 0
    headers: Headers = Headers()


class Redirect(NamedTuple):
    """`port` is a number, or Istio's FROM_PROTOCOL_DEFAULT / FROM_REQUEST_PORT in `derive_port`."""

    uri: str = ""
    authority: str = ""
    scheme: str = ""
    port: int | None = None
    derive_port: str = ""
    code: int = 301


class DirectResponse(NamedTuple):
    status: int
    body: str = ""


class Rewrite(NamedTuple):
    """`regex` is (match, rewrite) of uriRegexRewrite."""

    uri: str = ""
    authority: str = ""
    regex: tuple[str, str] | None = None


class Retries(NamedTuple):
    """`attempts` 0 is "none". `retry_on` "" is Istio's default."""

    attempts: int
    per_try_timeout: str | None = None
    retry_on: str = ""
    retry_remote_localities: bool | None = None
    backoff: str | None = None


class Fault(NamedTuple):
    """Percentages from 0 to 100. `abort_status` is of HTTP, `abort_grpc` a gRPC status name or number."""

    delay: str | None = None
    delay_percent: float = 100.0
    abort_status: int | None = None
    abort_grpc: str = ""
    abort_percent: float = 100.0


class Mirror(NamedTuple):
    """`place` is the one in `mirrors`, None for the older `mirror`."""

    destination: Destination
    percent: float = 100.0
    place: int | None = None


class Cors(NamedTuple):
    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: str | None = None
    allow_credentials: bool | None = None


class HttpRoute(NamedTuple):
    """`matches` empty matches everything. One of `destinations`, `redirect`, `direct_response`, `delegate` is there.

    `delegate` is (name, namespace) of another VirtualService, whose routes stand in the place of this one.
    """

    name: str = ""
    matches: tuple[HttpMatch, ...] = ()
    destinations: tuple[WeightedDestination, ...] = ()
    redirect: Redirect | None = None
    direct_response: DirectResponse | None = None
    delegate: tuple[str, str] | None = None
    rewrite: Rewrite | None = None
    timeout: str | None = None
    retries: Retries | None = None
    fault: Fault | None = None
    mirrors: tuple[Mirror, ...] = ()
    cors: Cors | None = None
    headers: Headers = Headers()
    place: int = 0


class ConnectionMatch(NamedTuple):
    """Of TCP and TLS. `subnets` are the destination's, in CIDR form; `sni_hosts` of TLS, one at least."""

    sni_hosts: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    port: int | None = None
    source_labels: Mapping[str, str] = {}
    source_namespace: str = ""


class ConnectionRoute(NamedTuple):
    """A route of `tcp` or `tls`."""

    matches: tuple[ConnectionMatch, ...]
    destinations: tuple[WeightedDestination, ...]
    place: int = 0


class VirtualService(NamedTuple):
    """`hosts` as written. Only the gateway `mesh` is served here; one bound to others alone never gets here.

    A VirtualService without hosts is a delegate: only others refer to it.
    """

    origin: Origin
    name: str
    namespace: str
    hosts: tuple[str, ...]
    http: tuple[HttpRoute, ...] = ()
    tls: tuple[ConnectionRoute, ...] = ()
    tcp: tuple[ConnectionRoute, ...] = ()
    export_to: tuple[str, ...] = ()
