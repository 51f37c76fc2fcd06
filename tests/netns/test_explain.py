"""What `explain` foretells of random packets is where the kernel has them land, for Istio's recorded rules.

Both back ends of iptables and native nftables, IPv4 and IPv6, sent by the pod and arriving there; and the rules that
`explain` says have matched are those whose counters went up.
"""

import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pilot_agent.interception.build import build, of_family
from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.explain import Tables, explain, observed, wanted
from pilot_agent.interception.explanation import Explanation, Packet
from pilot_agent.interception.nftables import script
from pilot_agent.interception.parse import parse_save
from pilot_agent.interception.rules import Family
from pilot_agent.interception.ruleset import chains_of, restore_text
from tests.support.eventually import eventually
from tests.support.landings import (
    INBOUND,
    INTERFACES,
    OUTBOUND,
    PATIENCE_SECONDS,
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
WORLD = {4: ["10.8.0.9", "11.0.0.9", "12.0.0.9"], 6: ["fd00:10::9", "fd00:98::9"]}
"""Nobody's."""
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
                feed(two, [f"{tool(family)}-{back_end}-restore", "--noflush"], restore_text(of_family(rules, family)))
            believed.append({family: saved(two, family, back_end) for family in FAMILIES})
        if has_routes:
            for family in FAMILIES:
                ip(two, family, routes[0], routes[1].format(everywhere(family)))
        yield Ruled(believed, (int(capture.mark),) if has_routes else ())
    finally:
        feed(two, ["nft", "flush", "ruleset"])
        if back_end == LEGACY:
            for family in FAMILIES:
                feed(two, [f"{tool(family)}-legacy-restore"], "*raw\nCOMMIT\n*mangle\nCOMMIT\n*nat\nCOMMIT\n")
        if has_routes:
            for family in FAMILIES:
                ip(two, family, *(each.replace("add", "del").format(everywhere(family)) for each in routes))


def feed(two: Stand, argv: list[str], text: str = "") -> str:
    return subprocess.run(
        [*two.pod.prefix, *argv], input=text, check=True, capture_output=True, text=True, timeout=30
    ).stdout


def saved(two: Stand, family: Family, back_end: str) -> Tables:
    return observed(parse_save(feed(two, [f"{tool(family)}-{back_end}-save"])))


def tool(family: int) -> str:
    return "iptables" if family == 4 else "ip6tables"


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
    """By a process of the pod, to itself or to elsewhere."""
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


@st.composite
def forwarded(draw: st.DrawFn) -> Sending:
    """To the world by way of the pod, as a virtual machine in it does."""
    family = draw(st.sampled_from(FAMILIES))
    device = draw(st.sampled_from(INTERFACES))
    destination = draw(st.sampled_from(WORLD[family]))
    return Sending("tcp", destination, draw(st.sampled_from(TCP_PORTS)), peer_address(family, device), device=device)


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
        is_forwarded=sending.destination in WORLD[family],
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
        @given(st.tuples(st.just(POD), sent()) | st.tuples(st.just(PEER), arriving() | forwarded()))
        def check(sending: tuple[str, Sending]) -> None:
            if sending[1].destination in WORLD[4] + WORLD[6]:
                # Nobody is there who could tell that it was not caught: no packet without a landing.
                unsent = packet_of(*sending, (sending[1].source, 0))
                landing = explain(rules.believed[0].get(unsent.family, {}), unsent, rules.local_marks)
                assume(landing.port is not None)
            landed = two.send(*sending)
            packet = packet_of(*sending, landed.source)
            for believed in rules.believed:
                foretold = explain(believed.get(packet.family, {}), packet, rules.local_marks)
                assert place(foretold) == (landed.side, landed.port), foretold.as_text()

        check()


# Counters: which rules matched, not only what came of it


@pytest.mark.parametrize("back_end", [NFT, LEGACY])
@pytest.mark.parametrize("name", ["tproxy-dual", "dns-resolvconf-dual", "dns-tproxy", "kitchen-sink"])
def test_the_rules_that_match_are_those_that_count(two: Stand, name: str, back_end: str) -> None:
    with ruled(two, name, back_end) as rules:

        @settings(max_examples=8, database=None)
        @given(st.tuples(st.just(POD), sent()) | st.tuples(st.just(PEER), arriving()))
        def check(sending: tuple[str, Sending]) -> None:
            family: Family = 6 if ":" in sending[1].destination else 4
            for table in rules.believed[1][family]:
                feed(two, [f"{tool(family)}-{back_end}", "-t", table, "-Z"])
            packet = packet_of(*sending, two.send(*sending).source)
            counted = counted_rules(feed(two, [f"{tool(family)}-{back_end}-save", "-c"]))
            for believed in rules.believed:
                foretold = explain(believed.get(family, {}), packet, rules.local_marks)
                matched = {(step.table, step.rule) for passage in foretold.path for step in passage.steps}
                assert matched <= counted, foretold.as_text()
                # The packets behind the first, and answers, pass raw and mangle as well, but not nat.
                more = {
                    each for each in counted - matched if each[0] == "nat" or not has_more_packets(packet, foretold)
                }
                assert more == set(), foretold.as_text()

        check()


def has_more_packets(packet: Packet, explanation: Explanation) -> bool:
    return packet.protocol == "tcp" or explanation.lands == "dns"


def counted_rules(text: str) -> set[tuple[str, str]]:
    """Table and line of the rules that matched anything."""
    table, found = "", set()
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif (match := re.fullmatch(r"\[(\d+):\d+\] (-A .*)", line)) and int(match[1]):
            found.add((table, match[2]))
    return found


# Foreign rules in between

FOREIGN = [
    ("filter", "-I OUTPUT -p tcp --dport 443 -j REJECT"),
    ("filter", "-I INPUT -p tcp --dport 15001 -j DROP"),
    ("filter", "-I INPUT -i lo -p tcp -d {lo} --dport 15006 -j DROP"),
    ("filter", "-I OUTPUT -o eth0 -p tcp --dport 15001 -j DROP"),
    ("filter", ":INPUT DROP\n-I INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"),
    ("filter", "-I INPUT ! -i eth+ -j ACCEPT"),
    ("mangle", "-I INPUT -p udp --dport 15053:15060 -j DROP"),
    ("mangle", "-I POSTROUTING -o eth+ -p tcp --dport 22 -j DROP"),
    ("mangle", "-I OUTPUT -m owner --gid-owner 888 -j MARK --set-mark 5"),
    ("mangle", "-I PREROUTING -i lo -m mark --mark 5 -j DROP"),
    ("nat", "-I OUTPUT -m owner --uid-owner 1000 -p tcp -j REDIRECT --to-ports 8080"),
    ("nat", "-I OUTPUT -m owner --uid-owner 0-5 -j RETURN"),
    ("nat", '-I PREROUTING -p tcp -m multiport --dports 80:90,443 -m comment --comment "a b" -j ACCEPT'),
    ("nat", "-A PREROUTING -i lo -p tcp -j REDIRECT --to-ports 9999"),
]


@given(data=st.data())
@settings(max_examples=40, database=None)
def test_foreign_rules_in_between(two: Stand, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["default-dual", "tproxy-dual", "dns-all-dual"]))
    added = data.draw(st.lists(st.sampled_from(FOREIGN), unique=True, max_size=4))
    with ruled(two, name, NFT) as rules:
        for family, local in ((4, "127.0.0.1"), (6, "::1")):
            feed(two, [f"{tool(family)}-nft-restore", "--noflush"], "".join(restored(added, local)))
        tables = {family: saved(two, family, NFT) for family in FAMILIES}
        for _ in range(5):
            side, sending = data.draw(
                st.tuples(st.just(POD), sent()) | st.tuples(st.just(PEER), arriving()), label="packet"
            )
            unsent = packet_of(side, sending, (sending.source or sending.destination, 29000))
            # Where nothing is to be seen it is not looked for long.
            lands = explain(tables[unsent.family], unsent, rules.local_marks).lands
            landed = two.send(side, sending, within=0.1 if lands in ("dropped", "unknown") else PATIENCE_SECONDS)
            packet = packet_of(side, sending, landed.source)
            foretold = explain(tables[packet.family], packet, rules.local_marks)
            if foretold.lands != "unknown":
                expected = ("", 0) if foretold.lands == "dropped" else place(foretold)
                assert (landed.side, landed.port) == expected, foretold.as_text()


