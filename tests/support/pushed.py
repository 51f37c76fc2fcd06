"""What istiod pushes to a sidecar, cut down to one resource of each kind, with Istio's filters as they are by default.

After a recording of a real istiod, whose metadata exchange, ALPN and telemetry filters were off, and the istiod source
for these (pilot/pkg/xds/filters). Each `is_stock=True` is what is to be left for an Envoy that isn't Istio's build.
"""

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

# What a dict names in `@type` must be in protobuf's registry before.
from envoy.extensions.access_loggers.file.v3 import file_pb2 as _file  # noqa: F401
from envoy.extensions.filters.http.cors.v3 import cors_pb2 as _cors  # noqa: F401
from envoy.extensions.filters.http.fault.v3 import fault_pb2 as _fault  # noqa: F401
from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2 as _grpc_stats  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2 as _router  # noqa: F401
from envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2 as _codec  # noqa: F401
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2 as _http_inspector  # noqa: F401
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2 as _tls_inspector  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2 as _tcp_proxy  # noqa: F401
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2 as _raw_buffer  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2 as _tls  # noqa: F401
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as _options  # noqa: F401
from google.protobuf import any_pb2, json_format
from udpa.type.v1 import typed_struct_pb2 as _typed_struct  # type: ignore[import-untyped]  # noqa: F401

GOOGLE = "type.googleapis.com/"
LISTENER, ROUTES, CLUSTER = (
    f"{GOOGLE}envoy.config.{name}"
    for name in ("listener.v3.Listener", "route.v3.RouteConfiguration", "cluster.v3.Cluster")
)
ALPN = any_pb2.Any(
    type_url=f"{GOOGLE}istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    value=b"\x0a\x1c\x08\x01\x12\x0eistio-http/1.1\x12\x08http/1.1",
)
"""The one that istiod sends as the message itself, and that is in nobody's generated code."""


def typed_struct(message: str, **value: Any) -> dict[str, Any]:
    return {"@type": f"{GOOGLE}udpa.type.v1.TypedStruct", "type_url": f"{GOOGLE}{message}", "value": value}


