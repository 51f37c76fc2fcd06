"""Counters of recorded listings: order of the chains, what moved, and how both are shown."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pilot_agent.errors import InterceptionError
from pilot_agent.interception import counter_table
from pilot_agent.interception.build import build
from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.counters import CountedChain, Movement, counters, moved
from pilot_agent.interception.execute import CommandMissing, Outcome
from pilot_agent.interception.parse import Count
from pilot_agent.interception.purposes import purposes
from tests.unit.interception.recordings import Recording, recording, recordings

FOLDER = Path(__file__).parents[2] / "golden" / "iptables"
SAVED = (FOLDER / "counted.iptables-save").read_text()
LISTED = (FOLDER / "counted.nft").read_text()
"""Both of TPROXY, after one connection out and one in; in front of iptables' OUTPUT is a rule of somebody else."""


class Machine:
    """What each command says, by its name; one that is not named is not installed."""

    def __init__(self, **words: str | Outcome) -> None:
        self._words = {name.replace("_", "-"): each for name, each in words.items()}

    def __call__(self, argv: Sequence[str], stdin: str = "", variables: Mapping[str, str] | None = None) -> Outcome:
        if argv[0] not in self._words:
            raise CommandMissing(f"{argv[0]} was not found")
        said = self._words[argv[0]]
        return said if isinstance(said, Outcome) else Outcome(0, said)


ALL = Machine(iptables_nft_save=SAVED, ip6tables_nft_save="", nft=LISTED)


def of(tool: str) -> tuple[CountedChain, ...]:
    return tuple(each for each in counters(ALL) if each.tool == tool)


def test_chains_come_in_the_order_of_a_packets_way() -> None:
    assert [(each.family, each.way, each.table, each.name, each.caller) for each in of("iptables-nft")] == [
        ("IPv4", "sent", "mangle", "OUTPUT", ""),
        ("IPv4", "sent", "nat", "OUTPUT", ""),
        ("IPv4", "sent", "nat", "ISTIO_OUTPUT", "OUTPUT"),
        ("IPv4", "sent", "nat", "ISTIO_IN_REDIRECT", "ISTIO_OUTPUT"),
        ("IPv4", "sent", "nat", "ISTIO_REDIRECT", "ISTIO_OUTPUT"),
        ("IPv4", "arriving", "mangle", "PREROUTING", ""),
        ("IPv4", "arriving", "mangle", "ISTIO_INBOUND", "PREROUTING"),
        ("IPv4", "arriving", "mangle", "ISTIO_DIVERT", "ISTIO_INBOUND"),
        ("IPv4", "arriving", "mangle", "ISTIO_TPROXY", "ISTIO_INBOUND"),
        ("IPv4", "unreached", "nat", "ISTIO_INBOUND", ""),
    ]


def test_both_tools_say_the_same_of_the_same_packets() -> None:
    def counted(tool: str) -> list[tuple[str, str, str, list[Count | None]]]:
        return [
            (
                each.way,
                each.table.removeprefix("istio-proxy-"),
                each.name.upper().replace("-", "_"),
                [rule.counted for rule in each.rules if rule.is_ours],
            )
            for each in of(tool)
        ]

    assert counted("nft") == counted("iptables-nft")
    assert ("sent", "nat", "ISTIO_REDIRECT", [Count(1, 60)]) in counted("nft")


def test_numbers_are_those_of_the_chain_with_the_rules_of_others() -> None:
    output = of("iptables-nft")[1]
    assert (output.policy, output.counted) == ("ACCEPT", Count(0, 0))
    foreign, ours = output.rules
    assert (foreign.number, foreign.is_ours, foreign.leads_to) == (1, False, "LOG")
    assert (ours.number, ours.is_ours, ours.leads_to) == (2, True, "ISTIO_OUTPUT")


def test_a_rule_of_nft_without_counter_and_one_whose_words_look_like_one() -> None:
    head = "table inet istio-proxy-nat {\n\tchain output {\n\t\ttype nat hook output priority -100; policy accept;\n"
    rules = 'jump istio-x\n\t\tcounter return comment "counter packets 1 bytes 2 jump y"\n\t\tiifname "jump b" return'
    tail = "\n\t}\n\tchain istio-x {\n\t\tcounter packets 5 bytes 6 accept\n\t}\n}\n"
    output, other = counters(Machine(nft=f"{head}\t\t{rules}{tail}"))
    assert [(each.counted, each.leads_to) for each in output.rules] == [(None, "istio-x"), (None, ""), (None, "")]
    assert [(each.counted, each.text) for each in other.rules] == [(Count(5, 6), "counter accept")]


