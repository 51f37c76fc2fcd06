"""What a capture rule is, and its written forms with iptables: as it is given, and as iptables-save says it.

A rule is conditions, all of which must hold, and what is done then. Which rules are wanted is `build`'s to know.
The forms are those of reference iptables.md, sections 5 and 11, held by recordings of the original; those with nft are
in `nft_words`.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Family = Literal[4, 6]
Kind = Literal[
    "in",
    "out",
    "source",
    "destination",
    "protocol",
    "source_port",
    "port",
    "ports",
    "uid",
    "gid",
    "state",
    "mark",
    "connection_mark",
]
Action = Literal[
    "return",
    "accept",
    "drop",
    "jump",
    "redirect",
    "set_mark",
    "save_mark",
    "restore_mark",
    "tproxy",
    "zone",
]

TABLES = ("filter", "mangle", "nat", "raw")
BUILT_IN_CHAINS = frozenset(("INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING"))
OWN_PREFIX = "ISTIO_"
FULL_MASK = "0xffffffff"


class Condition(NamedTuple):
    """`value` as it was told; several of `ports` and `state` with commas between."""

    kind: Kind
    value: str
    is_negated: bool = False


class Verdict(NamedTuple):
    """`value`: the chain of a jump, the port of a redirect or tproxy, the mark or zone that is set.

    `mark` is set by tproxy as well.
    """

    action: Action
    value: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """`family` None: the same in both. `index` from 1: inserted there, else appended.

    `is_terse`: nft's form does without `meta l4proto tcp` in front of a port. `nft_protocol`: one that only nft's has.
    """

    table: str
    chain: str
    conditions: tuple[Condition, ...]
    verdict: Verdict
    family: Family | None = None
    index: int | None = None
    is_terse: bool = False
    nft_protocol: str = ""


# As it is given to iptables

_WORDS: dict[Kind, tuple[str, ...]] = {
    "in": ("-i",),
    "out": ("-o",),
    "source": ("-s",),
    "destination": ("-d",),
    "protocol": ("-p",),
    "source_port": ("--sport",),
    "port": ("--dport",),
    "ports": ("-m", "multiport", "--dports"),
    "uid": ("-m", "owner", "--uid-owner"),
    "gid": ("-m", "owner", "--gid-owner"),
    "state": ("-m", "conntrack", "--ctstate"),
    "mark": ("-m", "mark", "--mark"),
    "connection_mark": ("-m", "connmark", "--mark"),
}


def written(rule: Rule) -> str:
    """`-A CHAIN ...` or `-I CHAIN n ...`, as Istio gives it to iptables-restore."""
    head = ("-A", rule.chain) if rule.index is None else ("-I", rule.chain, str(rule.index))
    conditions = [word for each in rule.conditions for word in _written_condition(each)]
    return " ".join([*head, *conditions, "-j", *_written_verdict(rule)])


def _written_condition(condition: Condition) -> list[str]:
    *before, option = _WORDS[condition.kind]
    return [*before, *(["!"] if condition.is_negated else []), option, condition.value]


def _written_verdict(rule: Rule) -> list[str]:
    action, value, mark = rule.verdict
    match action:
        case "jump":
            return [value]
        case "redirect":
            is_udp = Condition("protocol", "udp") in rule.conditions
            return ["REDIRECT", "--to-port" if is_udp else "--to-ports", value]
        case "set_mark":
            return ["MARK", "--set-mark", value]
        case "save_mark" | "restore_mark":
            return ["CONNMARK", f"--{action.replace('_', '-')}"]
        case "tproxy":
            return ["TPROXY", "--tproxy-mark", f"{mark}/{FULL_MASK}", "--on-port", value]
        case "zone":
            return ["CT", "--zone", value]
        case _:
            return [action.upper()]


# As iptables-save says it; of rules whose values are the kernel's (`canonical.canonical`)

_FIRST: tuple[Kind, ...] = ("source", "destination", "in", "out", "protocol")


def saved(rule: Rule, family: Family) -> str:
    """`-A CHAIN ...`, in the order and with the words of iptables-save."""
    protocol = next((each.value for each in rule.conditions if each.kind == "protocol"), "")
    words = ["-A", rule.chain]
    for each in saved_conditions(rule):
        words += _saved_match(each, protocol)
    return " ".join([*words, "-j", *_saved_verdict(rule, family)])


def saved_conditions(rule: Rule) -> list[Condition]:
    """In the order of iptables-save."""
    first = [each for kind in _FIRST for each in rule.conditions if each.kind == kind]
    return first + [each for each in rule.conditions if each.kind not in _FIRST]


def _saved_match(condition: Condition, protocol: str) -> list[str]:
    kind, value, _ = condition
    *before, option = _WORDS[kind]
    if kind in ("port", "source_port"):
        before = ["-m", protocol]
    if kind in ("mark", "connection_mark"):
        value = _hex(value)
    return [*before, *(["!"] if condition.is_negated else []), option, value]


def _saved_verdict(rule: Rule, family: Family) -> list[str]:
    action, value, mark = rule.verdict
    masks = ["--nfmask", FULL_MASK, "--ctmask", FULL_MASK]
    match action:
        case "redirect":
            return ["REDIRECT", "--to-ports", value]
        case "set_mark":
            return ["MARK", "--set-xmark", f"{_hex(value)}/{FULL_MASK}"]
        case "save_mark" | "restore_mark":
            return ["CONNMARK", f"--{action.replace('_', '-')}", *masks]
        case "tproxy":
            address = "0.0.0.0" if family == 4 else "::"  # noqa: S104 - as the kernel says "whatever address it had"
            return ["TPROXY", "--on-port", value, "--on-ip", address, "--tproxy-mark", f"{_hex(mark)}/{FULL_MASK}"]
        case _:
            return _written_verdict(rule)


def _hex(number: str) -> str:
    return hex(int(number, 0))
