"""From a capture to its rules, in Istio's order (reference iptables.md, sections 5 and 7: the numbers below are its).

One list for both families and both tools: a rule that names an address belongs to one family, every other to both.
"""

from collections.abc import Iterable, Iterator
from typing import cast

from pilot_agent.interception.capture import ALL, DNS_PORT, OUTBOUND_MARK, Capture, Dns
from pilot_agent.interception.rules import Condition, Family, Kind, Rule, Verdict

INBOUND, OUTPUT, OUTPUT_DNS = "ISTIO_INBOUND", "ISTIO_OUTPUT", "ISTIO_OUTPUT_DNS"
REDIRECT, IN_REDIRECT = "ISTIO_REDIRECT", "ISTIO_IN_REDIRECT"
DIVERT, TPROXY, DROP = "ISTIO_DIVERT", "ISTIO_TPROXY", "ISTIO_DROP"

RETURN = Verdict("return")
TCP, UDP = Condition("protocol", "tcp"), Condition("protocol", "udp")
LO_IN, LO_OUT = Condition("in", "lo"), Condition("out", "lo")
PROXY_ZONE, APP_ZONE = Verdict("zone", "1"), Verdict("zone", "2")
"""Conntrack zones of the agent with the upstream resolver, and of the application with the agent."""


def build(capture: Capture) -> list[Rule]:
    """Every rule, in the order in which Istio appends and inserts them."""
    return [
        *_interfaces(capture),
        *_invalid(capture),
        *_targets(capture),
        *_inbound(capture),
        *_outbound(capture),
        *(_tproxy_outside_of_inbound(capture) if capture.is_tproxy else ()),
    ]


def _jump(chain: str) -> Verdict:
    return Verdict("jump", chain)


def _is(kind: Kind, value: str) -> Condition:
    return Condition(kind, value)


def _not(kind: Kind, value: str) -> Condition:
    return Condition(kind, value, is_negated=True)


def _nat(chain: str, *conditions: Condition, to: Verdict, family: int | None = None, is_terse: bool = False) -> Rule:
    return Rule("nat", chain, conditions, to, cast(Family | None, family), is_terse=is_terse)


def _mangle(
    chain: str, *conditions: Condition, to: Verdict, family: int | None = None, index: int | None = None
) -> Rule:
    return Rule("mangle", chain, conditions, to, cast(Family | None, family), index)


def _interfaces(capture: Capture) -> Iterator[Rule]:
    """1 and 2."""
    for name in capture.excluded_interfaces:
        for table in ("nat", "mangle") if capture.is_tproxy else ("nat",):
            yield Rule(table, "PREROUTING", (_is("in", name),), RETURN)
            yield Rule(table, "OUTPUT", (_is("out", name),), RETURN)
    for name in capture.virtual_interfaces:
        yield Rule("nat", "PREROUTING", (_is("in", name),), RETURN, index=1)


def _invalid(capture: Capture) -> Iterator[Rule]:
    """3."""
    if capture.drops_invalid:
        invalid = (_is("state", "INVALID"),)
        yield Rule("mangle", "PREROUTING", invalid, _jump(DROP), nft_protocol="tcp")
        yield _mangle(DROP, to=Verdict("drop"))


def _targets(capture: Capture) -> Iterator[Rule]:
    """4 and 5."""
    yield _nat(INBOUND, TCP, _is("port", capture.tunnel_port), to=RETURN)
    yield _nat(REDIRECT, TCP, to=Verdict("redirect", capture.outbound_port))
    yield _nat(IN_REDIRECT, TCP, to=Verdict("redirect", capture.inbound_port))


def _inbound(capture: Capture) -> Iterator[Rule]:
    """6."""
    if not capture.inbound_ports:
        return
    table = "mangle" if capture.is_tproxy else "nat"
    if capture.is_tproxy:
        yield _mangle(DIVERT, to=Verdict("set_mark", capture.mark))
        yield _mangle(DIVERT, to=Verdict("accept"))
        for family in capture.families:
            outside = _not("destination", capture.loopback_of(family))
            yield _mangle(TPROXY, outside, TCP, to=Verdict("tproxy", capture.inbound_port, capture.mark), family=family)
    yield Rule(table, "PREROUTING", (TCP,), _jump(INBOUND))
    if capture.inbound_ports == (ALL,):
        for port in capture.excluded_inbound_ports:
            yield Rule(table, INBOUND, (TCP, _is("port", port)), RETURN)
        yield from _to_envoy(capture)
    else:
        for port in capture.inbound_ports:
            yield from _to_envoy(capture, _is("port", port))


