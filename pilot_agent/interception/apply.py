"""One run of the iptables back ends: reads what is there, makes it what is wanted, or leaves it as it was.

The plan is `plan`'s. Whatever was there before and is not wanted goes, in the other back end too, after the new rules
are in place: traffic is captured twice for a moment rather than not at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.kernel import Backend, Choice, Iptables, binary, choose
from pilot_agent.interception.plan import Plan, Tables, plan, plan_back
from pilot_agent.interception.rules import Family
from pilot_agent.interception.ruleset import Chains

FAMILIES: tuple[Family, ...] = (4, 6)


class Step(NamedTuple):
    """A plan for one back end. `is_cleaning`: it takes away what another back end has."""

    backend: Backend
    plan: Plan
    is_cleaning: bool = False


class Intention(NamedTuple):
    """What a run will do; `steps` only such as change something."""

    backend: Backend
    steps: tuple[Step, ...]
    before: Mapping[Backend, Mapping[Family, Tables]]

    @property
    def changes(self) -> int:
        return sum(len(step.plan.changes) for step in self.steps)

    def described(self) -> list[dict[str, Any]]:
        """For JSON: {"command", "family", "kind", "table", "chain", "text"} of each change."""
        return [
            {"command": binary(step.backend, step.plan.family), **change.described(step.plan.family)}
            for step in self.steps
            for change in step.plan.changes
        ]


def intend(
    iptables: Iptables, wanted: Mapping[Family, Chains], backend: str = "", *, is_forced: bool = False
) -> Intention:
    """`wanted` by family; a family without rules is cleaned. `backend`: that one, whatever is there.

    `is_forced`: what is as it should be is written anew, too. Raises InterceptionError when no back end can be used.
    """
    choice: Choice = choose(iptables, backend, needs_ipv6=bool(wanted.get(6)))
    readings = [choice.reading, *([choice.other] if choice.other is not None else [])]
    steps = []
    for reading in readings:
        is_other = reading is not choice.reading
        for family in FAMILIES:
            rules = {} if is_other else wanted.get(family, {})
            made = plan(reading.tables[family], rules, family, is_forced=is_forced)
            if made.restore:
                steps.append(Step(reading.backend, made, is_cleaning=is_other))
    return Intention(choice.reading.backend, tuple(steps), {each.backend: each.tables for each in readings})


def carry_out(iptables: Iptables, intention: Intention) -> None:
    """Raises InterceptionError with one line; then every table is as it was before."""
    done: list[Step] = []
    try:
        for step in intention.steps:
            done.append(step)
            iptables.restore(step.backend, step.plan.family, step.plan.restore)
    except InterceptionError as error:
        left = _take_back(iptables, intention, done)
        raise InterceptionError(f"{error}{left}") from None


def _take_back(iptables: Iptables, intention: Intention, done: Sequence[Step]) -> str:
    """Bring back what was; what could not be, in words for the end of the error."""
    for step in reversed(done):
        reading = iptables.read(step.backend, needs_ipv6=step.plan.family == 6)
        if reading.problem is not None:
            return f"; and what was there before can't be brought back: {reading.problem}"
        family = step.plan.family
        back = plan_back(reading.tables[family], intention.before[step.backend][family], family)
        if back.changes:
            try:
                iptables.restore(step.backend, family, back.restore)
            except InterceptionError as error:
                return f"; and {binary(step.backend, family)} could not bring back what was there before: {error}"
    return ""
