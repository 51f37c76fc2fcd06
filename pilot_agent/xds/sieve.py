"""Where Istio's own extensions can stand in listeners, routes, clusters and extension configs, and taking them out.

Imports Envoy's generated code, some MiB of it: `stock` does so late, for a response that may have any of them. Unknown
fields and messages beside them survive.
"""

from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2
from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from udpa.type.v1 import typed_struct_pb2  # type: ignore[import-untyped]

from pilot_agent.xds.stock import PEER_EXCHANGE, TCP_METADATA_EXCHANGE, Part

_TYPED_STRUCTS = ("udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct")
_UNTYPED = frozenset(
    (
        "",
        "google.protobuf.Empty",
        "google.protobuf.Struct",
        # Istio's filters once were Wasm modules compiled into its Envoy.
        "envoy.extensions.filters.http.wasm.v3.Wasm",
        "envoy.extensions.filters.network.wasm.v3.Wasm",
    )
)


class Sifted(NamedTuple):
    """A resource without what was `found` (the part, and by which name), and where that was."""

    encoded: bytes
    where: str
    found: list[tuple[Part, str]]


def sifted(parts: tuple[Part, ...], type_url: str, resource: bytes) -> Sifted | None:
    """None for a resource without finds, and for one that can't be read."""
    make, sift, what = _KINDS[type_url]
    sieve = _Sieve(parts)
    try:
        message = make.FromString(resource)
        sift(sieve, message)
    except (DecodeError, RecursionError):
        return None
    return Sifted(_encoded(message), f"{what} {message.name}", sieve.found) if sieve.found else None


def sifted_response(encoded: bytes, sift: Callable[[str, bytes], bytes], *, is_delta: bool) -> bytes:
    """A response with each resource's value as `sift(type, value)` gives it; the same object when that changes none."""
    kind = discovery_pb2.DeltaDiscoveryResponse if is_delta else discovery_pb2.DiscoveryResponse
    try:
        response: Any = kind.FromString(encoded)
    except DecodeError:
        return encoded
    is_changed = False
    for each in response.resources:
        packed = each.resource if is_delta else each
        before = packed.value
        after = sift(packed.type_url, before)
        if after is not before:
            packed.value, is_changed = after, True
    return _encoded(response) if is_changed else encoded


