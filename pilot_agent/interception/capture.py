"""What is to be captured: the settings of one run, complete and checked. `options` makes them of flags and
variables."""

from typing import NamedTuple

ALL = "*"
DNS_PORT = "15053"
"""Where the agent's DNS proxy listens."""
OUTBOUND_MARK = "1338"
"""Of Envoy's connections to this pod's own address, which inbound is to see. Not a setting in Istio either."""


class Ranges(NamedTuple):
    """CIDRs by family, as told. `is_all`: `*` was said."""

    v4: tuple[str, ...] = ()
    v6: tuple[str, ...] = ()
    is_all: bool = False

    def of(self, family: int) -> tuple[str, ...]:
        return self.v4 if family == 4 else self.v6


class Groups(NamedTuple):
    """Whose traffic is captured: all groups but `excluded`, or (`included` not None) only those."""

    included: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()


class Dns(Ranges):
    """Queries to these servers, by family, go to the agent; `is_all`: whatever server they are sent to."""

    __slots__ = ()


class Capture(NamedTuple):
    """Ports, ids and marks as texts: what they are is checked already, and iptables gets them as they were told.

    `inbound_ports`: None for none, ("*",) for all. `loopback` is IPv4's; `has_ipv6` adds the rules of IPv6.
    """

    outbound_port: str = "15001"
    inbound_port: str = "15006"
    tunnel_port: str = "15008"
    uids: tuple[str, ...] = ("1337",)
    gids: tuple[str, ...] = ("1337",)
    is_tproxy: bool = False
    mark: str = "1337"
    route_table: str = "133"
    inbound_ports: tuple[str, ...] = ()
    excluded_inbound_ports: tuple[str, ...] = ()
    outbound_ports: tuple[str, ...] = ()
    excluded_outbound_ports: tuple[str, ...] = ()
    ranges: Ranges = Ranges()
    excluded_ranges: Ranges = Ranges()
    excluded_interfaces: tuple[str, ...] = ()
    virtual_interfaces: tuple[str, ...] = ()
    groups: Groups = Groups()
    loopback: str = "127.0.0.1/32"
    dns: Dns | None = None
    drops_invalid: bool = False
    has_ipv6: bool = False

    @property
    def families(self) -> tuple[int, ...]:
        return (4, 6) if self.has_ipv6 else (4,)

    def loopback_of(self, family: int) -> str:
        return self.loopback if family == 4 else "::1/128"

    @staticmethod
    def passthrough_of(family: int) -> str:
        """What Envoy's connections to the application come from."""
        return "127.0.0.6/32" if family == 4 else "::6/128"