def test_a_chain_that_leads_back_to_itself_has_an_end() -> None:
    rules = "[1:2] -A OUTPUT -g ISTIO_A\n[1:2] -A ISTIO_A -j ISTIO_A\n"
    text = f"*nat\n:OUTPUT ACCEPT [0:0]\n:ISTIO_A - [0:0]\n{rules}COMMIT\n"
    assert [each.name for each in counters(Machine(iptables_nft_save=text))] == ["OUTPUT", "ISTIO_A"]


def test_a_tool_that_is_not_there_has_no_rules_and_none_at_all_is_an_error() -> None:
    plain = Machine(iptables_save=SAVED, ip6tables_save=Outcome(1, "", "no IPv6 here"))
    assert {each.tool for each in counters(plain)} == {"iptables"}
    assert counters(Machine(iptables_legacy_save="", ip6tables_legacy_save="")) == ()
    refused = Outcome(4, "", "Permission denied (you must be root)")
    with pytest.raises(InterceptionError, match="it takes root and the capability NET_ADMIN"):
        counters(Machine(iptables_nft_save=refused, iptables_legacy_save=refused, nft=refused))


# What moved


def test_what_moved_is_told_by_rule() -> None:
    later = SAVED.replace("[1:60] -A ISTIO_OUTPUT -j", "[4:240] -A ISTIO_OUTPUT -j")
    later = later.replace("[1:60] -A OUTPUT -p tcp -m comment --comment mine -j LOG\n", "")  # the next one moves up
    later = later.replace("[1:60] -A OUTPUT -j", "[2:120] -A OUTPUT -j")
    later = later.replace("[9:492]", "[3:180]")  # written anew meanwhile, and met three times since
    before, after = of("iptables-nft"), counters(Machine(iptables_nft_save=later))
    assert moved(before, before) == []
    lo = "-A ISTIO_INBOUND -i lo -p tcp -m mark ! --mark 0x53a -j RETURN"
    assert moved(before, after) == [
        Movement("IPv4", "nat", "OUTPUT", 1, "-A OUTPUT -j ISTIO_OUTPUT", 1),
        Movement("IPv4", "nat", "ISTIO_OUTPUT", 9, "-A ISTIO_OUTPUT -j ISTIO_REDIRECT", 3),
        Movement("IPv4", "mangle", "ISTIO_INBOUND", 3, lo, 3),
    ]


def test_of_two_rules_alike_each_is_its_own() -> None:
    def chain(second: int) -> tuple[CountedChain, ...]:
        rules = f"[5:0] -A ISTIO_A -j RETURN\n[{second}:0] -A ISTIO_A -j RETURN\n"
        return counters(Machine(iptables_nft_save=f"*nat\n{rules}COMMIT\n"))

    assert [(each.number, each.packets) for each in moved(chain(1), chain(3))] == [(2, 2)]


# How it is shown

TABLE = """\
IPv4 (iptables-nft): a packet that is sent

mangle OUTPUT (policy ACCEPT 0 packets, 0 bytes)
  num pkts bytes target   prot in out source    destination
    1    0     0 RETURN   tcp  *  lo  0.0.0.0/0 0.0.0.0/0   mark 0x539
    2    0     0 MARK     tcp  *  lo  0.0.0.0/0 !127.0.0.1  owner UID 1337 set 0x53a
    3    0     0 MARK     tcp  *  lo  0.0.0.0/0 !127.0.0.1  owner GID 1337 set 0x53a
    4    0     0 CONNMARK tcp  *  *   0.0.0.0/0 0.0.0.0/0   connmark 0x539 restore

nat OUTPUT (policy ACCEPT 0 packets, 0 bytes)
  num pkts bytes target       prot in out source    destination
    1    1    60 LOG          tcp  *  *   0.0.0.0/0 0.0.0.0/0   -A OUTPUT -p tcp -m comment --comment mine -j LOG  not Istio's
    2    1    60 ISTIO_OUTPUT all  *  *   0.0.0.0/0 0.0.0.0/0

nat ISTIO_OUTPUT, from OUTPUT
  num pkts bytes target            prot in out source    destination
    1    0     0 RETURN            all  *  lo  127.0.0.6 0.0.0.0/0                                  Envoy passing inbound on to the application: straight on
    2    0     0 ISTIO_IN_REDIRECT tcp  *  lo  0.0.0.0/0 !127.0.0.1  tcp dpt:!15008 owner UID 1337  Envoy (uid 1337) to its own pod: back to Envoy, as inbound
    3    0     0 RETURN            all  *  lo  0.0.0.0/0 0.0.0.0/0   owner UID !1337                the application (not uid 1337) to its own pod: straight on
    4    0     0 RETURN            all  *  *   0.0.0.0/0 0.0.0.0/0   owner UID 1337                 Envoy itself (uid 1337) to elsewhere: straight on
"""  # noqa: E501 - as wide as it is


