"""How nft's tables differ from wanted ones, order included, in words for people and as data for programs."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pilot_agent.interception.nft_listing import Chain, Table, Tables
from pilot_agent.interception.nftables import TABLES, table_name

Kind = Literal["missing", "extra", "changed", "moved"]


class Difference(NamedTuple):
    """Of a table, of a chain (`chain` given), of a rule or another line of them (`line` given).

    `position`: where a rule should be, or is when it is extra, from 1. `instead`: what is there in its place; of a
    moved rule, its position.
    """

    kind: Kind
    table: str
    chain: str = ""
    line: str = ""
    position: int = 0
    instead: str = ""

    @property
    def text(self) -> str:
        """In one line."""
        where = " ".join(filter(None, (table_name(self.table), self.chain)))
        if not self.line:
            what = "chain" if self.chain else "table"
            return f"{what} {where} {'is missing' if self.kind == 'missing' else 'should not be there'}"
        if not self.position:
            return f"{where}: {self._state}{self.line}" + (f", not {self.instead}" if self.instead else "")
        if self.kind == "moved":
            return f"{where}: rule {self.position} is at {self.instead}: {self.line}"
        return f"{where}: rule {self.position} {self._state}{self.line}"

    @property
    def _state(self) -> str:
        return {"missing": "is missing: ", "extra": "should not be there: ", "changed": "should be "}[self.kind]

    @property
    def data(self) -> dict[str, Any]:
        """For JSON: what is told, and nothing else."""
        told = {name: value for name, value in self._asdict().items() if value}
        return {**told, "family": "inet", "table": table_name(self.table).removeprefix("inet ")}


def differences(wanted: Tables, there: Tables) -> list[Difference]:
    """Empty when nft has exactly what is wanted."""
    found: list[Difference] = []
    for name in TABLES:
        match wanted.get(name), there.get(name):
            case None, Table():
                found.append(Difference("extra", name))
            case Table(), None:
                found.append(Difference("missing", name))
            case Table() as want, Table() as have:
                found += _of_table(name, want, have)
    return found


def keeps_shape(found: list[Difference], table: str) -> bool:
    """Whether nothing but rules of its chains differ, and chains that are missing: then a flush is enough."""
    return all(each.table != table or each.position or (each.kind == "missing" and not each.line) for each in found)


def _of_table(name: str, want: Table, have: Table) -> Iterator[Difference]:
    for line in have.others:
        yield Difference("extra", name, line=line)
    for chain in want.chains:
        if chain not in have.chains:
            yield Difference("missing", name, chain)
        else:
            yield from _of_chain(name, chain, want.chains[chain], have.chains[chain])
    for chain in have.chains:
        if chain not in want.chains:
            yield Difference("extra", name, chain)


def _of_chain(table: str, name: str, want: Chain, have: Chain) -> Iterator[Difference]:
    if want.base != have.base:
        yield Difference("changed", table, name, want.base or "no base chain", instead=have.base or "no base chain")
    if want.rules != have.rules:
        yield from _of_rules(table, name, want.rules, have.rules)


def _of_rules(table: str, chain: str, want: tuple[str, ...], have: tuple[str, ...]) -> Iterator[Difference]:
    import difflib  # only where something differs

    missing: list[tuple[int, str]] = []
    extra: list[tuple[int, str]] = []
    matcher = difflib.SequenceMatcher(None, have, want, autojunk=False)
    for tag, have_from, have_to, want_from, want_to in matcher.get_opcodes():
        if tag != "equal":
            extra += [(index + 1, have[index]) for index in range(have_from, have_to)]
            missing += [(index + 1, want[index]) for index in range(want_from, want_to)]
    for position, line in missing:
        elsewhere = next((each for each in extra if each[1] == line), None)
        if elsewhere is None:
            yield Difference("missing", table, chain, line, position)
        else:
            extra.remove(elsewhere)
            yield Difference("moved", table, chain, line, position, str(elsewhere[0]))
    for position, line in extra:
        yield Difference("extra", table, chain, line, position)
