"""What the rules that are there have counted: chains in the order a packet meets them, and what moved between readings.

Of every tool that has something of Istio's: both back ends of iptables, each with its two families, and native
nftables, whose tables are of both. Nothing is changed. How they are shown is `counter_table`'s to know.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.execute import CommandMissing, Run
from pilot_agent.interception.kernel import Backend, Iptables, binary
from pilot_agent.interception.nft import Nft
from pilot_agent.interception.nft_listing import Tables
from pilot_agent.interception.nftables import table_name
from pilot_agent.interception.parse import Count, SavedTables, Unknown, parse_rule, parse_save
from pilot_agent.interception.plan import own_lines
from pilot_agent.interception.rules import BUILT_IN_CHAINS, OWN_PREFIX, Family

Way = Literal["sent", "arriving", "unreached"]
NATIVE = "nft"


class CountedRule(NamedTuple):
    """`number`: its place in the chain, from 1. `text` as its tool says it, on one line, without counters.

    `counted`: None for a rule of nft that has no counter. `leads_to`: the chain it jumps to, or "".
    """

    number: int
    counted: Count | None
    text: str
    leads_to: str = ""
    is_ours: bool = True


class CountedChain(NamedTuple):
    """`tool`: iptables-nft, iptables-legacy, iptables or nft. `family`: IPv4, IPv6, or inet for both.

    `way`: of the packets that come here first, a packet that is sent, or one that arrives; `unreached` when no rule
    leads here. `caller`: the chain whose rule leads here first; "" for one of the kernel's hooks. `counted`: what was
    left to the `policy`; both are said of iptables' built-in chains only.
    """

    tool: str
    family: str
    way: Way
    table: str
    name: str
    rules: tuple[CountedRule, ...]
    caller: str = ""
    policy: str = ""
    counted: Count | None = None


class Movement(NamedTuple):
    """A rule that has matched: so many packets more than before."""

    family: str
    table: str
    chain: str
    number: int
    text: str
    packets: int


def counters(run: Run) -> tuple[CountedChain, ...]:
    """Every chain that holds something of ours, as a packet meets them: sent first, then arriving; by tool and family.

    A chain that several rules lead to stands once, behind the first that does. Raises InterceptionError when no tool
    can be asked.
    """
    iptables, nft = Iptables(run), Nft(run)
    readings = [
        _read(lambda: _of_iptables(iptables, "nft")),
        _read(lambda: _of_iptables(iptables, "legacy")),
        _read(lambda: _of_nft(nft.tables(with_counters=True))),
    ]
    if all(isinstance(each, CommandMissing) for each in readings[:2]):
        readings.insert(0, _read(lambda: _of_iptables(iptables, "plain")))
    problems = [each for each in readings if isinstance(each, InterceptionError)]
    if len(problems) == len(readings):
        raise problems[0]
    return tuple(chain for each in readings if not isinstance(each, InterceptionError) for chain in each)


def _read(reading: Callable[[], list[CountedChain]]) -> list[CountedChain] | InterceptionError:
    """Of one tool. One that is not there, or that this kernel has no part for, has no rules either."""
    try:
        return reading()
    except InterceptionError as error:
        return error


def moved(before: Iterable[CountedChain], after: Iterable[CountedChain]) -> list[Movement]:
    """The rules that have matched between two readings, in the order of the second.

    A rule is known by its text, so that one in front of it that comes or goes makes no difference; one that has been
    written anew meanwhile has all it counted from then on.
    """
    earlier = {key: rule.counted for _, key, rule in _keyed(before)}
    found = []
    for chain, key, rule in _keyed(after):
        was, now = earlier.get(key), rule.counted
        if now is None:
            continue
        packets = now.packets if was is None or was.packets > now.packets else now.packets - was.packets
        if packets:
            found.append(Movement(chain.family, chain.table, chain.name, rule.number, rule.text, packets))
    return found


def _keyed(chains: Iterable[CountedChain]) -> Iterator[tuple[CountedChain, tuple[object, ...], CountedRule]]:
    for chain in chains:
        same: Counter[str] = Counter()
        for rule in chain.rules:
            same[rule.text] += 1
            yield chain, (chain.tool, chain.family, chain.table, chain.name, rule.text, same[rule.text]), rule


class _Base(NamedTuple):
    """Where packets come into a table."""

    way: Way
    table: str
    chain: str


_Chains = Mapping[tuple[str, str], CountedChain]
"""By table and chain; `way` and `caller` are not told yet. Those without anything of ours have no rule that is."""


def _in_order(chains: _Chains, bases: Iterable[_Base]) -> list[CountedChain]:
    ordered: dict[tuple[str, str], CountedChain] = {}
    passed: set[tuple[str, str]] = set()

    def enter(way: Way, table: str, name: str, caller: str) -> None:
        chain = chains.get((table, name))
        if chain is None or (table, name) in passed:
            return
        passed.add((table, name))
        if any(rule.is_ours for rule in chain.rules) or name.startswith(OWN_PREFIX):
            ordered[table, name] = chain._replace(way=way, caller=caller)
        for rule in chain.rules:
            enter(way, table, rule.leads_to, name)

    for base in bases:
        enter(base.way, base.table, base.chain, "")
    for table, name in chains:
        if name not in BUILT_IN_CHAINS:
            enter("unreached", table, name, "")
    return list(ordered.values())


# iptables

_HOOKS: tuple[tuple[Way, str, tuple[str, ...]], ...] = (
    ("sent", "OUTPUT", ("raw", "mangle", "nat", "filter")),
    ("sent", "POSTROUTING", ("mangle", "nat")),
    ("arriving", "PREROUTING", ("raw", "mangle", "nat")),
    ("arriving", "FORWARD", ("mangle", "filter")),
    ("arriving", "INPUT", ("mangle", "filter", "nat")),
)
_BASES = [_Base(way, table, hook) for way, hook, tables in _HOOKS for table in tables]


def _of_iptables(iptables: Iptables, backend: Backend) -> list[CountedChain]:
    found = _of_family(iptables, backend, 4)
    try:
        return found + _of_family(iptables, backend, 6)
    except InterceptionError:
        return found  # some kernels are without IPv6


def _of_family(iptables: Iptables, backend: Backend, family: Family) -> list[CountedChain]:
    tables = parse_save(iptables.said(backend, family, with_counters=True))
    return _in_order(_saved_chains(tables, binary(backend, 4), f"IPv{family}"), _BASES)


def _saved_chains(tables: SavedTables, tool: str, family: str) -> _Chains:
    found = {}
    for table, chains in tables.items():
        ours = own_lines(table, {name: chain.lines for name, chain in chains.items()})
        for name, chain in chains.items():
            rules = tuple(
                CountedRule(number, count, line.replace("\n", "\\n"), _target(table, line), line in ours.get(name, ()))
                for number, (line, count) in enumerate(zip(chain.lines, chain.counts, strict=True), 1)
            )
            found[table, name] = CountedChain(
                tool, family, "unreached", table, name, rules, "", chain.policy or "", chain.policy_count
            )
    return found


def _target(table: str, line: str) -> str:
    """Where no chain has this name it is none."""
    rule = parse_rule(table, line)
    if isinstance(rule, Unknown):
        return rule.target
    return rule.verdict.value if rule.verdict.action == "jump" else ""


# nft

_COUNTER = re.compile(r'((?:"[^"]*"|[^"])*?\bcounter) packets (\d+) bytes (\d+)')
_JUMP = re.compile(r"\b(?:jump|goto) (\S+)")
_QUOTED = re.compile(r'"[^"]*"')
_HOOK = re.compile(r"hook (\w+) priority (-?\d+)")
_WAYS: dict[str, Way] = {
    "output": "sent",
    "postrouting": "sent",
    "prerouting": "arriving",
    "forward": "arriving",
    "input": "arriving",
}
"""By hook, in the order of a packet's way."""


def _of_nft(tables: Tables) -> list[CountedChain]:
    found: dict[tuple[str, str], CountedChain] = {}
    bases: list[tuple[int, int, _Base]] = []
    for short, table in tables.items():
        name_of_table = table_name(short).removeprefix("inet ")
        for name, chain in table.chains.items():
            rules = tuple(_nft_rule(number, text) for number, text in enumerate(chain.rules, 1))
            found[name_of_table, name] = CountedChain(NATIVE, "inet", "unreached", name_of_table, name, rules)
            hook = _HOOK.search(chain.base)
            if hook is not None and hook[1] in _WAYS:
                base = _Base(_WAYS[hook[1]], name_of_table, name)
                bases.append((list(_WAYS).index(hook[1]), int(hook[2]), base))
    return _in_order(found, [base for *_, base in sorted(bases)])


def _nft_rule(number: int, listed: str) -> CountedRule:
    counted = _COUNTER.match(listed)
    text = counted[1] + listed[counted.end() :] if counted else listed
    jump = _JUMP.search(_QUOTED.sub("", text))
    count = Count(int(counted[2]), int(counted[3])) if counted else None
    return CountedRule(number, count, text, jump[1] if jump else "")
