"""What iptables-save says, read back: the whole of it into tables and chains, and a line into a rule.

The inverse of `rules.saved`, for both back ends: a line is a `Rule` when, and only when, `saved` says the same line
of it, but for counters and comments. Whatever else stands there is somebody else's: an `Unknown`, with its text and
what can be told of it.
"""

import ipaddress
import re
import shlex
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pilot_agent.interception.rules import FULL_MASK, Action, Condition, Kind, Rule, Verdict, saved, saved_conditions


class Count(NamedTuple):
    """Of what a rule matched, or of what came to a chain's policy."""

    packets: int
    bytes: int


@dataclass(slots=True)
class SavedChain:
    """`policy` of a built-in chain, such as ACCEPT. `lines`: `-A CHAIN ...`, in order, without counters.

    `counts` of the lines, `policy_count` of the policy; None where none is said, as without -c.
    """

    policy: str | None = None
    lines: list[str] = field(default_factory=list)
    policy_count: Count | None = None
    counts: list[Count | None] = field(default_factory=list)


SavedTables = dict[str, dict[str, SavedChain]]
"""Table, chain, what is in it; both in the order of iptables-save."""


class Unknown(NamedTuple):
    """A rule that is not one of ours can be. `conditions`: those that are understood, `is_understood`: all of them are.

    `target`: of -j or -g, without its options; "" where there is none. `chain`: "" where the line can't be read.
    """

    table: str
    chain: str
    text: str
    target: str = ""
    conditions: tuple[Condition, ...] = ()
    is_understood: bool = False


# The whole

_COUNTERS = re.compile(r"^\[(\d+):(\d+)\](?: |$)")
_INCOMPATIBLE = re.compile(r"# Table `(\w+)' is incompatible")
_ESCAPED = re.compile(r"\\.")


def parse_save(text: str) -> SavedTables:
    """Of iptables-save or ip6tables-save, with -c or without, warnings in between included."""
    tables: SavedTables = {}
    chains: dict[str, SavedChain] = {}
    for line in _logical_lines(text):
        if line.startswith("*"):
            chains = tables.setdefault(line[1:].strip(), {})
        elif line.startswith(":"):
            name, policy, counted, *_ = [*line[1:].split(), "-", "-", "-"]
            chain = chains.setdefault(name, SavedChain())
            if policy != "-":
                chain.policy, chain.policy_count = policy, _count(counted)
        elif (rule := _COUNTERS.sub("", line)).startswith("-A "):
            chain = chains.setdefault(rule.split()[1], SavedChain())
            chain.lines.append(rule)
            chain.counts.append(_count(line))
    return tables


def _count(text: str) -> Count | None:
    """Of `[packets:bytes]`, at the beginning of the text."""
    found = _COUNTERS.match(text)
    return Count(int(found[1]), int(found[2])) if found else None


def incompatible_tables(text: str) -> list[str]:
    """Tables that iptables-nft-save leaves out, because somebody has put rules in with nft that it can't say.

    Their warning has no end of line: the next table's first comment stands behind it.
    """
    return _INCOMPATIBLE.findall(text)


def _logical_lines(text: str) -> list[str]:
    """A comment of a rule may have an end of line in it; what follows is then no line of its own."""
    lines: list[str] = []
    is_open = False
    for line in text.split("\n"):
        if is_open:
            lines[-1] += f"\n{line}"
        elif line.strip():
            lines.append(line.strip())
        is_open = bool(lines) and lines[-1][:1] in "-[" and _ESCAPED.sub("", lines[-1]).count('"') % 2 == 1
    return lines


# A line

_SHORT: dict[str, Kind] = {"-s": "source", "-d": "destination", "-i": "in", "-o": "out", "-p": "protocol"}
_OF_MODULES: dict[str, dict[str, Kind]] = {
    "tcp": {"--sport": "source_port", "--dport": "port"},
    "udp": {"--sport": "source_port", "--dport": "port"},
    "multiport": {"--dports": "ports"},
    "owner": {"--uid-owner": "uid", "--gid-owner": "gid"},
    "conntrack": {"--ctstate": "state"},
    "mark": {"--mark": "mark"},
    "connmark": {"--mark": "connection_mark"},
    "comment": {},
}
_PLAIN: dict[str, Action] = {"RETURN": "return", "ACCEPT": "accept", "DROP": "drop"}
_EXTENSIONS = frozenset(
    "AUDIT CHECKSUM CLASSIFY CLUSTERIP CONNMARK CONNSECMARK CT DNAT DNPT DSCP ECN HL HMARK IDLETIMER LED LOG MARK "
    "MASQUERADE NETMAP NFLOG NFQUEUE NOTRACK QUEUE RATEEST REDIRECT REJECT SECMARK SET SNAT SNPT SYNPROXY TCPMSS "
    "TCPOPTSTRIP TEE TOS TPROXY TRACE TTL ULOG".split()
)
"""Targets that are no chains (iptables-extensions(8)); iptables lets no chain have such a name."""