def _to_envoy(capture: Capture, *port: Condition) -> Iterator[Rule]:
    if not capture.is_tproxy:
        yield _nat(INBOUND, TCP, *port, to=_jump(IN_REDIRECT))
        return
    yield _mangle(INBOUND, TCP, *port, _is("state", "RELATED,ESTABLISHED"), to=_jump(DIVERT))
    yield _mangle(INBOUND, TCP, *port, to=_jump(TPROXY))


def _outbound(capture: Capture) -> Iterator[Rule]:
    """7 to 17."""
    yield _nat("OUTPUT", to=_jump(OUTPUT))
    for port in capture.excluded_outbound_ports:
        for protocol in (TCP, UDP):
            yield _nat(OUTPUT, protocol, _is("port", port), to=RETURN, is_terse=True)
    for family in capture.families:
        yield _nat(OUTPUT, LO_OUT, _is("source", capture.passthrough_of(family)), to=RETURN, family=family)
    for uid in capture.uids:
        yield from _proxy_itself(capture, "uid", uid)
    for gid in capture.gids:
        yield from _proxy_itself(capture, "gid", gid)
    yield from _owner_groups(capture)
    if capture.dns is not None:
        yield from _dns(capture, capture.dns)
    for family in capture.families:
        yield _nat(OUTPUT, _is("destination", capture.loopback_of(family)), to=RETURN, family=family)
    for family in capture.families:
        for cidr in capture.excluded_ranges.of(family):
            yield _nat(OUTPUT, _is("destination", cidr), to=RETURN, family=family)
    for port in capture.outbound_ports:
        yield _nat(OUTPUT, TCP, _is("port", port), to=_jump(REDIRECT), is_terse=True)
    yield from _included_ranges(capture)


def _proxy_itself(capture: Capture, kind: Kind, owner: str) -> Iterator[Rule]:
    """10 and 11: what Envoy sends to its own pod goes to inbound, everything else of it goes out."""
    captures_dns = capture.dns is not None
    ports = _not("port", capture.tunnel_port)
    if captures_dns and kind == "uid":
        ports = _not("ports", f"53,{capture.tunnel_port}")
    for family in capture.families:
        outside = _not("destination", capture.loopback_of(family))
        yield _nat(OUTPUT, LO_OUT, outside, TCP, ports, _is(kind, owner), to=_jump(IN_REDIRECT), family=family)
    if not _names_loopback(capture):
        query = (TCP, _not("port", "53")) if captures_dns else ()
        yield _nat(OUTPUT, LO_OUT, *query, _not(kind, owner), to=RETURN)
    yield _nat(OUTPUT, _is(kind, owner), to=RETURN)


def _names_loopback(capture: Capture) -> bool:
    """Whether either include list has a loopback range: then what applications send over lo is captured too."""
    import ipaddress

    return any(
        ipaddress.ip_address(cidr.partition("/")[0]).is_loopback for cidr in (*capture.ranges.v4, *capture.ranges.v6)
    )


def _owner_groups(capture: Capture) -> Iterator[Rule]:
    """12."""
    groups = capture.groups
    if groups.included is None:
        for group in groups.excluded:
            yield _nat(OUTPUT, _is("gid", group), to=RETURN)
    else:
        yield _nat(OUTPUT, *(_not("gid", group) for group in groups.included), to=RETURN)


def _dns(capture: Capture, dns: Dns) -> Iterator[Rule]:
    """13, which is section 7."""
    served = [family for family in capture.families if dns.is_all or dns.of(family)]
    yield Rule("raw", "OUTPUT", (), _jump(OUTPUT_DNS))
    if len(served) == len(capture.families):
        yield _nat(OUTPUT, to=_jump(OUTPUT_DNS))
    else:
        for family in served:
            yield _nat(OUTPUT, to=_jump(OUTPUT_DNS), family=family)
    for protocol in (TCP, UDP):
        yield from _dns_redirects(capture, dns, protocol)
    for kind, owners in (("uid", capture.uids), ("gid", capture.gids)):
        for owner in owners:
            who = _is(cast(Kind, kind), owner)
            yield _raw(OUTPUT_DNS, UDP, _is("port", "53"), who, to=PROXY_ZONE)
            yield _raw(OUTPUT_DNS, UDP, _is("source_port", DNS_PORT), who, to=APP_ZONE)
    yield from _dns_zones(capture, dns)