def restored(added: list[tuple[str, str]], local: str) -> Iterator[str]:
    for table, line in added:
        yield f"*{table}\n" + line.format(lo=local) + "\nCOMMIT\n"


# Packets that belong to no connection

SYN_AND_FIN = 0x03


@pytest.mark.parametrize(("name", "lands"), [("drop-invalid", "dropped"), ("default-v4", "direct")])
def test_an_invalid_packet(two: Stand, name: str, lands: str) -> None:
    """Dropped if that is wanted; else nat is not asked about it."""
    source, destination = peer_address(4, "eth0"), pod_address(4, "eth0")

    def throw() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            raw.sendto(segment(source, destination, SYN_AND_FIN), (destination, 0))

    def count() -> set[tuple[str, str]]:
        return counted_rules(feed(two, ["iptables-nft-save", "-c"]))

    with ruled(two, name, NFT) as rules:
        feed(two, ["iptables-nft", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--dport", "80"])
        two.peer.call(throw)
        seen = ("raw", "-A PREROUTING -p tcp -m tcp --dport 80")
        eventually(lambda: seen in count())
        foretold = explain(
            rules.believed[1][4], Packet(False, "tcp", source, destination, 80, 29999, "eth0", state="INVALID")
        )
        assert foretold.lands == lands
        assert count() - {seen} == {(step.table, step.rule) for passage in foretold.path for step in passage.steps}


def segment(source: str, destination: str, flags: int) -> bytes:
    """Of TCP, from port 29999 to 80."""

    def written(checksum: int) -> bytes:
        return struct.pack("!HHIIBBHHH", 29999, 80, 1, 0, 5 << 4, flags, 1000, checksum, 0)

    ends = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!HH", socket.IPPROTO_TCP, 20)
    total = sum(struct.unpack("!16H", ends + written(0)))
    total = (total & 0xFFFF) + (total >> 16)
    return written(~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
