"""The listeners' view: per filter chain what it matches and where it leads, in istioctl's words.

Draws the rows; `config_dump` finds the listeners, `columns` lays the rows out.
"""

import json
from typing import NamedTuple

from pilot_agent.inspect.columns import NARROW, table
from pilot_agent.inspect.fields import Message, field, message, messages, number, text, texts
from pilot_agent.inspect.ordering import ordered
from pilot_agent.inspect.routes import inline_destination, to_cluster

_HTTP = "envoy.filters.network.http_connection_manager"
_TCP = "envoy.filters.network.tcp_proxy"
_BLACK_HOLE = "BlackHoleCluster"
_NOWHERE = "Non-HTTP/Non-TCP"

_PROTOCOLS = {
    ("http/1.0", "http/1.1", "h2c"): "HTTP",
    ("istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"): "Istio HTTP Plain",
    ("http/1.0", "http/1.1", "h2c", "istio-http/1.0", "istio-http/1.1", "istio-h2"): "HTTP TLS",
    ("istio-peer-exchange", "istio"): "TCP TLS",
}
"""Lists of ALPN that have a name of their own."""


class ListenerFilter(NamedTuple):
    """Empty and 0 match all. Addresses and types are compared without regard to case."""

    address: str = ""
    port: int = 0
    kind: str = ""

    def matches(self, listener: Message) -> bool:
        if self.address and self.address.lower() not in [each.lower() for each in addresses(listener)]:
            return False
        if self.port and port(listener) != self.port:
            return False
        return not self.kind or kind(listener) == self.kind.upper()


def view(listeners: list[Message], wanted: ListenerFilter, *, is_verbose: bool = True, with_names: bool = False) -> str:
    """The table; `with_names` is its form in the view of everything."""
    shown = [each for each in listeners if wanted.matches(each)]
    head = ["NAME"] * with_names + ["ADDRESSES", "PORT", *(("MATCH", "DESTINATION") if is_verbose else ("TYPE",))]
    rows: list[list[object]] = [[*head]]
    for each in ordered(shown, lambda one, other: _rank(one) < _rank(other)):
        about = [f"listener/{text(each, 'name')}"] * with_names + [",".join(addresses(each)), port(each)]
        ends = _chains(each) if is_verbose else [(kind(each),)]
        rows += [[*about, *end] for end in ends]
    return table(rows, NARROW)


def addresses(listener: Message) -> list[str]:
    """Its own, then the additional ones; a pipe's path, and empty for an internal listener."""
    every = [listener, *messages(listener, "additional_addresses")]
    return [
        text(each, "address", "socket_address", "address") or text(each, "address", "pipe", "path") for each in every
    ]


def port(listener: Message) -> int:
    return number(listener, "address", "socket_address", "port_value")


def kind(listener: Message) -> str:
    """HTTP, TCP, HTTP+TCP or UNKNOWN, by the filters that end its chains; leading nowhere does not count."""
    filters = [each for chain in filter_chains(listener) for each in messages(chain, "filters")]
    found = [
        name
        for name, is_there in (
            ("HTTP", any(text(each, "name") == _HTTP for each in filters)),
            ("TCP", any(text(each, "name") == _TCP and not _is_black_hole(each) for each in filters)),
        )
        if is_there
    ]
    return "+".join(found) or "UNKNOWN"


def filter_chains(listener: Message) -> list[Message]:
    default = message(listener, "default_filter_chain")
    return messages(listener, "filter_chains") + ([] if default is None else [default])


def _rank(listener: Message) -> tuple[int, str, str]:
    return port(listener), addresses(listener)[0], kind(listener)


def _chains(listener: Message) -> list[tuple[str, str]]:
    """Match and destination of each chain, the destinations in descending order: what istioctl does."""
    found = [
        (match_of(message(each, "filter_chain_match") or {}), destination(each)) for each in filter_chains(listener)
    ]
    return ordered(found, lambda one, other: one[1] > other[1])


def match_of(match: Message) -> str:
    """`SNI: a,b; Trans: tls; App: h2; Addr: 10.0.0.1/32:80`, or ALL. Source addresses are not told."""
    said = []
    if names := texts(match, "server_names"):
        said.append(f"SNI: {','.join(names)}")
    if transport := text(match, "transport_protocol"):
        said.append(f"Trans: {transport}")
    if protocols := texts(match, "application_protocols"):
        said.append(f"App: {_PROTOCOLS.get(tuple(protocols)) or ','.join(protocols)}")
    has_port = field(match, "destination_port") is not None
    at_port = f":{number(match, 'destination_port')}" if has_port else ""
    if ranges := messages(match, "prefix_ranges"):
        prefixes = (f"{text(each, 'address_prefix')}/{number(each, 'prefix_len')}" for each in ranges)
        said.append(f"Addr: {','.join(prefixes)}{at_port}")
    elif has_port:
        said.append(f"Addr: *{at_port}")
    return "; ".join(said) or "ALL"


def destination(chain: Message) -> str:
    """Where its first HTTP or TCP filter leads."""
    for each in messages(chain, "filters"):
        config = message(each, "typed_config") or {}
        if text(each, "name") == _HTTP:
            inline = message(config, "route_config")
            if inline is not None:
                return inline_destination(inline)
            name = text(config, "rds", "route_config_name")
            return f"Route: {name}" if name else "HTTP"
        if text(each, "name") == _TCP and not _is_black_hole(each):
            return to_cluster(text(config, "cluster"))
    return _NOWHERE


def _is_black_hole(network_filter: Message) -> bool:
    """Named anywhere in its configuration, as istioctl looks for it."""
    return _BLACK_HOLE in json.dumps(field(network_filter, "typed_config"))
