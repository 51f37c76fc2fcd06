"""iptables-save read back: recorded lines and random rules come back as they were, foreign ones stay as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.interception.build import build, of_family
from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.parse import Count, SavedChain, Unknown, bare, incompatible_tables, parse_rule, parse_save
from pilot_agent.interception.rules import Condition, Family, Rule, Verdict, saved
from pilot_agent.interception.ruleset import chains_of
from tests.unit.interception.random_rules import rules
from tests.unit.interception.recordings import Recording, recordings

FAMILIES: tuple[Family, ...] = (4, 6)


@pytest.mark.parametrize("case", recordings(), ids=lambda case: case.name)
def test_recorded_lines_are_the_rules_that_are_wanted(case: Recording) -> None:
    capture = case.options().capture
    wanted = canonical(build(capture))
    for family in FAMILIES[: 1 + capture.has_ipv6]:
        for table, chains in chains_of(of_family(wanted, family)).items():
            lines = [line for line in case.saved[family][table] if line.startswith("-A")]
            expected = [bare(rule) for chain in chains.values() for rule in chain]
            found = [parse_rule(table, line) for line in lines]
            assert sorted(found, key=repr) == sorted(expected, key=repr)


@given(rules(), st.sampled_from(FAMILIES))
def test_a_rule_comes_back_from_its_line(rule: Rule, family: Family) -> None:
    line = saved(rule, family)
    assert parse_rule(rule.table, line) == bare(rule)
    assert parse_rule(rule.table, f"[12:3456] {line}") == bare(rule)


@given(rules(), st.sampled_from(FAMILIES), st.text(st.characters(blacklist_characters="\0"), min_size=1))
def test_a_comment_is_no_part_of_a_rule(rule: Rule, family: Family, comment: str) -> None:
    before, jump, after = saved(rule, family).partition(" -j ")
    quoted = "".join(f"\\{each}" if each in "\"'\\" else each for each in comment)
    line = f'{before} -m comment --comment "{quoted}"{jump}{after}'
    assert parse_rule(rule.table, line) == bare(rule)
    chains = parse_save(f"*{rule.table}\n{line}\nCOMMIT\n")[rule.table]
    assert [len(chain.lines) for chain in chains.values()] == [1], "an end of line in a comment ends nothing"


@pytest.mark.parametrize(
    ("line", "target", "conditions", "is_understood"),
    [
        ("-A OUTPUT -p udp -m udp --dport 53 -j REDIRECT", "REDIRECT", "protocol port", True),
        ("-A OUTPUT -p tcp -j DNAT --to-destination 1.2.3.4:5", "DNAT", "protocol", True),
        ("-A OUTPUT -p tcp -g OTHER", "OTHER", "protocol", True),
        ("-A OUTPUT -j MASQUERADE", "MASQUERADE", "", True),
        ("-A OUTPUT -p tcp", "", "protocol", True),
        ('-A OUTPUT -i eth0 -m comment --comment "-j DROP" -j LOG --log-prefix "a b "', "LOG", "in", True),
        ("-A OUTPUT -p tcp -m socket --transparent -j ISTIO_DIVERT", "ISTIO_DIVERT", "protocol", False),
        ("-A OUTPUT -p tcp -m tcp --dport 5 --tcp-flags SYN SYN -j DROP", "DROP", "protocol port", False),
        ("-A OUTPUT -p tcp -m multiport --ports 5,6:9 -j DROP", "DROP", "protocol", False),
        ("-A OUTPUT -m owner --uid-owner 0-5 -j RETURN", "RETURN", "", False),
        ("-A OUTPUT -m mark --mark 0x1/0xff -j RETURN", "RETURN", "", False),
        ("-A OUTPUT -s 10.0.0.0/255.0.255.0 -o lo -j RETURN", "RETURN", "out", False),
        ("-A OUTPUT -m state --state NEW -j RETURN", "RETURN", "", False),
        ("-A OUTPUT -p tcp -j MARK --set-xmark 0x5/0x5", "MARK", "protocol", True),
        ("-A OUTPUT -p tcp -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xf", "CONNMARK", "protocol", True),
        ("-A OUTPUT -p tcp -j CONNMARK --set-xmark 0x5/0xffffffff", "CONNMARK", "protocol", True),
        (
            "-A OUTPUT -p tcp -j TPROXY --on-port 5 --on-ip 1.2.3.4 --tproxy-mark 0x5/0xffffffff",
            "TPROXY",
            "protocol",
            1,
        ),
        ("-A OUTPUT -p tcp -j CT --helper ftp --zone 1", "CT", "protocol", True),
        ("-A OUTPUT -p tcp -m tcp -j RETURN", "RETURN", "protocol", True),
        ('-A OUTPUT -m comment --comment "without an end -j DROP', "", "", False),
        ("nonsense", "", "", False),
        ("", "", "", False),
    ],
)
def test_a_foreign_rule_keeps_its_text(line: str, target: str, conditions: str, is_understood: bool) -> None:
    found = parse_rule("nat", line)
    assert isinstance(found, Unknown)
    assert (found.table, found.text, found.target) == ("nat", line, target)
    assert [each.kind for each in found.conditions] == conditions.split()
    assert found.is_understood == is_understood


def test_a_foreign_rule_of_known_words_is_a_rule() -> None:
    found = parse_rule("filter", "-A INPUT -s 1.0.0.0/8 -d 1.2.3.0/24 -i et+ ! -p udp -j OTHER")
    assert found == Rule(
        "filter",
        "INPUT",
        (
            Condition("source", "1.0.0.0/8"),
            Condition("destination", "1.2.3.0/24"),
            Condition("in", "et+"),
            Condition("protocol", "udp", is_negated=True),
        ),
        Verdict("jump", "OTHER"),
    )


@given(st.text())
def test_any_line_is_a_rule_or_unknown(text: str) -> None:
    parse_rule("nat", text)
    parse_rule("nat", f"-A OUTPUT {text}")
    parse_save(text)


SAVED = r"""# Generated by iptables-nft-save v1.8.9 (nf_tables) on Fri Nov 27 07:51:35 2026
*filter
:INPUT DROP [7:420]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:OTHER - [0:0]
[3:180] -A INPUT -m comment --comment "x \"y\" it\'s
-A INPUT -j DROP" -j ACCEPT
-A INPUT -m comment --comment plain -j OTHER
-A OTHER -g INPUT
COMMIT
# Completed on Fri Nov 27 07:51:35 2026
# Table `raw' is incompatible, use 'nft' tool.# Generated by iptables-nft-save v1.8.9 (nf_tables) on Fri Nov 27
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_OUTPUT - [0:0]
-A OUTPUT -j ISTIO_OUTPUT
COMMIT
# Completed on Fri Nov 27 07:51:35 2026
# Table `mangle' is incompatible, use 'nft' tool.# Warning: iptables-legacy tables present, use iptables-legacy-save
"""


def test_a_whole_save_output() -> None:
    assert parse_save(SAVED) == {
        "filter": {
            "INPUT": SavedChain(
                "DROP",
                [
                    '-A INPUT -m comment --comment "x \\"y\\" it\\\'s\n-A INPUT -j DROP" -j ACCEPT',
                    "-A INPUT -m comment --comment plain -j OTHER",
                ],
                Count(7, 420),
                [Count(3, 180), None],
            ),
            "FORWARD": SavedChain("ACCEPT", [], Count(0, 0)),
            "OUTPUT": SavedChain("ACCEPT", [], Count(0, 0)),
            "OTHER": SavedChain(None, ["-A OTHER -g INPUT"], None, [None]),
        },
        "nat": {
            "PREROUTING": SavedChain("ACCEPT", [], Count(0, 0)),
            "OUTPUT": SavedChain("ACCEPT", ["-A OUTPUT -j ISTIO_OUTPUT"], Count(0, 0), [None]),
            "ISTIO_OUTPUT": SavedChain(None, []),
        },
    }
    assert incompatible_tables(SAVED) == ["raw", "mangle"]
    assert parse_save("") == {}
