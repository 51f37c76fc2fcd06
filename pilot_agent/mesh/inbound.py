"""The inbound side for the templates: what happens to a connection that was redirected to virtualInbound.

For now every connection passes through to the address it was meant for. Called by publish; pure.
"""

from typing import NamedTuple

from pilot_agent.mesh.model import Options


class Passthrough(NamedTuple):
    """Istio's cluster that hands a connection on to the application.

    It comes from `source_address`, which the traffic rules let pass, or Envoy's own connection would be caught again.
    """

    name: str
    source_address: str


def passthrough(options: Options) -> Passthrough:
    if options.address_family == "IPv4":
        return Passthrough("InboundPassthroughClusterIpv4", "127.0.0.6")
    return Passthrough("InboundPassthroughClusterIpv6", "::6")


def listener(options: Options) -> dict[str, object]:
    """virtualInbound: the address it binds, its cluster, and whether TPROXY keeps the original addresses."""
    return {
        "address": options.wildcard,
        "port": options.inbound_port,
        "cluster": passthrough(options).name,
        "is_transparent": options.interception_mode == "TPROXY",
    }


def cluster(options: Options) -> dict[str, object]:
    return dict(passthrough(options)._asdict())
