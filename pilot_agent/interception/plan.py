"""From the rules that are there to those that are wanted: the difference, and the one restore that makes it.

Pure. What is ours is known by what is there, not by the flags of an earlier run: chains called ISTIO_*, jumps to them,
and the few plain rules that Istio puts into built-in chains. Everything else is somebody else's and stays where it is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pilot_agent.interception.rules import BUILT_IN_CHAINS, OWN_PREFIX, TABLES, Family, Rule, saved
from pilot_agent.interception.ruleset import Chains

Tables = Mapping[str, Mapping[str, Sequence[str]]]
"""Table, chain, lines `-A CHAIN ...` as iptables-save has them, in order."""
Kind = Literal["add", "remove"]
_Wanted = tuple[str, int | None]
"""A line, and its place in a built-in chain, from 1; None: behind everybody's."""

_JUMP = re.compile(rf" -[jg] ({OWN_PREFIX}\S+)(?: |$)")
_PLAIN = {
    "nat": (r"-A PREROUTING -i \S+ -j RETURN", r"-A OUTPUT -o \S+ -j RETURN"),
    "mangle": (r"-A PREROUTING -i \S+ -j RETURN", r"-A OUTPUT -o \S+ -j RETURN"),
}
"""Ours where a chain of ours is in the same table: by themselves they could be anybody's."""
_TELLING = {
    "mangle": (
        r"-A PREROUTING -p tcp -m mark --mark 0x\w+ -j CONNMARK --save-mark.*",
        r"-A OUTPUT -o lo -p tcp -m mark --mark 0x\w+ -j RETURN",
        r"-A OUTPUT ! -d \S+ -o lo -p tcp -m owner --[ug]id-owner \d+ -j MARK --set-xmark 0x53a/0xffffffff",
        r"-A OUTPUT -p tcp -m connmark --mark 0x\w+ -j CONNMARK --restore-mark.*",
    )
}
"""Ours anyway: nobody else has these."""


class Change(NamedTuple):
    """`text`: a rule as iptables-save has it, or `chain NAME`."""

    kind: Kind
    table: str
    chain: str
    text: str

    def described(self, family: Family) -> dict[str, Any]:
        return {"family": f"IPv{family}", **self._asdict()}

    def __str__(self) -> str:
        return f"{'+' if self.kind == 'add' else '-'} {self.table} {self.text}"


class Plan(NamedTuple):
    """`restore` is for `iptables-restore --noflush`; empty where nothing changes."""

    family: Family
    changes: tuple[Change, ...]
    restore: str


def plan(current: Tables, wanted: Chains, family: Family, *, is_forced: bool = False) -> Plan:
    """What to do about one family in one back end. `wanted` has the kernel's values; {} takes everything away.

    `is_forced`: what is as it should be is written anew.
    """
    lines = {
        table: {chain: list(_placed(chain, rules, family)) for chain, rules in chains.items()}
        for table, chains in wanted.items()
    }
    return _plan(current, lines, family, is_forced=is_forced)


def _placed(chain: str, rules: Sequence[Rule], family: Family) -> Iterator[_Wanted]:
    """In built-in chains Istio inserts some rules in front of everybody's, and appends the others."""
    for position, rule in enumerate(rules, 1):
        is_in_front = rule.index is not None and not _is_own(chain)
        yield saved(rule, family), position if is_in_front else None


def plan_back(current: Tables, before: Tables, family: Family) -> Plan:
    """What to do to have ours again as they were `before`."""
    lines: dict[str, dict[str, list[_Wanted]]] = {}
    for table, chains in before.items():
        for chain, own in own_lines(table, chains).items():
            # Where each stood among the rules of others.
            places = iter([place for place, line in enumerate(chains[chain], 1) if line in own])
            lines.setdefault(table, {})[chain] = [(line, None if _is_own(chain) else next(places)) for line in own]
    return _plan(current, lines, family)


def _plan(
    current: Tables, wanted: Mapping[str, Mapping[str, list[_Wanted]]], family: Family, *, is_forced: bool = False
) -> Plan:
    changes: list[Change] = []
    sections: list[str] = []
    for table in TABLES:
        difference = _Difference(table, current.get(table, {}), wanted.get(table, {}), is_forced=is_forced)
        if difference.lines:
            changes += difference.changes
            sections += [f"*{table}", *difference.lines, "COMMIT"]
    return Plan(family, tuple(changes), "".join(f"{line}\n" for line in sections))