class _Sieve:
    """What is found in one resource, taken out of it; a resource without finds was not changed."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._messages = tuple((message, part) for part in parts for message in part.messages)
        self._names = {name: part for part in reversed(parts) for name in part.names}
        self._speaks_peer_exchange = TCP_METADATA_EXCHANGE not in parts
        self.found: list[tuple[Part, str]] = []

    def listener(self, listener: Any) -> None:
        self._entries(listener.listener_filters)
        self._entries(listener.access_log)
        for chain in listener.filter_chains:
            self._chain(chain)
        if listener.HasField("default_filter_chain"):
            self._chain(listener.default_filter_chain)

    def routes(self, routes: Any) -> None:
        self._overrides(routes.typed_per_filter_config)
        for host in routes.virtual_hosts:
            self._overrides(host.typed_per_filter_config)
            for route in host.routes:
                self._overrides(route.typed_per_filter_config)
                for cluster in route.route.weighted_clusters.clusters:
                    self._overrides(cluster.typed_per_filter_config)

    def cluster(self, cluster: Any) -> None:
        self._entries(cluster.filters)
        self._overrides(cluster.typed_extension_protocol_options)
        for packed in cluster.typed_extension_protocol_options.values():
            self._inside(packed)
        for match in cluster.transport_socket_matches:
            self._inside(match.transport_socket.typed_config)
        self._inside(cluster.transport_socket.typed_config)

    def extension(self, extension: Any) -> None:
        # One that is Istio's itself stays: there is nothing to put in its place, and Envoy says so to istiod.
        self._inside(extension.typed_config)

    def manager(self, manager: Any) -> None:
        self._entries(manager.http_filters)
        self._entries(manager.access_log)
        for upgrade in manager.upgrade_configs:
            self._entries(upgrade.filters)
        self.routes(manager.route_config)
        for scope in manager.scoped_routes.scoped_route_configurations_list.scoped_route_configurations:
            self.routes(scope.route_configuration)

    def tcp_proxy(self, proxy: Any) -> None:
        self._entries(proxy.access_log)

    def upstream_options(self, options: Any) -> None:
        self._entries(options.http_filters)

    def tls(self, context: Any) -> None:
        """Who agrees on the exchange and has no filter for it takes the peer's metadata for the application's data.

        istiod leaves the protocol out of these same lists when it is told to do without metadata exchange.
        """
        protocols = context.common_tls_context.alpn_protocols
        if not self._speaks_peer_exchange and PEER_EXCHANGE in protocols:
            protocols[:] = [each for each in protocols if each != PEER_EXCHANGE]
            self.found.append((TCP_METADATA_EXCHANGE, PEER_EXCHANGE))

    def socket_around(self, socket: Any) -> None:
        self._inside(socket.transport_socket.typed_config)

    def _chain(self, chain: Any) -> None:
        self._entries(chain.filters)
        for each in chain.filters:
            self._inside(each.typed_config)
        self._inside(chain.transport_socket.typed_config)

    def _inside(self, packed: Any) -> None:
        """What an Any holds, written back only where something was found in it."""
        known = _INSIDE.get(_message_name(packed.type_url))
        if known is None:
            return
        make, sift = known
        message, before = make.FromString(packed.value), len(self.found)
        sift(self, message)
        if len(self.found) > before:
            packed.value = _encoded(message)

    def _entries(self, entries: Any) -> None:
        """Filters and access loggers: `name` with `typed_config`, or with `config_discovery`: it comes by ECDS."""
        for position in reversed(range(len(entries))):
            entry = entries[position]
            discovery = getattr(entry, "config_discovery", None)
            if discovery is not None and discovery.type_urls:
                is_gone = self._is_gone(entry.name, {_message_name(each) for each in discovery.type_urls})
            else:
                is_gone = self._is_gone(entry.name, {_configured_by(entry.typed_config)})
            if is_gone:
                del entries[position]

    def _overrides(self, configs: MutableMapping[str, Any]) -> None:
        """Configs by the name of the filter that they are for."""
        for name in sorted(configs):
            if self._is_gone(name, {_configured_by(configs[name])}):
                del configs[name]

    def _is_gone(self, name: str, messages: set[str]) -> bool:
        """Whether none of the messages that can configure it can be loaded; the find is noted."""
        parts = [self._part(name, message) for message in sorted(messages)]
        first = parts[0]
        if first is None or None in parts:
            return False
        message = min(messages)
        self.found.append((first, name if message in _UNTYPED else f"{name} ({message})"))
        return True

    def _part(self, name: str, message: str) -> Part | None:
        # Envoy too goes by the message, whatever the name is, and asks the name where no message tells.
        if message in _UNTYPED:
            return self._names.get(name)
        return next((part for known, part in self._messages if message.startswith(known)), None)


def _configured_by(packed: Any) -> str:
    """The name of the message inside of an Any, and inside of what Istio and routes wrap it in."""
    name = _message_name(packed.type_url)
    if name in _TYPED_STRUCTS:  # both have the same fields
        return _message_name(typed_struct_pb2.TypedStruct.FromString(packed.value).type_url)
    if name == route_components_pb2.FilterConfig.DESCRIPTOR.full_name:
        return _configured_by(route_components_pb2.FilterConfig.FromString(packed.value).config)
    return name


def _message_name(type_url: str) -> str:
    return type_url.rpartition("/")[2]


def _encoded(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded


_Sift = Callable[[_Sieve, Any], None]

_KINDS: dict[str, tuple[Any, _Sift, str]] = {
    f"type.googleapis.com/{make.DESCRIPTOR.full_name}": (make, sift, what)
    for make, sift, what in (
        (listener_pb2.Listener, _Sieve.listener, "listener"),
        (route_pb2.RouteConfiguration, _Sieve.routes, "route configuration"),
        (cluster_pb2.Cluster, _Sieve.cluster, "cluster"),
        (extension_pb2.TypedExtensionConfig, _Sieve.extension, "extension config"),
    )
}

_INSIDE: dict[str, tuple[Any, _Sift]] = {
    make.DESCRIPTOR.full_name: (make, sift)
    for make, sift in (
        (http_connection_manager_pb2.HttpConnectionManager, _Sieve.manager),
        (tcp_proxy_pb2.TcpProxy, _Sieve.tcp_proxy),
        (http_protocol_options_pb2.HttpProtocolOptions, _Sieve.upstream_options),
        (tls_pb2.UpstreamTlsContext, _Sieve.tls),
        (tls_pb2.DownstreamTlsContext, _Sieve.tls),
        (internal_upstream_pb2.InternalUpstreamTransport, _Sieve.socket_around),
        (upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport, _Sieve.socket_around),
    )
}
