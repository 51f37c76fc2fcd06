"""Ways through states, for tests of transitions."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

State = TypeVar("State")


def tour(states: Sequence[State]) -> Iterator[tuple[State, State]]:
    """Every ordered pair of different states once, each starting where the one before ended; the last state first."""
    goals = {index: [other for other in range(len(states)) if other != index] for index in range(len(states))}
    walk: list[int] = []
    stack = [len(states) - 1]
    while stack:  # Hierholzer: every state has as many ways in as out, so one circle goes through all of them
        if goals[stack[-1]]:
            stack.append(goals[stack[-1]].pop())
        else:
            walk.append(stack.pop())
    walk.reverse()
    for before, after in pairwise(walk):
        yield states[before], states[after]