def own_lines(table: str, chains: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """What is ours of a table, by chain; built-in chains only where something of ours is in them."""
    has_own_chain = any(chain.startswith(OWN_PREFIX) for chain in chains)
    found: dict[str, list[str]] = {}
    for chain, lines in chains.items():
        if chain.startswith(OWN_PREFIX):
            found[chain] = list(lines)
        elif own := [line for line in lines if _is_ours(table, line, has_own_chain=has_own_chain)]:
            found[chain] = own
    return found


def has_own(tables: Tables) -> bool:
    return any(own_lines(table, chains) for table, chains in tables.items())


def _is_ours(table: str, line: str, *, has_own_chain: bool) -> bool:
    if _JUMP.search(line):
        return True
    patterns = [*_TELLING.get(table, ()), *(_PLAIN.get(table, ()) if has_own_chain else ())]
    return any(re.fullmatch(pattern, line) for pattern in patterns)


class _Difference:
    """Of one table. `lines` of the restore; none where it is as it should be."""

    def __init__(
        self,
        table: str,
        current: Mapping[str, Sequence[str]],
        wanted: Mapping[str, list[_Wanted]],
        *,
        is_forced: bool,
    ) -> None:
        self._table, self._wanted, self._is_forced = table, wanted, is_forced
        self._own = own_lines(table, current)
        self.changes: list[Change] = []
        self.lines: list[str] = []
        stale = [chain for chain in self._own if _is_own(chain) and chain not in self._wanted]
        rebuilt = [chain for chain in self._wanted if _is_own(chain) and self._differs(chain)]
        # First all chains exist and are empty, then nothing leads to the old ones, then they go.
        self.lines += [f":{chain} - [0:0]" for chain in (*rebuilt, *stale)]
        for chain in rebuilt:
            self._rebuild(chain)
        for chain in dict.fromkeys([*self._own, *self._wanted]):
            if not _is_own(chain) and self._differs(chain):
                self._change_built_in(chain)
        for chain in stale:
            self._remove(chain)

    def _differs(self, chain: str) -> bool:
        if self._is_forced or (chain in self._wanted and _is_own(chain) and chain not in self._own):
            return True
        return self._own.get(chain, []) != [line for line, _ in self._wanted.get(chain, [])]

    def _rebuild(self, chain: str) -> None:
        before, after = self._own.get(chain), [line for line, _ in self._wanted[chain]]
        if before is None:
            self._note("add", chain, f"chain {chain}")
        self._note_lines(chain, before or [], after)
        self.lines += after

    def _change_built_in(self, chain: str) -> None:
        """Ours go and come again, each in its place."""
        before, after = self._own.get(chain, []), self._wanted.get(chain, [])
        self._note_lines(chain, before, [line for line, _ in after])
        self.lines += [f"-D{line.removeprefix('-A')}" for line in before]
        for line, place in after:
            self.lines.append(line if place is None else f"-I {chain} {place}{line.removeprefix(f'-A {chain}')}")

    def _remove(self, chain: str) -> None:
        for line in self._own[chain]:
            self._note("remove", chain, line)
        self._note("remove", chain, f"chain {chain}")
        self.lines.append(f"-X {chain}")

    def _note_lines(self, chain: str, before: Sequence[str], after: Sequence[str]) -> None:
        from difflib import SequenceMatcher

        for kind, start, end, from_, to in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if kind != "equal":
                for line in before[start:end]:
                    self._note("remove", chain, line)
                for line in after[from_:to]:
                    self._note("add", chain, line)

    def _note(self, kind: Kind, chain: str, text: str) -> None:
        self.changes.append(Change(kind, self._table, chain, text))


def _is_own(chain: str) -> bool:
    return chain not in BUILT_IN_CHAINS


def shown(plans: Sequence[Plan]) -> Iterator[str]:
    """Lines for a person: a head for each family that changes, then its changes."""
    for each in plans:
        if each.changes:
            yield f"IPv{each.family}"
            yield from (f"  {change}" for change in each.changes)
