"""Single rules as nft is given them and as it lists them; whole sets of them are held by recordings and a real nft."""

import pytest

from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.nft_words import MOST_GROUPS_IN_ROW, listed, written
from pilot_agent.interception.rules import Condition, Rule, Verdict

TCP = Condition("protocol", "tcp")
RETURN = Verdict("return")


def rule(*conditions: Condition, to: Verdict = RETURN, table: str = "nat") -> Rule:
    return Rule(table, "ISTIO_OUTPUT", conditions, to)


CASES = [
    ((Condition("in", "eth+"),), 'iifname "eth*"', 'iifname "eth*"'),
    ((Condition("in", "0eth"),), 'iifname "0eth"', 'iifname "0eth"'),
    ((Condition("out", "eth0.1_a-b"),), 'oifname "eth0.1_a-b"', 'oifname "eth0.1_a-b"'),
    ((Condition("out", "eth0"),), "oifname eth0", 'oifname "eth0"'),
    ((Condition("out", "ip6"),), 'oifname "ip6"', 'oifname "ip6"'),
    ((Condition("out", "eth0:1"),), 'oifname "eth0:1"', 'oifname "eth0:1"'),
    ((TCP, Condition("port", "8000:8010")), "meta l4proto tcp tcp dport 8000-8010", "tcp dport 8000-8010"),
    ((TCP, Condition("port", "http")), "meta l4proto tcp tcp dport http", "tcp dport 80"),
    ((TCP, Condition("ports", "53,25", True)), "meta l4proto tcp tcp dport != { 53, 25 }", "tcp dport != { 25, 53 }"),
    ((TCP, Condition("ports", "53,53", True)), "meta l4proto tcp tcp dport != { 53, 53 }", "tcp dport != { 53 }"),
    ((Condition("source", "172.16.5.1/16"),), "ip saddr 172.16.5.1/16", "ip saddr 172.16.0.0/16"),
    ((Condition("source", "0.0.0.0/0"),), "ip saddr 0.0.0.0/0", "ip saddr 0.0.0.0/0"),
    ((Condition("destination", "::ffff:1.2.3.4/128"),), "ip6 daddr ::ffff:1.2.3.4/128", "ip6 daddr ::ffff:1.2.3.4"),
    ((Condition("uid", "root"),), "skuid root", "meta skuid 0"),
    (
        (TCP, Condition("mark", "1338", True)),
        "meta l4proto tcp mark != 1338",
        "meta l4proto tcp meta mark != 0x0000053a",
    ),
    ((Condition("state", "RELATED,ESTABLISHED"),), "ct state related,established", "ct state established,related"),
]


@pytest.mark.parametrize(("conditions", "given", "said"), CASES, ids=[each[1] for each in CASES])
def test_conditions(conditions: tuple[Condition, ...], given: str, said: str) -> None:
    assert written(rule(*conditions)) == f"{given} counter return"
    assert [listed(each) for each in canonical([rule(*conditions)], is_nft=True)] == [f"{said} counter return"]


def test_a_named_port_of_a_redirect_is_listed_as_its_number() -> None:
    to = rule(TCP, to=Verdict("redirect", "http"))
    assert written(to) == "meta l4proto tcp counter redirect to :http"
    assert [listed(each) for each in canonical([to])] == ["meta l4proto tcp counter redirect to :80"]


def test_more_groups_than_a_rule_can_compare_are_looked_up_in_a_set() -> None:
    groups = [Condition("gid", str(number), True) for number in range(100, 0, -1)]
    row = written(rule(*groups[:MOST_GROUPS_IN_ROW]))
    assert row.startswith("skgid != 100 skgid != 99 ")
    assert written(rule(*groups)).startswith("skgid != { 100, 99, ")
    assert listed(rule(*groups)).startswith("meta skgid != { 1, 2, 3, ")
