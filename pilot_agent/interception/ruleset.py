"""Rules of one family put in order, as chains of tables: the text that iptables-restore is given, and what
iptables-save says of them afterwards.
"""

from collections.abc import Sequence

from pilot_agent.interception.rules import BUILT_IN_CHAINS, Family, Rule, saved, written

Chains = dict[str, dict[str, list[Rule]]]
"""Table, chain, rules in the kernel's order. A chain that is only jumped to is there, and empty."""


def chains_of(rules: Sequence[Rule]) -> Chains:
    """Where each rule ends up: inserted ones at their index, all others behind."""
    found: Chains = {}
    for rule in rules:
        chain = found.setdefault(rule.table, {}).setdefault(rule.chain, [])
        if rule.index is None:
            chain.append(rule)
        else:
            chain.insert(rule.index - 1, rule)
    for table in found.values():
        targets = [rule.verdict.value for chain in table.values() for rule in chain if rule.verdict.action == "jump"]
        for target in targets:
            table.setdefault(target, [])
    return found


def restore_text(rules: Sequence[Rule]) -> str:
    """What Istio gives to `iptables-restore --noflush`: section 6."""
    parts: list[str] = []
    for table in sorted({rule.table for rule in rules}):
        own = [rule for rule in rules if rule.table == table]
        chains = dict.fromkeys([*(rule.chain for rule in own), *_targets(own)])
        parts.append(f"* {table}")
        parts += [f"-N {chain}" for chain in chains if chain not in BUILT_IN_CHAINS]
        parts += [written(rule) for rule in own]
        parts.append("COMMIT")
    return "".join(f"{line}\n" for line in parts)


def _targets(rules: Sequence[Rule]) -> list[str]:
    return [rule.verdict.value for rule in rules if rule.verdict.action == "jump"]


def saved_lines(table: dict[str, list[Rule]], family: Family) -> list[str]:
    """The lines of iptables-save for a table: chains of our own by name, then the rules of every chain.

    Without policies and counters. Built-in chains come first, in the kernel's order, as iptables-save has them.
    """
    own = sorted(chain for chain in table if chain not in BUILT_IN_CHAINS)
    built_in = [chain for chain in _KERNEL_ORDER if chain in table]
    rules = [saved(rule, family) for chain in (*built_in, *own) for rule in table[chain]]
    return [*(f":{chain} -" for chain in own), *rules]


_KERNEL_ORDER = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
