"""Routes and addresses that a capture needs beside its rules, and what is to be done to have just those.

Pure: data in, steps out (reference iptables.md, section 9). `routes` reads the kernel and does the steps. Istio's own
tool adds another `ip rule` at each run and never takes anything away; this adds what is missing and takes the rest.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pilot_agent.interception.capture import Capture

PASSTHROUGH = "::6"
"""Where Envoy's IPv6 connections to the application come from; 127.0.0.6 is lo's without doing."""
FAMILIES = (4, 6)


class Lookup(NamedTuple):
    """`ip rule`: packets with this mark, all bits of it, are looked up in this table."""

    family: int
    mark: int
    table: int


class Content(NamedTuple):
    """Of a table: whether our route is in it, `local default dev lo`, and how many others are."""

    has_ours: bool = False
    others: int = 0


class There(NamedTuple):
    """What the kernel has. `lookups`: with priorities, in the order in which they are looked at; copies are told, too.

    `used`: family and table of all other rules. `tables`: of those that a lookup leads to, and that were asked for.
    """

    lookups: tuple[tuple[Lookup, int], ...] = ()
    used: frozenset[tuple[int, int]] = frozenset()
    tables: Mapping[tuple[int, int], Content] = {}
    has_passthrough: bool = False


class Wanted(NamedTuple):
    """`told`: mark and table of the settings, which are ours even where no lookup is wanted."""

    lookups: tuple[Lookup, ...] = ()
    has_passthrough: bool = False
    told: tuple[int, int] = (1337, 133)


class Step(NamedTuple):
    """One thing to add or remove. Only what belongs to it is given; `priority` for a rule that is removed."""

    verb: Literal["add", "remove"]
    what: Literal["rule", "route", "address"]
    family: int
    mark: int = 0
    table: int = 0
    priority: int = 0

    @property
    def text(self) -> str:
        """As one would tell `ip`."""
        ip = "ip" if self.family == 4 else "ip -6"
        verb = "add" if self.verb == "add" else "del"
        match self.what:
            case "rule":
                at = f" priority {self.priority}" if self.priority else ""
                return f"{ip} rule {verb} fwmark {self.mark} lookup {self.table}{at}"
            case "route":
                return f"{ip} route {verb} local default dev lo table {self.table}"
            case "address":
                return f"{ip} addr {verb} {PASSTHROUGH}/128 dev lo"

    @property
    def data(self) -> dict[str, Any]:
        """For JSON."""
        return {name: value for name, value in self._asdict().items() if value}


def wanted(capture: Capture) -> Wanted:
    told = (int(capture.mark), int(capture.route_table))
    is_marked = capture.is_tproxy and capture.inbound_ports
    lookups = tuple(Lookup(family, *told) for family in capture.families) if is_marked else ()
    return Wanted(lookups, capture.has_ipv6, told)


def nothing(capture: Capture) -> Wanted:
    """For a cleanup: mark and table of the settings help to find what an earlier run left, but need not be right."""
    return Wanted(told=wanted(capture).told)


def plan(what: Wanted, there: There) -> tuple[Step, ...]:
    """Additions first, so that packets of TPROXY find a way all the time; a rule comes after its route."""
    return (*_additions(what, there), *_removals(what, there))


def _additions(what: Wanted, there: There) -> Iterator[Step]:
    if what.has_passthrough and not there.has_passthrough:
        yield Step("add", "address", 6)
    have = {lookup for lookup, _ in there.lookups}
    for lookup in what.lookups:
        if not there.tables.get((lookup.family, lookup.table), Content()).has_ours:
            yield Step("add", "route", lookup.family, table=lookup.table)
        if lookup not in have:
            yield Step("add", "rule", *lookup)


def _removals(what: Wanted, there: There) -> Iterator[Step]:
    """Copies of what is wanted, except the last, which has the priority of a first run; and all of earlier runs."""
    last = {lookup: priority for lookup, priority in there.lookups if lookup in what.lookups}
    kept = {(lookup.family, lookup.table) for lookup in what.lookups}
    left = {(family, what.told[1]) for family in FAMILIES}
    for lookup, priority in there.lookups:
        is_copy = lookup in last and priority != last[lookup]
        is_removed = is_copy or (lookup not in last and _is_ours(lookup, what, there))
        if is_removed:
            left.add((lookup.family, lookup.table))
            yield Step("remove", "rule", *lookup, priority)
        else:
            kept.add((lookup.family, lookup.table))
    for family, table in sorted(left - kept - there.used):
        if there.tables.get((family, table)) == Content(has_ours=True):
            yield Step("remove", "route", family, table=table)
    if there.has_passthrough and not what.has_passthrough:
        yield Step("remove", "address", 6)


def _is_ours(lookup: Lookup, what: Wanted, there: There) -> bool:
    """Of an earlier run: its table has our route alone, or the settings name it and its route is gone already."""
    content = there.tables.get((lookup.family, lookup.table), Content())
    if content.others:
        return False
    return content.has_ours or (lookup.mark, lookup.table) == what.told
