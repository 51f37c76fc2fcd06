"""Differences between what nft has and what is wanted, as text and as data."""

import pytest

from pilot_agent.interception.nft_difference import differences, keeps_shape
from pilot_agent.interception.nft_listing import Chain, Table

BASE = "type nat hook output priority -100; policy accept;"
RAW = {"raw": Table({"output": Chain("", ())})}


def nat(*rules: str, base: str = BASE, others: tuple[str, ...] = (), **more: Chain) -> dict[str, Table]:
    return {"nat": Table({"output": Chain(base, rules), **more}, others)}


WANTED = nat("a", "b", "c")
NAT = "inet istio-proxy-nat"

CASES = [
    (WANTED, [], True),
    ({}, [f"table {NAT} is missing"], True),
    (WANTED | RAW, ["table inet istio-proxy-raw should not be there"], True),
    ({"nat": Table({})}, [f"chain {NAT} output is missing"], True),
    (nat("a", "b", "c", other=Chain("", ())), [f"chain {NAT} other should not be there"], False),
    (nat("a", "b", "c", others=("flags dormant",)), [f"{NAT}: should not be there: flags dormant"], False),
    (nat("a", "c"), [f"{NAT} output: rule 2 is missing: b"], True),
    (nat(), [f"{NAT} output: rule {n} is missing: {rule}" for n, rule in enumerate("abc", 1)], True),
    (nat("a", "b", "b", "c"), [f"{NAT} output: rule 3 should not be there: b"], True),
    (nat("a", "x", "c"), [f"{NAT} output: rule 2 is missing: b", f"{NAT} output: rule 2 should not be there: x"], True),
    (nat("b", "c", "a"), [f"{NAT} output: rule 1 is at 3: a"], True),
    (nat("a", "b", "c", base=""), [f"{NAT} output: should be {BASE}, not no base chain"], False),
]


@pytest.mark.parametrize(("there", "texts", "keeps"), CASES, ids=[" and ".join(each[1]) or "none" for each in CASES])
def test_differences(there: dict[str, Table], texts: list[str], keeps: bool) -> None:
    found = differences(WANTED, there)
    assert [each.text for each in found] == texts
    assert keeps_shape(found, "nat") is keeps


def test_as_data() -> None:
    (missing,) = differences(WANTED, nat("a", "c"))
    assert missing.data == {
        "kind": "missing",
        "family": "inet",
        "table": "istio-proxy-nat",
        "chain": "output",
        "line": "b",
        "position": 2,
    }
    (table,) = differences({}, WANTED)
    assert table.data == {"kind": "extra", "family": "inet", "table": "istio-proxy-nat"}
