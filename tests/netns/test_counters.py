"""Real rules and real packets: chains in the order they are met in, and exactly the rules on the way have counted."""

from collections.abc import Iterator

import pytest

from pilot_agent.interception.counters import moved
from tests.support.captured import LEGACY, NATIVE, NFT, captured, counted
from tests.support.landings import INBOUND, OUTBOUND, POD, Sending, Stand, peer_address, pod_address, stand
from tests.support.namespaces import missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

SENT = ["OUTPUT", "ISTIO_OUTPUT", "ISTIO_IN_REDIRECT", "ISTIO_REDIRECT"]
ARRIVING = ["PREROUTING", "ISTIO_INBOUND"]
"""ISTIO_IN_REDIRECT stands once, under the first chain that leads there."""


@pytest.fixture(scope="module")
def two() -> Iterator[Stand]:
    with stand(()) as made:
        yield made


@pytest.mark.parametrize(
    ("back_end", "families", "last"),
    [(NFT, ["IPv4", "IPv6"], 9), (LEGACY, ["IPv4", "IPv6"], 9), (NATIVE, ["inet"], 13)],
)
def test_the_way_of_a_connection(two: Stand, back_end: str, families: list[str], last: int) -> None:
    def name(chain: str) -> str:
        return chain.lower().replace("_", "-") if back_end == NATIVE else chain

    with captured(two.pod, "default-dual", back_end):
        start = counted(two.pod)
        assert [(chain.family, chain.way, chain.name) for chain in start] == [
            (family, way, name(chain))
            for family in families
            for way, chains in (("sent", SENT), ("arriving", ARRIVING))
            for chain in chains
        ]
        landed = two.send(POD, Sending("tcp", peer_address(4, "eth0"), 8080, uid=1000, gid=1000))
        assert (landed.side, landed.port) == (POD, OUTBOUND)
        sent = counted(two.pod)
        assert [(each.family, each.chain, each.number, each.packets) for each in moved(start, sent)] == [
            (families[0], name("OUTPUT"), 1, 1),
            (families[0], name("ISTIO_OUTPUT"), last, 1),
            (families[0], name("ISTIO_REDIRECT"), 1, 1),
        ]
        landed = two.send("peer", Sending("tcp", pod_address(6, "eth0"), 8080, device="eth0"))
        assert (landed.side, landed.port) == (POD, INBOUND)
        assert [(each.family, each.chain, each.number) for each in moved(sent, counted(two.pod))] == [
            (families[-1], name("ISTIO_IN_REDIRECT"), 1),
            (families[-1], name("PREROUTING"), 1),
            (families[-1], name("ISTIO_INBOUND"), 5),
        ]
    assert counted(two.pod) == ()


@pytest.mark.parametrize("back_end", [NFT, NATIVE])
def test_tables_come_in_the_kernels_order(two: Stand, back_end: str) -> None:
    with captured(two.pod, "dns-tproxy", back_end):
        chains = [each for each in counted(two.pod) if each.family in ("IPv4", "inet") and not each.caller]
    assert [
        (each.way, each.table.removeprefix("istio-proxy-"), each.name.upper().replace("-", "_")) for each in chains
    ] == [
        ("sent", "raw", "OUTPUT"),
        ("sent", "mangle", "OUTPUT"),
        ("sent", "nat", "OUTPUT"),
        ("arriving", "raw", "PREROUTING"),
        ("arriving", "mangle", "PREROUTING"),
        ("unreached", "nat", "ISTIO_INBOUND"),
    ]