class _Read(NamedTuple):
    conditions: tuple[Condition, ...]
    target: Sequence[str]
    unread: Sequence[str]
    is_goto: bool


def parse_rule(table: str, line: str) -> Rule | Unknown:
    """`line` starts with `-A`, or with counters before that. A comment is left out of a rule of ours."""
    text = _COUNTERS.sub("", line.strip())
    try:
        head, chain, *words = shlex.split(text) if '"' in text else text.split()
    except ValueError:  # a quotation without end, or nothing
        head, chain, words = "", "", []
    if head != "-A":
        return Unknown(table, chain, text)
    read = _read(words)
    target = read.target[0] if read.target else ""
    verdict = None if read.unread or read.is_goto else _verdict(read.target)
    rule = Rule(table, chain, read.conditions, verdict) if verdict else None
    if rule is not None and _says(rule, words, is_v6="::" in read.target):
        return rule
    return Unknown(table, chain, text, target, read.conditions, is_understood=not read.unread)


def _says(rule: Rule, words: Sequence[str], *, is_v6: bool) -> bool:
    """Whether iptables-save would say just this of the rule."""
    return saved(rule, 6 if is_v6 else 4).split()[2:] == _without_comments(words)


def _without_comments(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    rest = deque(words)
    while rest:
        if list(rest)[:3:2] == ["-m", "--comment"]:
            for _ in range(min(4, len(rest))):
                rest.popleft()
        else:
            kept.append(rest.popleft())
    return kept


def _read(words: Sequence[str]) -> _Read:
    conditions: list[Condition] = []
    unread: list[str] = []
    module, is_negated = "", False
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if word == "!":
            is_negated = True
            continue
        if word in ("-j", "-g"):
            return _Read(tuple(conditions), tuple(rest), unread, word == "-g")
        value = rest[0] if rest else ""
        kind = _SHORT.get(word) or _OF_MODULES.get(module, {}).get(word)
        if word == "-m" and value in _OF_MODULES:
            module = value
            rest.popleft()
        elif (module, word) == ("comment", "--comment") and rest:
            rest.popleft()
        elif kind is not None and (told := _value(kind, value)):
            conditions.append(Condition(kind, told, is_negated))
            rest.popleft()
        else:
            unread.append(word)
        is_negated = False
    return _Read(tuple(conditions), (), unread, is_goto=False)


_VALUES: dict[Kind, re.Pattern[str]] = {
    "uid": re.compile(r"\d+"),
    "gid": re.compile(r"\d+"),
    "port": re.compile(r"\d+(:\d+)?"),
    "source_port": re.compile(r"\d+(:\d+)?"),
    "ports": re.compile(r"\d+(:\d+)?(,\d+(:\d+)?)*"),
    "mark": re.compile(r"0x[0-9a-f]+"),
    "connection_mark": re.compile(r"0x[0-9a-f]+"),
}


def _value(kind: Kind, text: str) -> str:
    """As `canonical` has it; "" for one that our rules have not: a range of users, a mark with a mask."""
    pattern = _VALUES.get(kind)
    if pattern is not None and not pattern.fullmatch(text):
        return ""
    if kind in ("mark", "connection_mark"):
        return str(int(text, 16))
    if kind in ("source", "destination"):
        try:
            return str(ipaddress.ip_network(text))
        except ValueError:  # 10.0.0.0/255.0.255.0
            return ""
    return text


def _verdict(target: Sequence[str]) -> Verdict | None:
    match list(target):
        case [name] if name in _PLAIN:
            return Verdict(_PLAIN[name])
        case [chain] if chain not in _EXTENSIONS:
            return Verdict("jump", chain)
        case ["REDIRECT", "--to-ports", port]:
            return Verdict("redirect", port)
        case ["MARK", "--set-xmark", text] if mark := _whole_mark(text):
            return Verdict("set_mark", mark)
        case ["CONNMARK", ("--save-mark" | "--restore-mark") as option, *_]:
            return Verdict("save_mark" if option == "--save-mark" else "restore_mark")
        case ["TPROXY", "--on-port", port, "--on-ip", _, "--tproxy-mark", text] if mark := _whole_mark(text):
            return Verdict("tproxy", port, mark)
        case ["CT", "--zone", zone]:
            return Verdict("zone", zone)
        case _:
            return None


def _whole_mark(text: str) -> str:
    """`0x539/0xffffffff`: 1337; "" with another mask."""
    mark, _, mask = text.partition("/")
    return str(int(mark, 16)) if mask == FULL_MASK and _VALUES["mark"].fullmatch(mark) else ""


# A rule of ours


def bare(rule: Rule) -> Rule:
    """A canonical rule as it is read back: conditions in iptables-save's order, and without what that does not say."""
    return replace(
        rule, conditions=tuple(saved_conditions(rule)), family=None, index=None, is_terse=False, nft_protocol=""
    )
