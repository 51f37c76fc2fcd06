"""The native nftables back end: what nft has of Istio's tables is read, held against the wanted, and made it.

One transaction or none at all; where it fails, everything is as it was. Which rules are wanted is known to `build`,
what comes out is shown by `commands`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.execute import CommandMissing, Outcome, Run
from pilot_agent.interception.nft_difference import Difference, differences, keeps_shape
from pilot_agent.interception.nft_listing import LIST, LIST_WITH_COUNTERS, Tables, foretold, parse
from pilot_agent.interception.nftables import TABLES, removal, script
from pilot_agent.interception.rules import Rule

IN_THE_IMAGE, ON_THE_HOST = "in the sidecar container image", "on the host filesystem"
"""Where nft is looked for: with the second, a CNI plug-in calls."""
OLDEST = (1, 0, 1)
"""As Istio: older ones write scripts and listings in other ways."""

_HINTS = {
    "Operation not permitted": "this takes root and the capability NET_ADMIN",
    "Protocol not supported": "this kernel has no nf_tables",
    "Address family not supported": "this kernel has no nf_tables",
    "Operation not supported": "this kernel lacks a part of nf_tables",
}


@dataclass(frozen=True, slots=True)
class Change:
    """What differs, what nft is told to make it right (`script`, empty for nothing), and whether that was done."""

    differences: tuple[Difference, ...]
    script: tuple[str, ...]
    is_made: bool = False

    @property
    def lines(self) -> list[str]:
        """For people, without the script."""
        return [each.text for each in self.differences]

    @property
    def data(self) -> dict[str, Any]:
        """For JSON."""
        return {"changed": self.is_made, "differences": [each.data for each in self.differences]}


class Nft:
    """nft of the network namespace in which `run` runs. Every method may raise InterceptionError, with one line."""

    def __init__(self, run: Run, place: str = IN_THE_IMAGE) -> None:
        self._run, self._place = run, place
        self._is_known_to_fit = False

    def tables(self, *, with_counters: bool = False) -> Tables:
        """What is there of Istio's tables; `with_counters`: each `counter` of a rule says what it has counted."""
        self._check_version()
        outcome = self._nft(LIST_WITH_COUNTERS if with_counters else LIST)
        if outcome.code != 0:
            raise _failure(outcome, [])
        return parse(outcome.output)

    def plan(self, rules: Sequence[Rule], *, is_forced: bool = False) -> Change:
        """What would be done, without doing it. No rules: nothing of Istio's is wanted. `is_forced`: write anyway."""
        wanted = foretold(rules)
        found = differences(wanted, self.tables())
        if not (found or is_forced):
            return Change((), ())
        # A flush leaves chains, and flags, comments and sets of others: a table that has such goes, and comes anew.
        stale = [table for table in TABLES if not keeps_shape(found, table)]
        return Change(tuple(found), (*removal(stale), *script(rules)))

    def make(self, change: Change) -> Change:
        """Do it. All of it, or on an error nothing."""
        if not change.script:
            return change
        self._check_version()
        outcome = self._nft(("nft", "-f", "-"), "".join(f"{line}\n" for line in change.script))
        if outcome.code != 0:
            raise _failure(outcome, change.script)
        return replace(change, is_made=True)

    def apply(self, rules: Sequence[Rule], *, is_forced: bool = False) -> Change:
        return self.make(self.plan(rules, is_forced=is_forced))

    def cleanup(self) -> Change:
        """Take Istio's three tables away, whatever made them and whatever is in them."""
        return self.apply(())

    def _check_version(self) -> None:
        if self._is_known_to_fit:
            return
        outcome = self._nft(("nft", "--version"))
        version = re.match(r"nftables v(\d+(?:\.\d+)*)", outcome.output)
        # One that says nothing readable is tried: what it can't do it will say.
        if version and tuple(map(int, version[1].split("."))) < OLDEST:
            needed = ".".join(map(str, OLDEST))
            raise InterceptionError(
                f"nft {version[1]} {self._place} is too old: native nftables need {needed} or later"
            )
        self._is_known_to_fit = True

    def _nft(self, argv: Sequence[str], stdin: str = "") -> Outcome:
        try:
            return self._run(argv, stdin)
        except CommandMissing as error:
            raise InterceptionError(
                f"nativeNftables is enabled, but the nft binary is missing {self._place}: {error}"
            ) from None


def dry_run(rules: Sequence[Rule]) -> list[str]:
    """What nft would be told in a namespace of which nothing is known. Nothing is run, so it needs no nft."""
    used = {rule.table for rule in rules}
    return [*removal(table for table in TABLES if table not in used), *script(rules)]


def _failure(outcome: Outcome, lines: Sequence[str]) -> InterceptionError:
    """With nft's first words, and the line it means."""
    reason = outcome.reason
    where = re.match(r"\S+?:(\d+):\S+ Error: (.*)", reason)
    if where:
        number = int(where[1])
        reason = where[2] + (f" (line {number}: {lines[number - 1]})" if number <= len(lines) else "")
    hint = next((hint for words, hint in _HINTS.items() if words in reason), "")
    return InterceptionError(f"nftables run failed: {reason}" + (f": {hint}" if hint else ""))
