"""Which parts of a push a stock Envoy doesn't get, and that it gets everything else as istiod sent it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.log import Level
from pilot_agent.xds.stock import HINTS, PARTS, PEER_EXCHANGE, StockFilter
from tests.support.pushed import CLUSTER, GOOGLE, LISTENER, ROUTES, cluster, listener, routes
from tests.support.recorded_log import RecordedLog

EXTENSION = f"{GOOGLE}envoy.config.core.v3.TypedExtensionConfig"
ENDPOINTS = f"{GOOGLE}envoy.config.endpoint.v3.ClusterLoadAssignment"
PUSHED = {LISTENER: listener, ROUTES: routes, CLUSTER: cluster}
EXTENSIONS = {name for part in PARTS for name in part.extensions}
ASKS = "a policy in it asks for what"
FINDS_OUT = (
    "finds out, this Envoy is not Istio's build and doesn't have it, and without it a DENY would let everybody through"
)
UNKNOWN = b"\xfa\xff\x03\x05later"
"""A field of a future version: number 8191, 5 bytes."""


class Stand:
    def __init__(self, missing: Callable[[str], bool] = lambda name: True) -> None:
        self.log = RecordedLog()
        self.left_out: Counter[str] = Counter()
        self.stock = StockFilter(missing, self.left_out, self.log.scope)

    def after(self, message: Any) -> Any:
        """The message as it comes out; it went in whole."""
        encoded = self.stock.resource(GOOGLE + message.DESCRIPTOR.full_name, message.SerializeToString())
        return type(message).FromString(encoded)

    def keeps(self, message: Any) -> bool:
        encoded = message.SerializeToString()
        return self.stock.resource(GOOGLE + message.DESCRIPTOR.full_name, encoded) is encoded


@pytest.fixture
def stand() -> Stand:
    return Stand()


def _cause(config: Any) -> str:
    name = config.type_url if "udpa" not in config.type_url else config.value[2:].decode()
    return f"istio_authn ({name.removeprefix(GOOGLE)})"


def encoded(message: Any) -> bytes:
    made: bytes = message.SerializeToString(deterministic=True)
    return made


def packed(message: Any) -> Any:
    return any_pb2.Any(type_url=GOOGLE + message.DESCRIPTOR.full_name, value=encoded(message))


def typed(name: str, value: bytes = b"") -> Any:
    return any_pb2.Any(type_url=GOOGLE + name, value=value)


def struct(name: str, kind: str = "udpa.type.v1.TypedStruct") -> Any:
    """A TypedStruct around a message of this name, by hand: field 1 is the type_url."""
    url = (GOOGLE + name).encode()
    return typed(kind, b"\x0a" + bytes([len(url)]) + url)


def with_filter(name: str, config: Any = None) -> Any:
    made = listener_pb2.Listener(name="a")
    made.filter_chains.add().filters.add(name=name, typed_config=config)
    return made


# What istiod pushes


@pytest.mark.parametrize("type_url", PUSHED)
def test_a_push_comes_out_as_istiod_would_have_made_it_for_a_stock_envoy(stand: Stand, type_url: str) -> None:
    made = PUSHED[type_url]
    assert stand.stock.resource(type_url, encoded(made())) == encoded(made(is_stock=True))


@pytest.mark.parametrize("type_url", PUSHED)
def test_what_is_fit_for_a_stock_envoy_stays_the_same_object(stand: Stand, type_url: str) -> None:
    resource = encoded(PUSHED[type_url](is_stock=True))
    assert stand.stock.resource(type_url, resource) is resource
    assert not stand.left_out
    assert not stand.log.lines


def test_counts_are_by_what_was_left_out(stand: Stand) -> None:
    stand.after(listener())
    assert stand.left_out == {
        "TCP metadata exchange": 3,
        "HTTP peer metadata": 1,
        "telemetry": 8,
        "ALPN override": 1,
        PEER_EXCHANGE: 2,
    }


def test_each_kind_of_thing_is_logged_once_with_where_it_was(stand: Stand) -> None:
    for _ in range(3):
        stand.after(cluster())
    assert [line.split(" is left out")[0] for line in stand.log.lines] == [
        f"info cluster {cluster().name}: {what}"
        for what in (
            "istio.metadata_exchange (envoy.tcp.metadataexchange.config.MetadataExchange)",
            "istio.metadata_exchange (io.istio.http.peer_metadata.Config)",
            PEER_EXCHANGE,
        )
    ]
    assert stand.left_out[PEER_EXCHANGE] == 3


def test_what_changes_traffic_is_a_warning_that_says_what_is_not_done(stand: Stand) -> None:
    stand.after(with_filter("forward_downstream_sni"))
    assert stand.log.lines == [
        "warn listener a: forward_downstream_sni is left out, here and elsewhere: this Envoy is not Istio's build and "
        "doesn't have it, so an upstream isn't sent the SNI that came in (--stockEnvoy=false keeps it)"
    ]


# What guards traffic stays, and Envoy refuses it


def with_policy(authn: Any, principal: Any) -> Any:
    """A listener that finds out who the peer is, and denies by that."""
    rules = rbac_pb2.RBAC(action=rbac_pb2.RBAC.DENY)
    rules.policies["deny"].principals.append(principal)
    made = listener_pb2.Listener(name="a")
    chain = made.filter_chains.add()
    chain.filters.add(name="istio_authn", typed_config=authn)
    chain.filters.add(name="rbac", typed_config=packed(network_rbac_pb2.RBAC(rules=rules)))
    chain.filters.add(name="istio.stats", typed_config=typed("stats.PluginConfig"))
    return made


def by_filter_state() -> Any:
    principal = rbac_pb2.Principal()
    principal.filter_state.key = "io.istio.peer_principal"
    principal.filter_state.string_match.exact = "spiffe://cluster.local/ns/foo/sa/evil"
    return principal


def by_metadata() -> Any:
    principal = rbac_pb2.Principal()
    principal.metadata.filter = "istio_authn"
    return principal


def by_certificate() -> Any:
    principal = rbac_pb2.Principal()
    principal.authenticated.principal_name.exact = "spiffe://cluster.local/ns/foo/sa/evil"
    return principal


@pytest.mark.parametrize(
    ("authn", "principal"),
    [
        (typed("io.istio.network.authn.Config"), by_filter_state()),
        (struct("io.istio.network.tlv_authn.Config"), by_filter_state()),
        (typed("istio.envoy.config.filter.http.authn.v2alpha1.FilterConfig"), by_metadata()),
    ],
    ids=["filter state", "proxy protocol", "metadata"],
)
def test_a_policy_that_needs_what_would_be_left_out_keeps_the_resource_whole(
    stand: Stand, authn: Any, principal: Any
) -> None:
    made = with_policy(authn, principal)
    assert stand.keeps(made)
    assert stand.keeps(made)
    assert not stand.left_out
    assert stand.log.lines == [
        f"error listener a stays as istiod sent it, and Envoy will refuse it: {ASKS} {_cause(authn)} {FINDS_OUT}"
    ]


def test_a_policy_that_goes_by_the_certificate_needs_none_of_it(stand: Stand) -> None:
    after = stand.after(with_policy(typed("io.istio.network.authn.Config"), by_certificate()))
    assert [each.name for each in after.filter_chains[0].filters] == ["rbac"]
    assert stand.left_out == {"TCP authentication": 1, "telemetry": 1}


@pytest.mark.parametrize("message", ["io.istio.tcp.sni_verifier.v1.Config", "io.istio.network.invented.Config"])
def test_what_compares_names_and_what_nobody_knows_is_left_to_envoy(stand: Stand, message: str) -> None:
    assert stand.keeps(with_filter("x", typed(message)))


# Which binary lacks what


def test_a_binary_that_has_everything_gets_everything() -> None:
    stand = Stand(lambda name: False)
    assert all(stand.keeps(made()) for made in PUSHED.values())


def test_only_what_is_missing_is_left_out() -> None:
    has = EXTENSIONS - {"istio.alpn", "envoy.filters.http.alpn"}
    stand = Stand(lambda name: name not in has)
    (chain, other) = stand.after(listener()).filter_chains
    assert stand.left_out == {"ALPN override": 1}
    assert [each.name for each in other.filters] == [each.name for each in listener().filter_chains[1].filters]
    context = tls_pb2.DownstreamTlsContext.FromString(chain.transport_socket.typed_config.value)
    assert PEER_EXCHANGE in context.common_tls_context.alpn_protocols


# By message and by name


@pytest.mark.parametrize(
    "config",
    [
        typed("stats.PluginConfig"),
        struct("stats.PluginConfig"),
        struct("stats.PluginConfig", "xds.type.v3.TypedStruct"),
        typed("istio.envoy.config.filter.network.tcp_cluster_rewrite.v2alpha1.TcpClusterRewrite"),
        typed("io.istio.tcp.forward_downstream_sni.v1.Config"),
        typed("envoy.extensions.network_filters.peer_metadata.Config"),
    ],
    ids=lambda config: config.type_url,
)
def test_the_message_decides_whatever_the_name_is(stand: Stand, config: Any) -> None:
    assert not stand.after(with_filter("my-own", config)).filter_chains[0].filters


@pytest.mark.parametrize(
    "config",
    [typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"), struct("envoy.config.of.Ours"), typed("x.Y")],
    ids=["known", "wrapped", "unknown"],
)
def test_a_name_of_istios_does_not_take_out_a_filter_of_another_message(stand: Stand, config: Any) -> None:
    assert stand.keeps(with_filter("istio.stats", config))


@pytest.mark.parametrize("name", sorted({name for part in PARTS for name in part.names}))
@pytest.mark.parametrize("message", ["", "google.protobuf.Empty", "envoy.extensions.filters.network.wasm.v3.Wasm"])
def test_the_name_decides_where_no_message_tells(stand: Stand, name: str, message: str) -> None:
    made = with_filter(name, typed(message) if message else None)
    assert not stand.after(made).filter_chains[0].filters
    assert stand.keeps(with_filter(f"not-{name.replace('.', '-')}", typed(message) if message else None))


def test_every_message_of_the_table_is_found(stand: Stand) -> None:
    for part in PARTS:
        for message in part.messages:
            made = with_filter("x", typed(message + "Config" if message.endswith(".") else message))
            assert not stand.after(made).filter_chains[0].filters, message


def test_a_filter_that_comes_by_ecds_goes_when_all_its_types_are_istios(stand: Stand) -> None:
    made = listener_pb2.Listener(name="a")
    (first, second) = (made.filter_chains.add().filters.add(name="x") for _ in range(2))
    first.config_discovery.type_urls.append(f"{GOOGLE}stats.PluginConfig")
    second.config_discovery.type_urls.extend([f"{GOOGLE}stats.PluginConfig", f"{GOOGLE}envoy.config.Other"])
    assert [len(chain.filters) for chain in stand.after(made).filter_chains] == [0, 1]


# Where they can stand


def test_listener_filters_and_access_loggers(stand: Stand) -> None:
    logger = accesslog_pb2.AccessLog(name="x", typed_config=typed("stats.PluginConfig"))
    kept = accesslog_pb2.AccessLog(name="envoy.access_loggers.stdout", typed_config=typed("envoy.Stdout"))
    made = listener_pb2.Listener(name="a", access_log=[logger, kept])
    made.listener_filters.add(
        name="exchange", typed_config=struct("envoy.tcp.metadataexchange.config.MetadataExchange")
    )
    for config in (
        tcp_proxy_pb2.TcpProxy(access_log=[kept, logger]),
        http_connection_manager_pb2.HttpConnectionManager(access_log=[kept, logger]),
    ):
        made.filter_chains.add().filters.add(name="f", typed_config=packed(config))
    after = stand.after(made)
    assert not after.listener_filters
    assert list(after.access_log) == [kept]
    (tcp, http) = (chain.filters[0].typed_config.value for chain in after.filter_chains)
    assert list(tcp_proxy_pb2.TcpProxy.FromString(tcp).access_log) == [kept]
    assert list(http_connection_manager_pb2.HttpConnectionManager.FromString(http).access_log) == [kept]


def test_scoped_routes_of_a_listener(stand: Stand) -> None:
    manager = http_connection_manager_pb2.HttpConnectionManager()
    scope = manager.scoped_routes.scoped_route_configurations_list.scoped_route_configurations.add(name="s")
    scope.route_configuration.CopyFrom(routes())
    after = stand.after(with_filter("http", packed(manager))).filter_chains[0].filters[0].typed_config.value
    scope.route_configuration.CopyFrom(routes(is_stock=True))
    assert http_connection_manager_pb2.HttpConnectionManager.FromString(after) == manager


def test_an_override_that_only_says_disabled_goes_by_the_name(stand: Stand) -> None:
    made = route_pb2.RouteConfiguration(name="r")
    disabled = packed(route_components_pb2.FilterConfig(disabled=True))
    for name in ("istio.stats", "envoy.filters.http.cors"):
        made.typed_per_filter_config[name].CopyFrom(disabled)
    assert list(stand.after(made).typed_per_filter_config) == ["envoy.filters.http.cors"]


def test_the_peer_exchange_is_not_offered_through_other_sockets_either(stand: Stand) -> None:
    context = tls_pb2.UpstreamTlsContext(sni="a")
    context.common_tls_context.alpn_protocols.extend([PEER_EXCHANGE, "istio", "h2"])
    outer = internal_upstream_pb2.InternalUpstreamTransport()
    outer.transport_socket.typed_config.CopyFrom(packed(context))
    made = cluster_pb2.Cluster(name="c")
    made.transport_socket.typed_config.CopyFrom(packed(outer))
    after = internal_upstream_pb2.InternalUpstreamTransport.FromString(
        stand.after(made).transport_socket.typed_config.value
    )
    context.common_tls_context.alpn_protocols[:] = ["istio", "h2"]
    assert tls_pb2.UpstreamTlsContext.FromString(after.transport_socket.typed_config.value) == context


def test_an_extension_config_is_filtered_inside_and_stays_when_it_is_istios_itself(stand: Stand) -> None:
    whole = listener().filter_chains[0].filters[1].typed_config
    made = extension_pb2.TypedExtensionConfig(name="http", typed_config=whole)
    expected = listener(is_stock=True).filter_chains[0].filters[0].typed_config
    assert stand.after(made).typed_config == expected
    assert stand.keeps(extension_pb2.TypedExtensionConfig(name="x", typed_config=struct("stats.PluginConfig")))


# What must survive


def test_unknown_fields_and_messages_survive_beside_what_is_left_out(stand: Stand) -> None:
    odd = typed("of.the.Future", b"\xff\xff not protobuf")
    manager = http_connection_manager_pb2.HttpConnectionManager.FromString(UNKNOWN)
    manager.http_filters.add(name="odd", typed_config=odd)
    manager.http_filters.add(name="istio.stats", typed_config=struct("stats.PluginConfig"))
    inner = listener_components_pb2.Filter.FromString(UNKNOWN)
    inner.name = "http"
    inner.typed_config.CopyFrom(packed(manager))
    made = listener_pb2.Listener.FromString(UNKNOWN)
    made.name = "a"
    made.filter_chains.add().filters.append(inner)
    del manager.http_filters[1]
    after = stand.after(made)
    assert stand.left_out == {"telemetry": 1}
    made.filter_chains[0].filters[0].typed_config.CopyFrom(packed(manager))
    assert encoded(after) == encoded(made)
    assert encoded(made).count(UNKNOWN) == 3


@given(
    type_url=st.sampled_from([LISTENER, ROUTES, CLUSTER, EXTENSION, ENDPOINTS, "", "x"]),
    resource=st.binary(),
    has_marker=st.booleans(),
)
def test_bytes_of_any_kind_come_back_the_same_object(type_url: str, resource: bytes, has_marker: bool) -> None:
    stand = Stand()
    given_bytes = resource + b"/stats.PluginConfig istio.stats" if has_marker else resource
    assert stand.stock.resource(type_url, given_bytes) is given_bytes
    for is_delta in (False, True):
        assert stand.stock.response(type_url, given_bytes, is_delta=is_delta) is given_bytes
    assert not stand.left_out


@given(st.text(), st.lists(st.text(), max_size=4))
def test_a_resource_that_only_speaks_of_istio_comes_back_the_same_object(name: str, names: list[str]) -> None:
    made = with_filter(name, typed("x.Y", b"/stats.PluginConfig"))
    made.metadata.filter_metadata["istio.stats"].CopyFrom(
        struct_pb2.Struct(fields={each: struct_pb2.Value(string_value="istio.alpn") for each in names})
    )
    assert Stand().keeps(made)


def test_a_resource_with_a_malformed_part_is_passed_on_untouched_and_not_counted(stand: Stand) -> None:
    made = listener()
    made.filter_chains[1].filters[-1].typed_config.value = b"\xff"
    assert stand.keeps(made)
    assert not stand.left_out


def test_sockets_nested_without_end_are_passed_on(stand: Stand) -> None:
    config = packed(tls_pb2.UpstreamTlsContext())
    for _ in range(1500):
        outer = internal_upstream_pb2.InternalUpstreamTransport()
        outer.transport_socket.typed_config.CopyFrom(config)
        config = packed(outer)
    made = cluster_pb2.Cluster(name=PEER_EXCHANGE)
    made.transport_socket.typed_config.CopyFrom(config)
    assert stand.keeps(made)


# Whole responses


def response(resources: list[Any], *, is_delta: bool) -> Any:
    packs = [packed(each) for each in resources]
    url = packs[0].type_url
    if not is_delta:
        return discovery_pb2.DiscoveryResponse(version_info="7", nonce="n", type_url=url, resources=packs)
    made = discovery_pb2.DeltaDiscoveryResponse(
        system_version_info="7", nonce="n", type_url=url, removed_resources=["gone"]
    )
    for position, each in enumerate(packs):
        made.resources.add(name=str(position), version="1", aliases=["b"]).resource.CopyFrom(each)
    return made


@pytest.mark.parametrize("is_delta", [False, True], ids=["sotw", "delta"])
def test_a_response_has_just_those_resources_replaced(stand: Stand, is_delta: bool) -> None:
    plain = cluster_pb2.Cluster.FromString(UNKNOWN)
    body = encoded(response([plain, cluster(), plain], is_delta=is_delta)) + UNKNOWN
    expected = encoded(response([plain, cluster(is_stock=True), plain], is_delta=is_delta)) + UNKNOWN
    assert stand.stock.response(CLUSTER, body, is_delta=is_delta) == expected


@pytest.mark.parametrize("is_delta", [False, True], ids=["sotw", "delta"])
def test_a_response_without_them_is_the_same_object(stand: Stand, is_delta: bool) -> None:
    body = encoded(response([listener(is_stock=True)], is_delta=is_delta))
    assert stand.stock.response(LISTENER, body, is_delta=is_delta) is body
    endpoints = encoded(response([listener()], is_delta=is_delta))
    assert stand.stock.response(ENDPOINTS, endpoints, is_delta=is_delta) is endpoints


def test_a_hint_is_in_every_marker() -> None:
    stock = Stand().stock
    assert all(any(hint in marker for hint in HINTS) for marker in stock._markers)
    assert all(any(hint in marker for marker in stock._markers) for hint in HINTS), "and none is there in vain"


def test_levels_are_as_loud_as_the_loss() -> None:
    assert {part.level for part in PARTS} == {Level.info, Level.warn}
    assert all(part.loss and part.extensions for part in PARTS)