def test_lines_are_in_the_manner_of_iptables() -> None:
    shown = list(counter_table.lines(of("iptables-nft"), {}, width=200))
    head = TABLE.splitlines()
    assert shown[: len(head)] == head
    assert "  num pkts bytes target prot in out source    destination" in shown
    assert "    1    1    60 TPROXY tcp  *  *   0.0.0.0/0 !127.0.0.1  port 15006 mark 0x539/0xffffffff" in shown
    assert shown[-6:-4] == ["", "IPv4 (iptables-nft): no rule leads here"]


def test_in_a_narrow_terminal_there_are_no_purposes() -> None:
    shown = list(counter_table.lines(of("iptables-nft"), {}, width=120))
    assert not any("straight on" in line for line in shown)
    wide = list(counter_table.lines(of("iptables-nft"), {}, width=200))
    assert [line.startswith(short) for line, short in zip(wide, shown, strict=True)] == [True] * len(shown)


def test_a_chain_that_is_led_to_again_is_pointed_at() -> None:
    text = (
        "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:ISTIO_A - [0:0]\n"
        "-A PREROUTING -j ISTIO_A\n-A OUTPUT -j ISTIO_A\nCOMMIT\n"
    )
    shown = list(counter_table.lines(counters(Machine(iptables_nft_save=text)), {}, width=80))
    assert shown[-4:] == [
        "nat PREROUTING (policy ACCEPT 0 packets, 0 bytes)",
        "  num pkts bytes target  prot in out source    destination",
        "    1    -     - ISTIO_A all  *  *   0.0.0.0/0 0.0.0.0/0",
        "  ISTIO_A: above, under OUTPUT",
    ]


def test_data_is_for_programs() -> None:
    output = counter_table.data(of("iptables-nft"), {})[1]
    assert output.pop("rules")[0] == {
        "number": 1,
        "packets": 1,
        "bytes": 60,
        "rule": "-A OUTPUT -p tcp -m comment --comment mine -j LOG",
        "leadsTo": "LOG",
        "isOurs": False,
        "purpose": "not Istio's",
    }
    assert output == {
        "tool": "iptables-nft",
        "family": "IPv4",
        "way": "sent",
        "table": "nat",
        "chain": "OUTPUT",
        "from": "",
        "policy": "ACCEPT",
        "packets": 0,
        "bytes": 0,
    }


# Purposes


@pytest.mark.parametrize("case", recordings(), ids=lambda case: case.name)
def test_every_rule_of_istio_output_has_its_purpose(case: Recording) -> None:
    rules = [each for each in canonical(build(case.options().capture)) if each.chain == "ISTIO_OUTPUT"]
    assert all(": " in each for each in purposes(rules))


def test_purposes_of_groups_ports_and_ranges_name_them() -> None:
    told = [
        text
        for name in ("owner-groups-include", "owner-groups-exclude", "outbound-ports-exclude", "outbound-cidrs-dual")
        for text in purposes(
            [each for each in canonical(build(recording(name).options().capture)) if each.chain == "ISTIO_OUTPUT"]
        )
    ]
    for each in (
        "of no captured group: straight on",
        "sent by gid 888: straight on",
        "port 9999: straight on",
        "to 10.0.0.0/8: to Envoy, as outbound",
        "to 10.1.0.0/16: straight on",
    ):
        assert each in told
