"""Every rule of ISTIO_OUTPUT with default flags, moved by a real packet that no other rule of the chain decides about.

As iptables prints them: 1 from 127.0.0.6 through lo; 2 to 4 the proxy's user, 5 to 7 its group: to its own pod, others
through lo, itself; 8 to 127.0.0.1; 9 all else. Two of them no packet reaches, since every packet through lo ends at 3
or 4: one that is not of uid 1337, or of no socket, at 3, any other at 4. So 5 and 6 stay at zero; they are moved here
once 3 is gone, which shows that nothing but 3 keeps packets from them.
"""

import itertools
from collections.abc import Iterator
from typing import Literal, cast

import pytest

from pilot_agent.interception.counters import moved
from pilot_agent.interception.execute import Commands
from pilot_agent.interception.explain import explain, observed
from pilot_agent.interception.explanation import Packet
from pilot_agent.interception.kernel import Backend, Iptables
from pilot_agent.interception.parse import parse_save
from pilot_agent.interception.rules import Family
from tests.support.captured import LEGACY, NFT, captured, counted
from tests.support.landings import OUTBOUND, POD, Sending, Stand, peer_address, pod_address, stand
from tests.support.namespaces import missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

FLAGS = "default-dual"
BACK_ENDS = pytest.mark.parametrize("back_end", [NFT, LEGACY])
FAMILIES = pytest.mark.parametrize("family", [4, 6])
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
PASSTHROUGH = {4: "127.0.0.6", 6: "::6"}
ENVOY, OTHER = 1337, 1000
TUNNEL, PORT = 15008, 8080


@pytest.fixture(scope="module")
def two() -> Iterator[Stand]:
    with stand(()) as made:
        yield made


class Chain:
    """ISTIO_OUTPUT of one family in the pod of `two`."""

    def __init__(self, two: Stand, family: Family, back_end: Backend) -> None:
        self._two, self._family, self._back_end = two, family, back_end
        self._before = counted(two.pod)

    def moved_by(self, sending: Sending, within: float = 3.0) -> list[tuple[int, int]]:
        """Rules by number, each with the packets that it has matched."""
        self.landed = self._two.send(POD, sending, within)
        after = counted(self._two.pod)
        found = [each for each in moved(self._before, after) if each.chain == "ISTIO_OUTPUT"]
        self._before = after
        assert {each.family for each in found} <= {f"IPv{self._family}"}
        return [(each.number, each.packets) for each in found]

    def foretold(self, sending: Sending, interface: str) -> int:
        """The number of the rule that `explain` says the packet ends at."""
        text = self._two.pod.call(lambda: Iptables(Commands()).said(self._back_end, self._family))
        source, port = self.landed.source
        owner = (sending.uid, sending.gid)
        protocol = cast(Literal["tcp", "udp"], sending.protocol)
        packet = Packet(True, protocol, source, sending.destination, sending.port, port, interface, *owner)
        steps = [step for passage in explain(observed(parse_save(text)), packet).path for step in passage.steps]
        (step,) = [step for step in steps if step.chain == "ISTIO_OUTPUT"]
        return step.number


@BACK_ENDS
@FAMILIES
def test_a_packet_of_its_own_moves_each_rule(two: Stand, back_end: Backend, family: Family) -> None:
    own, peer, loopback = pod_address(family, "eth0"), peer_address(family, "eth0"), LOOPBACK[family]
    with captured(two.pod, FLAGS, back_end):
        chain = Chain(two, family, back_end)
        for number, interface, sending in (
            (1, "lo", Sending("tcp", own, PORT, PASSTHROUGH[family], ENVOY, ENVOY)),
            (2, "lo", Sending("tcp", own, PORT, "", ENVOY, ENVOY)),
            (3, "lo", Sending("tcp", own, PORT, "", OTHER, OTHER)),
            (4, "eth0", Sending("tcp", peer, PORT, "", ENVOY, ENVOY)),
            (7, "eth0", Sending("tcp", peer, PORT, "", OTHER, ENVOY)),
            # Through lo such a packet ends at 3: one to loopback leaves by eth0 when its socket is bound to that.
            (8, "eth0", Sending("tcp", loopback, PORT, "", OTHER, OTHER, device="eth0")),
            (9, "eth0", Sending("tcp", peer, PORT, "", OTHER, OTHER)),
        ):
            # The peer takes no packet to a loopback address from a cable.
            assert chain.moved_by(sending, within=0 if number == 8 else 3) == [(number, 1)], sending
            assert chain.foretold(sending, interface) == number
        assert (chain.landed.side, chain.landed.port) == (POD, OUTBOUND)


@FAMILIES
def test_no_packet_reaches_the_groups_rules_for_lo(two: Stand, family: Family) -> None:
    """Every kind of packet through lo that the conditions of the nine rules tell apart."""
    own, loopback = pod_address(family, "eth0"), LOOPBACK[family]
    kinds = [
        Sending(protocol, destination, port, source, uid, gid)
        for protocol, port in (("tcp", PORT), ("tcp", TUNNEL), ("udp", PORT))
        for destination, source in ((own, ""), (loopback, ""), (own, PASSTHROUGH[family]))
        for uid, gid in itertools.product((ENVOY, OTHER), repeat=2)
    ]
    with captured(two.pod, FLAGS, NFT):
        chain = Chain(two, family, NFT)
        ends: set[int] = set()
        for sending in kinds:
            ((number, packets),) = chain.moved_by(sending)
            assert packets == 1
            assert chain.foretold(sending, "lo") == number
            ends.add(number)
        assert ends == {1, 2, 3, 4}


@FAMILIES
def test_without_the_third_rule_packets_reach_them(two: Stand, family: Family) -> None:
    own, tool = pod_address(family, "eth0"), "iptables-nft" if family == 4 else "ip6tables-nft"
    with captured(two.pod, FLAGS, NFT):
        two.pod.run(tool, "-t", "nat", "-D", "ISTIO_OUTPUT", "3")
        chain = Chain(two, family, NFT)
        assert chain.moved_by(Sending("tcp", own, PORT, "", OTHER, ENVOY)) == [(5 - 1, 1)]
        assert chain.moved_by(Sending("tcp", own, PORT, "", OTHER, OTHER)) == [(6 - 1, 1)]