def entry(name: str, message: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{GOOGLE}{message}", **fields}}


def istios(name: str, message: str, **value: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": typed_struct(message, **value)}


def http_metadata() -> dict[str, Any]:
    return istios(
        "istio.metadata_exchange",
        "io.istio.http.peer_metadata.Config",
        downstream_discovery=[{"istio_headers": {}}, {"workload_discovery": {}}],
        downstream_propagation=[{"istio_headers": {}}],
    )


def tcp_metadata() -> dict[str, Any]:
    return istios(
        "istio.metadata_exchange",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        protocol="istio-peer-exchange",
        enable_discovery=True,
    )


def stats() -> dict[str, Any]:
    return istios("istio.stats", "stats.PluginConfig", disable_host_header_fallback=True)


def access_log() -> list[dict[str, Any]]:
    return [
        entry("envoy.access_loggers.file", "envoy.extensions.access_loggers.file.v3.FileAccessLog", path="/dev/null")
    ]


def secret(name: str) -> dict[str, Any]:
    source = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds"}}],
    }
    return {
        "name": name,
        "sds_config": {"api_config_source": source, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
    }


def tls(direction: str, alpn: list[str], *, is_stock: bool) -> dict[str, Any]:
    exchange = [] if is_stock else ["istio-peer-exchange"]
    common = {
        "alpn_protocols": exchange + alpn,
        "tls_certificate_sds_secret_configs": [secret("default")],
        "validation_context_sds_secret_config": secret("ROOTCA"),
    }
    message = f"envoy.extensions.transport_sockets.tls.v3.{direction}TlsContext"
    return entry("envoy.transport_sockets.tls", message, common_tls_context=common)


def manager(*, is_stock: bool) -> dict[str, Any]:
    http = "envoy.extensions.filters.http"
    filters = [
        entry("envoy.filters.http.grpc_stats", f"{http}.grpc_stats.v3.FilterConfig", emit_filter_state=True),
        entry("envoy.filters.http.fault", f"{http}.fault.v3.HTTPFault"),
        entry("envoy.filters.http.cors", f"{http}.cors.v3.Cors"),
    ]
    if not is_stock:
        filters = [http_metadata(), *filters, stats()]
    router = entry("envoy.filters.http.router", f"{http}.router.v3.Router")
    return entry(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="inbound_0.0.0.0_8080;",
        route_config=routes_dict(is_stock=is_stock),
        http_filters=[*filters, router],
        access_log=access_log(),
        upgrade_configs=[{"upgrade_type": "websocket", "filters": [*([] if is_stock else [stats()]), router]}],
    )


def tcp(*, is_stock: bool) -> list[dict[str, Any]]:
    proxy = entry(
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix="InboundPassthroughCluster",
        cluster="inbound|8080||",
        access_log=access_log(),
    )
    return [proxy] if is_stock else [tcp_metadata(), stats(), proxy]


def listener(*, is_stock: bool = False) -> Any:
    """virtualInbound: HTTP and TCP behind mTLS, and a default chain."""
    inbound = [
        {
            "name": "0.0.0.0_8080",
            "filter_chain_match": {
                "transport_protocol": "tls",
                "application_protocols": ["istio-http/1.0", "istio-http/1.1", "istio-h2"],
            },
            "filters": [*([] if is_stock else [tcp_metadata()]), manager(is_stock=is_stock)],
            "transport_socket": tls("Downstream", ["h2", "http/1.1"], is_stock=is_stock),
        },
        {
            "name": "virtualInbound",
            # The match stays: a peer that offers the exchange is to find its chain, and to hear no.
            "filter_chain_match": {
                "transport_protocol": "tls",
                "application_protocols": ["istio-peer-exchange", "istio"],
            },
            "filters": tcp(is_stock=is_stock),
            "transport_socket": tls("Downstream", ["h2", "http/1.1"], is_stock=is_stock),
        },
    ]
    inspectors = [
        entry(f"envoy.filters.listener.{name}", f"envoy.extensions.filters.listener.{name}.v3.{message}")
        for name, message in (("tls_inspector", "TlsInspector"), ("http_inspector", "HttpInspector"))
    ]
    made: Any = json_format.ParseDict(
        {
            "name": "virtualInbound",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": inbound,
            "default_filter_chain": {"filters": tcp(is_stock=is_stock), "name": "virtualInbound-default"},
            "listener_filters": inspectors,
            "access_log": access_log(),
            "traffic_direction": "INBOUND",
        },
        listener_pb2.Listener(),
    )
    if not is_stock:
        _add_alpn(made.filter_chains[0].filters[1].typed_config)
    return made


def _add_alpn(packed: Any) -> None:
    """In front of the router, as istiod has it."""
    unpacked = hcm.HttpConnectionManager.FromString(packed.value)
    router = unpacked.http_filters.pop()
    unpacked.http_filters.add(name="istio.alpn", typed_config=ALPN)
    unpacked.http_filters.append(router)
    packed.value = unpacked.SerializeToString(deterministic=True)


def routes_dict(*, is_stock: bool) -> dict[str, Any]:
    """Overrides at every level, such as an EnvoyFilter makes them."""
    cors = {
        "envoy.filters.http.cors": {
            "@type": f"{GOOGLE}envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "expose_headers": "x-a",
        }
    }
    wrapped = {"@type": f"{GOOGLE}envoy.config.route.v3.FilterConfig", "config": typed_struct("stats.PluginConfig")}
    overrides = cors if is_stock else {**cors, "istio.stats": typed_struct("stats.PluginConfig")}
    weighted = [
        {
            "name": "inbound|8080||",
            "weight": 1,
            "typed_per_filter_config": cors if is_stock else {**cors, "istio.stats": wrapped},
        }
    ]
    route = {
        "match": {"prefix": "/"},
        "route": {"weighted_clusters": {"clusters": weighted}},
        "typed_per_filter_config": overrides,
    }
    host = {
        "name": "inbound|http|8080",
        "domains": ["*"],
        "routes": [route, {"match": {"prefix": "/"}, "redirect": {"path_redirect": "/x"}}],
        "typed_per_filter_config": overrides,
    }
    return {"name": "8000", "virtual_hosts": [host], "typed_per_filter_config": overrides}


def routes(*, is_stock: bool = False) -> Any:
    return json_format.ParseDict(routes_dict(is_stock=is_stock), route_pb2.RouteConfiguration())


def cluster(*, is_stock: bool = False) -> Any:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    codec = entry("envoy.filters.http.upstream_codec", "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")
    made: Any = json_format.ParseDict(
        {
            "name": "outbound|8000||httpbin.demo.svc.cluster.local",
            "type": "STATIC",
            "connect_timeout": "10s",
            "filters": [] if is_stock else [tcp_metadata()],
            "metadata": {"filter_metadata": {"istio": {"services": [{"host": "httpbin.demo.svc.cluster.local"}]}}},
            "typed_extension_protocol_options": {
                options: {
                    "@type": GOOGLE + options,
                    "explicit_http_config": {"http2_protocol_options": {}},
                    "http_filters": [*([] if is_stock else [http_metadata()]), codec],
                }
            },
            "transport_socket_matches": [
                {
                    "name": "tlsMode-istio",
                    "match": {"tlsMode": "istio"},
                    "transport_socket": tls("Upstream", ["istio"], is_stock=is_stock),
                },
                {
                    "name": "tlsMode-disabled",
                    "match": {},
                    "transport_socket": entry(
                        "envoy.transport_sockets.raw_buffer",
                        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
                    ),
                },
            ],
        },
        cluster_pb2.Cluster(),
    )
    return made