def _dns_redirects(capture: Capture, dns: Dns, protocol: Condition) -> Iterator[Rule]:
    to, query = Verdict("redirect", DNS_PORT), (protocol, _is("port", "53"))
    if dns.is_all:
        yield _nat(OUTPUT_DNS, *query, to=to)
        return
    for family in capture.families:
        for server in dns.of(family):
            yield _nat(
                OUTPUT_DNS, *query, _is("destination", _host(server, family)), to=to, family=family, is_terse=True
            )


def _dns_zones(capture: Capture, dns: Dns) -> Iterator[Rule]:
    query, answer = _is("port", "53"), _is("source_port", "53")
    if dns.is_all:
        yield _raw("PREROUTING", to=_jump(INBOUND))
        yield _raw(OUTPUT_DNS, UDP, query, to=APP_ZONE)
        yield _raw(INBOUND, UDP, answer, to=PROXY_ZONE)
        return
    for family in capture.families:
        if dns.of(family):
            # nft's tables are both families': one jump is enough there, and harmless twice.
            yield _raw("PREROUTING", to=_jump(INBOUND), family=family)
        for server in dns.of(family):
            host = _host(server, family)
            yield _raw(OUTPUT_DNS, UDP, query, _is("destination", host), to=APP_ZONE, family=family)
            yield _raw(INBOUND, UDP, answer, _is("source", host), to=PROXY_ZONE, family=family)


def _raw(chain: str, *conditions: Condition, to: Verdict, family: int | None = None) -> Rule:
    return Rule("raw", chain, conditions, to, cast(Family | None, family))


def _host(server: str, family: int) -> str:
    return f"{server}/32" if family == 4 else f"{server}/128"


def _included_ranges(capture: Capture) -> Iterator[Rule]:
    """17."""
    if capture.ranges.is_all:
        yield _nat(OUTPUT, to=_jump(REDIRECT))
        for name in capture.virtual_interfaces:
            yield Rule("nat", "PREROUTING", (_is("in", name),), _jump(REDIRECT), index=1)
        return
    for family in capture.families:
        for cidr in capture.ranges.of(family):
            there = _is("destination", cidr)
            for name in capture.virtual_interfaces:
                conditions = (_is("in", name), there)
                yield Rule("nat", "PREROUTING", conditions, _jump(REDIRECT), cast(Family, family), index=1)
            yield _nat(OUTPUT, there, to=_jump(REDIRECT), family=family)


def _tproxy_outside_of_inbound(capture: Capture) -> Iterator[Rule]:
    """18."""
    marked, is_known = _is("mark", capture.mark), _is("connection_mark", capture.mark)
    yield _mangle("PREROUTING", TCP, marked, to=Verdict("save_mark"))
    yield _mangle("OUTPUT", TCP, LO_OUT, marked, to=RETURN)
    for kind, owners in (("uid", capture.uids), ("gid", capture.gids)):
        for owner in owners:
            for family in capture.families:
                outside = _not("destination", capture.loopback_of(family))
                who = _is(cast(Kind, kind), owner)
                to = Verdict("set_mark", OUTBOUND_MARK)
                yield _mangle("OUTPUT", outside, TCP, LO_OUT, who, to=to, family=family)
    yield _mangle("OUTPUT", TCP, is_known, to=Verdict("restore_mark"))
    yield _mangle(INBOUND, TCP, marked, to=RETURN, index=1)
    for family in capture.families:
        source = _is("source", capture.passthrough_of(family))
        yield _mangle(INBOUND, TCP, source, LO_IN, to=RETURN, family=family, index=2)
    yield _mangle(INBOUND, TCP, LO_IN, _not("mark", OUTBOUND_MARK), to=RETURN, index=3)


def of_family(rules: Iterable[Rule], family: Family) -> list[Rule]:
    """Those that the family's iptables gets."""
    return [rule for rule in rules if rule.family in (None, family)]
