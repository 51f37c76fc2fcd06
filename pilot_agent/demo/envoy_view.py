"""What an Envoy's admin interface says of the way of a request: listeners, filter chains, routes, certificates."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pilot_agent.demo.pod import Pod


class Certificate(NamedTuple):
    """`serial` in hexadecimal; `not_after` in Envoy's words, such as 2026-11-28T10:13:08Z."""

    spiffe_id: str
    serial: str
    not_after: str


class Listener(NamedTuple):
    """`routes` are the names of its route configurations, by filter chain."""

    name: str
    address: str
    port: int
    chains: tuple[dict[str, Any], ...]


def listeners(pod: Pod) -> list[Listener]:
    """Those that serve, of the dynamic ones. Raises DemoError."""
    dump = pod.admin("/config_dump?resource=dynamic_listeners&mask=active_state.listener")
    found = (each.get("active_state", {}).get("listener") for each in dump.get("configs", ()))
    return [_listener(each) for each in found if each]


def _listener(config: dict[str, Any]) -> Listener:
    address = config["address"]["socket_address"]
    return Listener(config["name"], address["address"], address["port_value"], tuple(_chains(config)))


def _chains(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from config.get("filter_chains", ())
    if "default_filter_chain" in config:
        yield config["default_filter_chain"]


def listener_of(pod: Pod, port: int) -> Listener | None:
    """The one that Envoy hands a connection to `port` over to, or that has opened it."""
    return next((each for each in listeners(pod) if each.port == port), None)


def route_name(listener: Listener) -> str:
    """Of the HTTP connection manager, "" where there is none."""
    for chain in listener.chains:
        for entry in chain.get("filters", ()):
            config = entry.get("typed_config", {})
            name = config.get("rds", {}).get("route_config_name") or config.get("route_config", {}).get("name")
            if name:
                return str(name)
    return ""


def tls_chain(listener: Listener, port: int) -> str:
    """The name of the filter chain that takes TLS for `port`, "" where there is none."""
    found = [chain for chain in listener.chains if "transport_socket" in chain]
    for wanted in (port, None):  # a chain for the port goes before one for any
        for chain in found:
            if chain.get("filter_chain_match", {}).get("destination_port") == wanted:
                return str(chain.get("name", ""))
    return ""


def certificate(pod: Pod) -> Certificate | None:
    """The one Envoy shows to its peers now; None before there is one. Raises DemoError."""
    for entry in pod.admin("/certs").get("certificates", ()):
        for each in entry.get("cert_chain", ()):
            names = [name["uri"] for name in each.get("subject_alt_names", ()) if "uri" in name]
            if names:
                return Certificate(names[0], each["serial_number"], each["expiration_time"])
    return None
