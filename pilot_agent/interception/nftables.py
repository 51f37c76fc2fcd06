"""The native nftables script: three tables of family inet, replaced in one transaction (reference iptables.md, 12)."""

from collections.abc import Iterable, Sequence

from pilot_agent.interception.nft_words import chain_name, written
from pilot_agent.interception.rules import Rule

TABLES = ("nat", "mangle", "raw")
"""In the order in which they are written."""
_ORDER = {
    "nat": (
        "PREROUTING",
        "OUTPUT",
        "ISTIO_INBOUND",
        "ISTIO_REDIRECT",
        "ISTIO_IN_REDIRECT",
        "ISTIO_OUTPUT",
        "ISTIO_OUTPUT_DNS",
    ),
    "mangle": ("PREROUTING", "OUTPUT", "ISTIO_DIVERT", "ISTIO_TPROXY", "ISTIO_INBOUND", "ISTIO_DROP"),
    "raw": ("PREROUTING", "OUTPUT", "ISTIO_INBOUND", "ISTIO_OUTPUT_DNS"),
}
_HOOKS = {
    ("nat", "PREROUTING"): "type nat hook prerouting priority -100",
    ("nat", "OUTPUT"): "type nat hook output priority -100",
    ("mangle", "PREROUTING"): "type filter hook prerouting priority -150",
    ("mangle", "OUTPUT"): "type route hook output priority -150",
    ("raw", "PREROUTING"): "type filter hook prerouting priority -300",
    ("raw", "OUTPUT"): "type filter hook output priority -300",
}


def table_name(table: str) -> str:
    return f"inet istio-proxy-{table}"


def script(rules: Sequence[Rule]) -> list[str]:
    """Istio's commands for `nft -f -`. A table without rules is not in it: `removal` is for those."""
    lines: list[str] = []
    for table in TABLES:
        own = [rule for rule in rules if rule.table == table]
        if own:
            lines += _table(table, own)
    return lines


def removal(tables: Iterable[str]) -> list[str]:
    """Commands that take these tables away. With `add` first a missing one is no error."""
    return [f"{verb} table {table_name(table)}" for table in tables for verb in ("add", "delete")]


def hook(table: str, chain: str) -> str:
    """Of a base chain; "" for one of our own."""
    return _HOOKS.get((table, chain), "")


def _table(table: str, rules: Sequence[Rule]) -> list[str]:
    name = table_name(table)
    lines = [f"add table {name}", f"flush table {name}"]
    used = {rule.chain for rule in rules}
    for chain in _ORDER[table]:
        if chain in used:
            base = hook(table, chain)
            lines.append(f"add chain {name} {chain_name(chain)}" + (f" {{ {base} ; }}" if base else ""))
    counts = dict.fromkeys(used, 0)
    for rule in rules:
        lines.append(_rule(name, rule, counts[rule.chain]))
        counts[rule.chain] += 1
    return lines


def _rule(table: str, rule: Rule, before: int) -> str:
    """`before`: how many rules its chain has by then. nft counts from 0, and inserts only before one that is there."""
    chain, words = chain_name(rule.chain), written(rule)
    if rule.index is None or before == 0 or rule.index - 1 >= before:
        return f"add rule {table} {chain} {words}"
    return f"insert rule {table} {chain} index {rule.index - 1} {words}"
