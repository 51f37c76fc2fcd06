"""What a run will do, or would: rules in iptables and nft, routes; and doing it, all of it or nothing.

Of everything that is not wanted any more the removal is a part, in whichever tool it is. Routes that packets need come
before the rules that send packets there, and go after them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pilot_agent.errors import InterceptionError
from pilot_agent.interception import routes
from pilot_agent.interception.apply import Intention, carry_out
from pilot_agent.interception.kernel import Iptables, binary
from pilot_agent.interception.nft import Change, Nft
from pilot_agent.interception.plan import shown
from pilot_agent.interception.route_plan import Step

NATIVE = "nft"


class Outlook(NamedTuple):
    """`tool` is the one of the rules that are wanted: iptables-nft, iptables-legacy, iptables or nft.

    None: that tool need not be asked.
    """

    tool: str
    iptables: Intention | None
    nft: Change | None
    routes: tuple[Step, ...]

    @property
    def changes(self) -> int:
        rules = self.iptables.changes if self.iptables is not None else 0
        return rules + (len(self.nft.differences) if self.nft is not None else 0) + len(self.routes)

    @property
    def is_empty(self) -> bool:
        """Nothing is to be done; with --force-apply something is where nothing differs."""
        writes = (self.iptables is not None and self.iptables.steps) or (self.nft is not None and self.nft.script)
        return not (writes or self.routes)

    def lines(self) -> Iterator[str]:
        """For a person."""
        if self.is_empty:
            yield f"nothing to change ({self.tool})"
        for step in self.iptables.steps if self.iptables is not None else ():
            family, *changes = [*shown([step.plan]), ""]
            yield f"{binary(step.backend, step.plan.family)} {family}".rstrip()
            yield from filter(None, changes)
        if self.nft is not None and self.nft.differences:
            yield NATIVE
            yield from (f"  {line}" for line in self.nft.lines)
        if self.routes:
            yield "routes"
            yield from (f"  {step.text}" for step in self.routes)

    def data(self) -> dict[str, Any]:
        """For JSON: {"tool", "matches", "iptables": [...], "nft": [...], "routes": [...]}."""
        return {
            "tool": self.tool,
            "matches": self.changes == 0,
            "iptables": self.iptables.described() if self.iptables is not None else [],
            "nft": [each.data for each in self.nft.differences] if self.nft is not None else [],
            "routes": [step.data for step in self.routes],
        }


def make(outlook: Outlook, iptables: Iptables, nft: Nft) -> None:
    """Raises InterceptionError with one line; then everything is as it was."""
    additions = [step for step in outlook.routes if step.verb == "add"]
    routes.make(additions)
    try:
        _make_rules(outlook, iptables, nft)
    except InterceptionError:
        routes.make([step._replace(verb="remove") for step in reversed(additions)])
        raise
    routes.make([step for step in outlook.routes if step.verb == "remove"])


def _make_rules(outlook: Outlook, iptables: Iptables, nft: Nft) -> None:
    """The wanted ones first: captured twice for a moment is better than not at all."""
    if outlook.tool == NATIVE:
        if outlook.nft is not None:
            nft.make(outlook.nft)
        if outlook.iptables is not None:
            carry_out(iptables, outlook.iptables)
        return
    if outlook.iptables is not None:
        carry_out(iptables, outlook.iptables)
    if outlook.nft is not None:
        nft.make(outlook.nft)
