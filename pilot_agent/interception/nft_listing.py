"""What nft lists of Istio's three tables: read from its text, and foretold for wanted rules.

Text, not JSON: it is what a person knows and gets to see in a difference, every nft can write it, and it is as regular.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.nft_words import chain_name, listed
from pilot_agent.interception.nftables import TABLES, hook, table_name
from pilot_agent.interception.rules import Rule

LIST = ("nft", "--stateless", "--numeric-priority", "list", "ruleset", "inet")
"""All tables of the family at once: one process, one state of the kernel, and a missing table is no error."""
LIST_WITH_COUNTERS = tuple(word for word in LIST if word != "--stateless")


class Chain(NamedTuple):
    """`base`: the line with type, hook, priority and policy; "" for a chain that is only jumped to."""

    base: str
    rules: tuple[str, ...]


class Table(NamedTuple):
    """`others`: lines of what Istio has none of: flags, comments, sets."""

    chains: dict[str, Chain]
    others: tuple[str, ...] = ()


Tables = dict[str, Table]
"""By short name, as in nftables.TABLES. A table that is not there is not in it."""


def foretold(rules: Sequence[Rule]) -> Tables:
    """What nft will list when the kernel has these rules and no others. Raises ValueError for an unknown name."""
    found: dict[str, dict[str, list[Rule]]] = {}
    for rule in canonical(rules, is_nft=True):
        chain = found.setdefault(rule.table, {}).setdefault(rule.chain, [])
        chain.insert(len(chain) if rule.index is None else rule.index - 1, rule)
    return {
        table: Table({chain_name(name): _foretold(table, name, found[table][name]) for name in found[table]})
        for table in TABLES
        if table in found
    }


def _foretold(table: str, name: str, rules: Iterable[Rule]) -> Chain:
    base = hook(table, name)
    return Chain(f"{base}; policy accept;" if base else "", tuple(map(listed, rules)))


_NAMES = {f"table {table_name(table)} {{": table for table in TABLES}


def parse(text: str) -> Tables:
    """What is there of our tables; others in the text are passed over. Indentation tells what belongs to what.

    A name or comment with a brace in it can't mislead: only a line that begins in the first column ends a table.
    """
    tables: Tables = {}
    lines = iter(text.splitlines())
    for line in lines:
        # Newer nft says behind the brace who owns the table.
        header = line.partition("{")
        name = _NAMES.get(f"{header[0]}{{") if header[1] else None
        if name:
            tables[name] = _table(lines)
    return tables


def _table(lines: Iterator[str]) -> Table:
    chains: dict[str, Chain] = {}
    others: list[str] = []
    for line in lines:
        if not line.startswith("\t"):
            if line.startswith("}"):
                break
        elif line.startswith("\tchain "):
            chains[line.split()[1]] = _chain(lines)
        else:
            others.append(line.strip())
    return Table(chains, tuple(others))


def _chain(lines: Iterator[str]) -> Chain:
    base = ""
    rules: list[str] = []
    for line in lines:
        if line.startswith("\t}"):
            break
        if not rules and line.startswith(("\t\ttype ", "\t\tcomment ")):
            base = f"{base} {line.strip()}".strip()
        elif rules and line.startswith("\t\t\t"):
            rules[-1] += f" {line.strip()}"  # a set of a foreign rule, over several lines
        else:
            rules.append(_as_foretold(line.strip()))
    return Chain(base, tuple(rules))


_NUMBERS = {"meta l4proto 6 ": "meta l4proto tcp ", "meta l4proto 17 ": "meta l4proto udp "}


def _as_foretold(rule: str) -> str:
    """Without what differs from one nft, or one image, to another."""
    for number, name in _NUMBERS.items():
        rule = rule.replace(number, name)  # in an image without /etc/protocols
    for protocol in ("tcp", "udp"):
        # A port says its protocol. nft 1.0.6 and 1.1.3 leave out what says it again; whether all do is unknown.
        said = f"meta l4proto {protocol} "
        if said in rule and f" {protocol} " in f" {rule.replace(said, '', 1)}":
            return rule.replace(said, "", 1)
    return rule
