"""What went wrong in iptables, in one line that says what to do; and which back end is used."""

import pytest

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.execute import CommandMissing, Outcome
from pilot_agent.interception.kernel import Iptables, choose, explained

OURS = "*nat\n:PREROUTING ACCEPT [0:0]\n:ISTIO_REDIRECT - [0:0]\nCOMMIT\n"
FOREIGN = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j ACCEPT\nCOMMIT\n"
EMPTY_TABLE = "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\nCOMMIT\n"


@pytest.mark.parametrize(
    ("complaint", "command", "told"),
    [
        (
            "iptables-restore v1.8.9 (legacy): can't initialize iptables table `raw': Table does not exist",
            "iptables-legacy-restore",
            "the kernel lacks table raw: load its module iptable_raw on the node",
        ),
        (
            "ip6tables v1.8.9 (legacy): can't initialize ip6tables table `nat': Table does not exist",
            "ip6tables-legacy-save",
            "the kernel lacks table nat: load its module ip6table_nat on the node",
        ),
        (
            "iptables-restore v1.8.9 (nf_tables): Couldn't load match `owner':No such file or directory",
            "iptables-nft-restore",
            "the kernel lacks match owner: load its module xt_owner on the node",
        ),
        (
            "Warning: Extension TPROXY revision 0 not supported, missing kernel module?",
            "iptables-nft-restore",
            "the kernel lacks extension TPROXY: load its module xt_tproxy on the node",
        ),
        (
            "iptables v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
            "iptables-nft-save",
            "no permission: it takes root and the capability NET_ADMIN",
        ),
    ],
)
def test_what_is_missing_is_named(complaint: str, command: str, told: str) -> None:
    text = explained(Outcome(3, "", complaint), command)
    assert text.startswith(told)
    assert "\n" not in text


def test_a_refused_rule_is_told_with_its_line() -> None:
    outcome = Outcome(2, "", "iptables-restore v1.8.9: Bad argument `x'\nError occurred at line: 2\n")
    assert explained(outcome, "iptables-restore", text="*nat\n-A OUTPUT x\nCOMMIT\n").endswith(": -A OUTPUT x")


class Installed:
    """What each `-save` says; a command without words is not installed."""

    def __init__(self, **words: str) -> None:
        self._words = {name.replace("_", "-"): text for name, text in words.items()}

    def __call__(self, argv: list[str], stdin: str = "", variables: object = None) -> Outcome:
        if argv[0] not in self._words:
            raise CommandMissing(f"{argv[0]} was not found")
        text = self._words[argv[0]]
        return Outcome(1, "", text) if text.startswith("no ") else Outcome(0, text)


BOTH = {
    "iptables_legacy_save": "",
    "ip6tables_legacy_save": "",
    "iptables_nft_save": "",
    "ip6tables_nft_save": "",
}


@pytest.mark.parametrize(
    ("there", "forced", "chosen"),
    [
        ({}, "", "nft"),
        ({"iptables_legacy_save": EMPTY_TABLE}, "", "nft"),
        ({"iptables_legacy_save": FOREIGN}, "", "legacy"),
        ({"iptables_legacy_save": FOREIGN, "iptables_nft_save": OURS}, "", "nft"),
        ({"ip6tables_legacy_save": OURS}, "", "legacy"),
        ({"iptables_legacy_save": OURS, "iptables_nft_save": OURS}, "", "nft"),
        ({"iptables_nft_save": "no kernel support"}, "", "legacy"),
        ({"iptables_legacy_save": OURS}, "nft", "nft"),
        ({}, "legacy", "legacy"),
    ],
)
def test_which_back_end_is_used(there: dict[str, str], forced: str, chosen: str) -> None:
    found = choose(Iptables(Installed(**(BOTH | there))), forced, needs_ipv6=False)  # type: ignore[arg-type]
    assert found.reading.backend == chosen


def test_rules_of_ours_in_the_other_one_are_told() -> None:
    found = choose(Iptables(Installed(**(BOTH | {"iptables_legacy_save": OURS}))), "nft", needs_ipv6=False)  # type: ignore[arg-type]
    assert found.other is not None and found.other.backend == "legacy"


def test_without_a_suffix_whatever_iptables_is_will_do() -> None:
    found = choose(Iptables(Installed(iptables_save="", ip6tables_save="")), "", needs_ipv6=True)  # type: ignore[arg-type]
    assert found.reading.backend == "plain"


def test_ipv6_that_can_not_be_read_matters_where_it_is_needed() -> None:
    there = {**BOTH, "ip6tables_nft_save": "no IPv6", "ip6tables_legacy_save": "no IPv6"}
    assert choose(Iptables(Installed(**there)), "", needs_ipv6=False).reading.tables[6] == {}  # type: ignore[arg-type]
    with pytest.raises(InterceptionError, match=r"^ip6tables-nft-save: no IPv6"):
        choose(Iptables(Installed(**there)), "", needs_ipv6=True)  # type: ignore[arg-type]


def test_a_forced_one_that_is_not_there_is_an_error() -> None:
    only_nft = {"iptables_nft_save": "", "ip6tables_nft_save": ""}
    with pytest.raises(InterceptionError, match="--force-iptables-binary legacy: iptables-legacy-save was not found"):
        choose(Iptables(Installed(**only_nft)), "legacy", needs_ipv6=False)  # type: ignore[arg-type]
