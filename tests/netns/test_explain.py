"""What `explain` foretells of random packets is where the kernel has them land, for Istio's recorded rules.

Both back ends of iptables and native nftables, IPv4 and IPv6, sent by the pod and arriving there.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot_agent.interception.build import build, of_family
from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.explain import Tables, explain, observed, wanted
from pilot_agent.interception.explanation import Explanation, Packet
from pilot_agent.interception.nftables import script
from pilot_agent.interception.parse import parse_save
from pilot_agent.interception.rules import Family
from pilot_agent.interception.ruleset import chains_of, restore_text
from tests.support.landings import (
    INBOUND,
    INTERFACES,
    OUTBOUND,
    PEER,
    POD,
    TCP_PORTS,
    UDP_PORTS,
    Sending,
    Stand,
    peer_address,
    pod_address,
    stand,
)
from tests.support.namespaces import missing
from tests.unit.interception.recordings import recording

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

FAMILIES: tuple[Family, ...] = (4, 6)
FAR = {
    # Of the ranges in the recordings: within, excluded, without; and the resolver.
    4: ["10.9.0.2", "10.1.0.2", "11.0.0.2", "172.16.5.9", "172.17.0.2", "10.255.255.53"],
    6: ["fd00:10::2", "fd00:10:1::2", "fd00:99::2"],
}
LOOPBACK = {4: ["127.0.0.1", "127.0.0.6", "127.1.2.3"], 6: ["::1", "::6"]}
NFT, LEGACY, NATIVE = "nft", "legacy", "native"
EXAMPLES = 25


class Ruled(NamedTuple):
    """`believed`: tables by family, in each of the ways in which they are known."""

    believed: list[dict[Family, Tables]]
    local_marks: tuple[int, ...]


@pytest.fixture(scope="module")
def two() -> Iterator[Stand]:
    with stand((*FAR[4], *FAR[6])) as made:
        yield made


@contextmanager
def ruled(two: Stand, name: str, back_end: str) -> Iterator[Ruled]:
    capture = recording(name).options().capture
    rules = build(capture)
    own = canonical(rules)
    families = FAMILIES[: 1 + capture.has_ipv6]
    native = back_end == NATIVE
    told = {
        family: wanted(chains_of(own if native else of_family(own, family)), family, is_native=native)
        for family in (FAMILIES if native else families)
    }
    believed: list[dict[Family, Tables]] = [told]
    has_routes = capture.is_tproxy and bool(capture.inbound_ports)
    routes = [
        f"rule add fwmark {capture.mark} lookup {capture.route_table}",
        f"route add local {{}} dev lo table {capture.route_table}",
    ]
    try:
        if native:
            feed(two, ["nft", "-f", "-"], "\n".join(script(rules)))
        else:
            for family in families:
                tool = "iptables" if family == 4 else "ip6tables"
                feed(two, [f"{tool}-{back_end}-restore", "--noflush"], restore_text(of_family(rules, family)))
            believed.append({family: saved(two, family, back_end) for family in FAMILIES})
        if has_routes:
            for family in FAMILIES:
                ip(two, family, routes[0], routes[1].format(everywhere(family)))
        yield Ruled(believed, (int(capture.mark),) if has_routes else ())
    finally:
        feed(two, ["nft", "flush", "ruleset"])
        if back_end == LEGACY:
            for tool in ("iptables", "ip6tables"):
                feed(two, [f"{tool}-legacy-restore"], "*raw\nCOMMIT\n*mangle\nCOMMIT\n*nat\nCOMMIT\n")
        if has_routes:
            for family in FAMILIES:
                ip(two, family, *(each.replace("add", "del").format(everywhere(family)) for each in routes))


def feed(two: Stand, argv: list[str], text: str = "") -> str:
    return subprocess.run(
        [*two.pod.prefix, *argv], input=text, check=True, capture_output=True, text=True, timeout=30
    ).stdout


def saved(two: Stand, family: Family, back_end: str) -> Tables:
    return observed(parse_save(feed(two, [f"{'iptables' if family == 4 else 'ip6tables'}-{back_end}-save"])))


def ip(two: Stand, family: Family, *lines: str) -> None:
    for line in lines:
        two.pod.run("ip", f"-{family}", *line.split())


def everywhere(family: Family) -> str:
    return "0.0.0.0/0" if family == 4 else "::/0"


# Random packets

OWN = {family: [pod_address(family, each) for each in INTERFACES] for family in FAMILIES}
IDENTITIES = [0, 1, 202, 888, 1000, 1337, 1338, 2000]
PORTS = {"tcp": [*TCP_PORTS, OUTBOUND, INBOUND], "udp": list(UDP_PORTS)}
PROTOCOLS = st.sampled_from(["tcp", "tcp", "tcp", "udp"])


@st.composite
def sent(draw: st.DrawFn) -> Sending:
    """By a process of the pod."""
    family = draw(st.sampled_from(FAMILIES))
    protocol = draw(PROTOCOLS)
    own = [*OWN[family], *LOOPBACK[family]]
    far = [*FAR[family], *(peer_address(family, each) for each in INTERFACES)]
    destination = draw(st.sampled_from(own) | st.sampled_from(far))
    is_local = destination in own
    # What leaves the machine can't come from a loopback address, and what is marked stays where TPROXY's route is.
    source = draw(st.sampled_from(["", "", *own])) if is_local else ""
    mark = draw(st.sampled_from([0, 0, 1337, 1338])) if is_local else 0
    return Sending(
        protocol,
        destination,
        draw(st.sampled_from(PORTS[protocol])),
        source,
        draw(st.sampled_from(IDENTITIES)),
        draw(st.sampled_from(IDENTITIES)),
        mark,
    )


@st.composite
def arriving(draw: st.DrawFn) -> Sending:
    family = draw(st.sampled_from(FAMILIES))
    protocol = draw(PROTOCOLS)
    destination = draw(st.sampled_from(OWN[family]))
    port = draw(st.sampled_from(PORTS[protocol]))
    device = draw(st.sampled_from(INTERFACES))
    return Sending(protocol, destination, port, peer_address(family, device), device=device)


def packet_of(side: str, sending: Sending, source: tuple[str, int]) -> Packet:
    family: Family = 6 if ":" in sending.destination else 4
    is_sent = side == POD
    return Packet(
        is_sent,
        cast(Literal["tcp", "udp"], sending.protocol),
        source[0],
        sending.destination,
        sending.port,
        source[1],
        leaves_by(sending.destination, family) if is_sent else sending.device,
        sending.uid if is_sent else None,
        sending.gid if is_sent else None,
        mark=sending.mark,
    )


def leaves_by(destination: str, family: Family) -> str:
    if destination in (*OWN[family], *LOOPBACK[family]):
        return "lo"
    return next((each for each in INTERFACES if destination == peer_address(family, each)), "eth0")


def place(explanation: Explanation) -> tuple[str, int]:
    """Side and port."""
    packet = explanation.packet
    if explanation.port is not None:
        return POD, explanation.port
    assert explanation.lands == "direct"
    return (PEER if packet.is_sent and packet.interface != "lo" else POD), packet.port


NAMES = [
    "default-v4",
    "default-dual",
    "tproxy-dual",
    "tproxy-ports",
    "tproxy-no-inbound",
    "dns-resolvconf-dual",
    "dns-all-dual",
    "dns-tproxy",
    "inbound-ports",
    "outbound-cidrs-dual",
    "outbound-ports-include",
    "outbound-ports-exclude",
    "loopback-cidr-include",
    "loopback-env",
    "owner-groups-include",
    "owner-groups-exclude",
    "exclude-interfaces-tproxy",
    "virt-interfaces",
    "multi-uid-gid-dns",
    "drop-invalid",
    "kitchen-sink",
]
CASES = [
    *((name, NFT) for name in NAMES),
    *((name, LEGACY) for name in ("default-dual", "tproxy-dual", "dns-all-dual", "kitchen-sink")),
    *((name, NATIVE) for name in ("default-v4", "default-dual", "tproxy-dual", "dns-all-dual", "kitchen-sink")),
]


@pytest.mark.parametrize(("name", "back_end"), CASES)
def test_packets_land_where_it_is_foretold(two: Stand, name: str, back_end: str) -> None:
    with ruled(two, name, back_end) as rules:

        @settings(max_examples=EXAMPLES, database=None)
        @given(st.tuples(st.just(POD), sent()) | st.tuples(st.just(PEER), arriving()))
        def check(sending: tuple[str, Sending]) -> None:
            landed = two.send(*sending)
            packet = packet_of(*sending, landed.source)
            for believed in rules.believed:
                foretold = explain(believed.get(packet.family, {}), packet, rules.local_marks)
                assert place(foretold) == (landed.side, landed.port), foretold.as_text()

        check()
