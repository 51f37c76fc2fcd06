"""The ADS of the fake istiod: state of the world and delta, what every client said, and a switch for each fault.

Each stream has a thread of the server's pool that sends and one of its own that reads. `FakeAds` owns the resources and
the streams; `FakeIstiod` serves it. The functions below make small resources that a real Envoy accepts.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, NamedTuple

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.service.discovery.v3 import discovery_pb2

from tests.support.confidential import confide

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
SOTW_METHOD, DELTA_METHOD = "StreamAggregatedResources", "DeltaAggregatedResources"
CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LDS = "type.googleapis.com/envoy.config.listener.v3.Listener"
RDS = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
NDS = "type.googleapis.com/istio.networking.nds.v1.NameTable"

HOST = "127.0.0.1"
GARBAGE = b"\xff\xff\xff no message"
ANSWERED_EMPTY = (CDS, LDS)
"""Asked for in the beginning, these are answered even when there is none."""
BY_NAME_ONLY = (EDS, RDS)
"""Of these, a request without names asks for nothing."""

_SOTW, _DELTA = "sotw", "delta"


class _End(NamedTuple):
    code: grpc.StatusCode
    text: str


class _Resource(NamedTuple):
    value: bytes
    version: int


@dataclass
class _Watch:
    """What a stream wants of one type."""

    names: set[str] = field(default_factory=set)
    is_wildcard: bool = False
    nonce: str = ""
    """Of the last response."""
    must_answer: bool = False
    """The next request, even one that only accepts: Envoy warms clusters that were sent again."""

    def wants(self, name: str) -> bool:
        return self.is_wildcard or name in self.names


class RecordedStream:
    """One stream as it came; `frames` are its requests in order, and `raw` their bytes."""

    def __init__(self, kind: str, metadata: dict[str, str], peer_identity: str) -> None:
        self.kind, self.metadata, self.peer_identity = kind, metadata, peer_identity
        self.frames: list[Any] = []
        self.raw: list[bytes] = []
        self.is_open = True
        self.nonces: dict[str, str] = {}
        """Of the responses, with the type of each."""
        self.watches: dict[str, _Watch] = {}
        self.outgoing: SimpleQueue[Any] = SimpleQueue()
        self.is_mute = self.has_answered = False

    def __repr__(self) -> str:
        return f"RecordedStream({self.kind}, {len(self.frames)} frames)"  # pytest would print the token

    @property
    def token(self) -> str | None:
        credentials = self.metadata.get("authorization", "")
        return credentials.removeprefix("Bearer ") if credentials.startswith("Bearer ") else None

    def requests(self, type_url: str) -> list[Any]:
        return [frame for frame in list(self.frames) if frame.type_url == type_url]

    def answers_of_client(self, type_url: str, *, is_nack: bool) -> list[Any]:
        """Its ACKs or NACKs of what this stream sent."""
        return [
            frame
            for frame in self.requests(type_url)
            if frame.response_nonce in self.nonces and frame.HasField("error_detail") == is_nack
        ]

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, text: str = "") -> None:
        """After what is queued already. The first end counts."""
        self.outgoing.put(_End(code, text))

    def close(self) -> None:
        """The call is over."""
        self.is_open = False
        self.end()


class FakeAds:
    """May be used from any thread, whether the server runs or not; what it has survives a restart of the server."""

    def __init__(
        self, required_token: Callable[[], str | None] = lambda: None, identity_of: Callable[[str], str] = lambda _: ""
    ) -> None:
        self._required_token, self._identity_of = required_token, identity_of
        self._lock = threading.RLock()
        self._resources: dict[str, dict[str, _Resource]] = {}
        self._version = 1
        self._nonces = 0
        self._readers: set[threading.Thread] = set()
        self.streams: list[RecordedStream] = []
        self.refuse: str | None = None
        """Name of a gRPC code: new streams end with it at once."""
        self.hang = False
        """Streams opened from now on are read and never answered."""
        self.garbage: str | None = None
        """Responses of this type hold one resource that is no message."""
        self.unasked: str | None = None
        """A response of this type follows the first one of each stream."""

    # Resources

    def set(self, type_url: str, name: str, resource: Any) -> None:
        """A message, or its bytes; and push it to those who watch the type."""
        self.set_many(type_url, {name: resource})

    def set_many(self, type_url: str, resources: Mapping[str, Any]) -> None:
        """With one push."""
        values = {
            name: each if isinstance(each, bytes) else each.SerializeToString(deterministic=True)
            for name, each in resources.items()
        }
        with self._lock:
            self._version += 1
            served = self._resources.setdefault(type_url, {})
            served.update({name: _Resource(value, self._version) for name, value in values.items()})
            self._push(type_url, changed=values)

    def remove(self, type_url: str, *names: str) -> None:
        """KeyError for a name that is not set."""
        with self._lock:
            self._version += 1
            for name in names:
                del self._resources[type_url][name]
            self._push(type_url, removed=names)

    def push(self, type_url: str) -> None:
        """Everything of the type once more, to those who watch it; nothing is sent as an empty response."""
        with self._lock:
            self._version += 1
            for stream, watch in self._watching(type_url):
                self._send(stream, type_url, self._wanted(type_url, watch))

    def names(self, type_url: str) -> list[str]:
        with self._lock:
            return list(self._resources.get(type_url, {}))

    def many_services(
        self, count: int, *, size: int = 0, endpoint_port: int = 80, listener_port: int | None = None
    ) -> None:
        """Clusters and endpoints of so many services, the clusters padded to about `size` bytes in all.

        With `listener_port` a listener too, whose route configuration has a virtual host for each service. Those set
        before stay.
        """
        names = [f"service-{number}.default.svc.cluster.local" for number in range(count)]
        clusters = {name: cluster(name) for name in map(_cluster_name, names)}
        plain = sum(each.ByteSize() for each in clusters.values())
        if size > plain:
            for each in clusters.values():
                _pad(each, (size - plain) // count)
        self.set_many(CDS, clusters)
        self.set_many(EDS, {name: endpoints(name, endpoint_port) for name in clusters})
        if listener_port is not None:
            self.set(LDS, "services", listener("services", listener_port, "services"))
            routes = route_pb2.RouteConfiguration(name="services")
            for name in names:
                routes.virtual_hosts.append(_virtual_host(name, [name], cluster=_cluster_name(name)))
            self.set(RDS, "services", routes)

    # What the clients said

    def open_streams(self) -> list[RecordedStream]:
        return [stream for stream in list(self.streams) if stream.is_open]

    def acks(self, type_url: str) -> list[Any]:
        """Of all streams, oldest first."""
        return self._answers(type_url, is_nack=False)

    def nacks(self, type_url: str) -> list[Any]:
        return self._answers(type_url, is_nack=True)

    def requests(self, type_url: str) -> list[Any]:
        return [frame for stream in list(self.streams) for frame in stream.requests(type_url)]

    def _answers(self, type_url: str, *, is_nack: bool) -> list[Any]:
        with self._lock:
            streams = list(self.streams)
            return [each for stream in streams for each in stream.answers_of_client(type_url, is_nack=is_nack)]

    # Faults

    def end_streams(self, code: str = "ok", text: str = "") -> None:
        """All that are open, after what they were sent."""
        for stream in self.open_streams():
            stream.end(_code(code), text or f"fake istiod: {code}")

    def huge(self, size: int, type_url: str = CDS, name: str = "huge") -> None:
        """Sets, and so pushes, a resource of about that many bytes: a cluster Envoy accepts, else an unknown field."""
        if type_url == CDS:
            resource = cluster(name, 1)
            _pad(resource, size)
            self.set(type_url, name, resource)
        else:
            self.set(type_url, name, _unknown_field(size))

    def send_raw(self, response: bytes) -> None:
        """To all that are open, as a response, whatever it is."""
        for stream in self.open_streams():
            stream.outgoing.put(response)

    # Streams

    def handlers(self) -> Any:
        """For a grpc.Server."""
        by_method = {
            SOTW_METHOD: lambda requests, context: self._serve(_SOTW, requests, context),
            DELTA_METHOD: lambda requests, context: self._serve(_DELTA, requests, context),
        }
        methods: Any = {name: grpc.stream_stream_rpc_method_handler(each) for name, each in by_method.items()}
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def end_now(self) -> None:
        """The server stops: no stream waits any longer."""
        for stream in self.open_streams():
            stream.end(grpc.StatusCode.UNAVAILABLE, "fake istiod: it stops")

    def join(self) -> None:
        """Once the server has stopped: until no thread of ours is left."""
        with self._lock:
            readers = list(self._readers)
        for reader in readers:
            reader.join()

    def _serve(self, kind: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        stream = self._open(kind, context)
        if not context.add_callback(stream.close):
            stream.close()
        self._refuse(stream, context)
        reader = threading.Thread(target=self._read, args=(stream, requests), name="fake istiod's ADS reader")
        with self._lock:
            self._readers.add(reader)
        reader.start()
        while not isinstance(response := stream.outgoing.get(), _End):
            yield response if isinstance(response, bytes) else response.SerializeToString()
        if response.code is not grpc.StatusCode.OK:
            context.abort(response.code, response.text)

    def _open(self, kind: str, context: grpc.ServicerContext) -> RecordedStream:
        headers = {name: str(value) for name, value in context.invocation_metadata()}
        stream = RecordedStream(kind, headers, self._identity_of(context.peer()))
        if stream.token:
            confide(stream.token)
        with self._lock:
            stream.is_mute = self.hang
            self.streams.append(stream)
        return stream

    def _refuse(self, stream: RecordedStream, context: grpc.ServicerContext) -> None:
        refusal, required = self.refuse, self._required_token()
        if refusal is not None:
            context.abort(_code(refusal), f"fake istiod: {refusal}")
        if required is not None and stream.token != required:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "fake istiod: another token is required")

    def _read(self, stream: RecordedStream, requests: Iterator[bytes]) -> None:
        try:
            for body in requests:
                self._take(stream, body)
            stream.end()
        except grpc.RpcError:
            pass  # cancelled, by the client or by our stop
        except Exception as error:  # noqa: BLE001 - a bug of the fake is told to its client
            stream.end(grpc.StatusCode.INTERNAL, f"fake istiod: {error!r}")
        finally:
            with self._lock:
                self._readers.discard(threading.current_thread())

    def _take(self, stream: RecordedStream, body: bytes) -> None:
        stream.raw.append(body)
        kind = discovery_pb2.DiscoveryRequest if stream.kind == _SOTW else discovery_pb2.DeltaDiscoveryRequest
        request = kind.FromString(body)
        with self._lock:
            stream.frames.append(request)
            if not stream.is_mute:
                (self._take_sotw if stream.kind == _SOTW else self._take_delta)(stream, request)

    def _take_sotw(self, stream: RecordedStream, request: Any) -> None:
        type_url, names = request.type_url, set(request.resource_names)
        watch = stream.watches.get(type_url)
        if watch is None:
            # Whatever nonce the client brings along from another stream.
            is_wildcard = "*" in names or (not names and type_url not in BY_NAME_ONLY)
            watch = stream.watches[type_url] = _Watch(is_wildcard=is_wildcard, must_answer=True)
        elif request.HasField("error_detail") or request.response_nonce not in ("", watch.nonce):
            return  # rejected, or about a response that is not our last one
        must_answer = watch.must_answer or not request.response_nonce
        new = names - watch.names
        watch.names, watch.must_answer = names - {"*"}, False
        wanted = self._wanted(type_url, watch)
        if (must_answer and (wanted or type_url in ANSWERED_EMPTY)) or new & set(wanted):
            self._send(stream, type_url, wanted)

    def _take_delta(self, stream: RecordedStream, request: Any) -> None:
        type_url, new = request.type_url, set(request.resource_names_subscribe)
        watch = stream.watches.get(type_url)
        is_first = watch is None
        if watch is None:
            watch = stream.watches[type_url] = _Watch()
            watch.is_wildcard = not new and type_url not in BY_NAME_ONLY
        watch.is_wildcard = (watch.is_wildcard or "*" in new) and "*" not in request.resource_names_unsubscribe
        watch.names = (watch.names | (new - {"*"})) - set(request.resource_names_unsubscribe)
        wanted = self._wanted(type_url, watch)
        if is_first:
            # As istiod does: all of it, whatever versions the client has from another stream.
            gone = [name for name in request.initial_resource_versions if name not in wanted]
            if wanted or gone or type_url in ANSWERED_EMPTY:
                self._send(stream, type_url, wanted, gone)
        elif asked := [name for name in wanted if name in new or "*" in new]:
            self._send(stream, type_url, asked)

    # Responses; with the lock

    def _watching(self, type_url: str) -> list[tuple[RecordedStream, _Watch]]:
        return [(each, each.watches[type_url]) for each in self.streams if each.is_open and type_url in each.watches]

    def _wanted(self, type_url: str, watch: _Watch) -> list[str]:
        return [name for name in self._resources.get(type_url, {}) if watch.wants(name)]

    def _push(self, type_url: str, changed: Collection[str] = (), removed: Collection[str] = ()) -> None:
        for stream, watch in self._watching(type_url):
            mine = [name for name in changed if watch.wants(name)]
            gone = [name for name in removed if watch.wants(name)]
            if mine or gone:
                self._send(stream, type_url, self._wanted(type_url, watch) if stream.kind == _SOTW else mine, gone)

    def _send(self, stream: RecordedStream, type_url: str, names: Iterable[str], removed: Collection[str] = ()) -> None:
        self._nonces += 1
        nonce = f"nonce-{self._nonces}"
        stream.nonces[nonce] = type_url
        if watch := stream.watches.get(type_url):
            watch.nonce, watch.must_answer = nonce, False
        served = self._resources.get(type_url, {})
        resources = {name: served[name] for name in names}
        if type_url == self.garbage:
            resources = {"garbage": _Resource(GARBAGE, self._version)}
        make = self._sotw_response if stream.kind == _SOTW else self._delta_response
        stream.outgoing.put(make(type_url, nonce, resources, removed))
        if type_url == CDS and EDS in stream.watches:
            self._let_warm(stream, stream.watches[EDS], resources)
        if not stream.has_answered:
            stream.has_answered = True
            if self.unasked is not None:
                self._send(stream, self.unasked, list(self._resources.get(self.unasked, {})))

    def _let_warm(self, stream: RecordedStream, watch: _Watch, clusters: Collection[str]) -> None:
        """Envoy warms a cluster that it gets again: it asks for the endpoints again, but not in delta."""
        if stream.kind == _SOTW:
            watch.must_answer = True
        elif again := [name for name in self._wanted(EDS, watch) if name in clusters]:
            self._send(stream, EDS, again)

    def _sotw_response(
        self, type_url: str, nonce: str, resources: Mapping[str, _Resource], removed: Collection[str]
    ) -> Any:
        response = discovery_pb2.DiscoveryResponse(type_url=type_url, nonce=nonce, version_info=str(self._version))
        response.control_plane.identifier = "fake istiod"
        for resource in resources.values():
            response.resources.add(type_url=type_url, value=resource.value)
        return response

    def _delta_response(
        self, type_url: str, nonce: str, resources: Mapping[str, _Resource], removed: Collection[str]
    ) -> Any:
        response = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, nonce=nonce)
        response.system_version_info = str(self._version)
        response.control_plane.identifier = "fake istiod"
        response.removed_resources.extend(removed)
        for name, resource in resources.items():
            added = response.resources.add(name=name, version=str(resource.version))
            added.resource.type_url, added.resource.value = type_url, resource.value
        return response


# Resources that Envoy accepts


def cluster(name: str, port: int | None = None) -> Any:
    """Static, to 127.0.0.1:port; without a port its endpoints come by EDS."""
    made = cluster_pb2.Cluster(name=name)
    made.connect_timeout.seconds = 2
    if port is None:
        made.type = cluster_pb2.Cluster.EDS
        _over_ads(made.eds_cluster_config.eds_config)
    else:
        made.type = cluster_pb2.Cluster.STATIC
        made.load_assignment.CopyFrom(endpoints(name, port))
    return made


def endpoints(name: str, *ports: int) -> Any:
    """Of the cluster with that name, at 127.0.0.1."""
    made = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    locality = made.endpoints.add()
    for port in ports:
        _address(locality.lb_endpoints.add().endpoint.address, port)
    return made


def route(name: str, *, cluster: str | None = None, answer: str = "fake istiod") -> Any:
    """Every request goes to the cluster; without one it is answered with 200 and `answer`."""
    made = route_pb2.RouteConfiguration(name=name)
    made.virtual_hosts.append(_virtual_host("all", ["*"], cluster, answer))
    return made


def listener(name: str, port: int, route: Any = None) -> Any:
    """HTTP at 127.0.0.1:port. `route`: a name, for RDS; or a route configuration; None answers with the name."""
    manager = http_connection_manager_pb2.HttpConnectionManager(stat_prefix=name)
    router = manager.http_filters.add(name="envoy.filters.http.router")
    router.typed_config.Pack(router_pb2.Router())
    if isinstance(route, str):
        manager.rds.route_config_name = route
        _over_ads(manager.rds.config_source)
    else:
        manager.route_config.CopyFrom(_answering(name) if route is None else route)
    made = listener_pb2.Listener(name=name)
    _address(made.address, port)
    network_filter = made.filter_chains.add().filters.add(name="envoy.filters.network.http_connection_manager")
    network_filter.typed_config.Pack(manager)
    return made


def _answering(name: str) -> Any:
    return route(name, answer=name)


def _virtual_host(name: str, domains: list[str], cluster: str | None = None, answer: str = "") -> Any:
    made = route_components_pb2.VirtualHost(name=name, domains=domains)
    only = made.routes.add()
    only.match.prefix = "/"
    if cluster is not None:
        only.route.cluster = cluster
    else:
        only.direct_response.status = 200
        only.direct_response.body.inline_string = answer
    return made


def _over_ads(source: Any) -> None:
    source.ads.SetInParent()
    source.resource_api_version = 2  # V3


def _address(address: Any, port: int) -> None:
    address.socket_address.address, address.socket_address.port_value = HOST, port


def _cluster_name(service: str) -> str:
    return f"outbound|80||{service}"


def _pad(made: Any, size: int) -> None:
    made.metadata.filter_metadata["istio"]["padding"] = "x" * size


def _unknown_field(size: int) -> bytes:
    """Bytes that any message parses, as its field 1000."""
    return _varint(1000 << 3 | 2) + _varint(size) + b"x" * size


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _code(name: str) -> grpc.StatusCode:
    return grpc.StatusCode[name.upper()]
