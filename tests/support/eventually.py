"""Waiting for something to become true: how a test waits, in place of a sleep. In an event loop: `eventually_async`."""

import inspect
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def eventually(predicate: Callable[[], Found], within: float = 5.0, every: float = 0.01) -> Found:
    """Call `predicate` until it gives something true, and return that; AssertionError after `within` seconds.

    An AssertionError or OSError of the predicate counts as "not yet" and is part of the final message.
    """
    deadline = time.monotonic() + within
    while True:
        found, last = _try(predicate)
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within:g} s: {_named(predicate)}; last: {last}")
        time.sleep(every)


def _try(predicate: Callable[[], Found]) -> tuple[Found | None, str]:
    try:
        found = predicate()
        return found, repr(found)
    except (AssertionError, OSError) as error:
        return None, f"{type(error).__name__}: {error}"


def _named(predicate: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(predicate).split())
    except (OSError, TypeError):
        return repr(predicate)
