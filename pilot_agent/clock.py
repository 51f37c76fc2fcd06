"""Time as the agent sees it: a clock that tests can replace, deadlines, and the back-off sequence."""

import os
import time
from typing import NamedTuple, Protocol


class Clock(Protocol):
    """Seconds. `monotonic` never goes back; `wall` is what a log line or a certificate says."""

    def monotonic(self) -> float: ...
    def wall(self) -> float: ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


class Deadline(NamedTuple):
    """A point in monotonic time that several waits share."""

    at: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> "Deadline":
        return cls(clock.monotonic() + seconds, clock)

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def is_over(self) -> bool:
        return self.left == 0.0

    def sooner(self, seconds: float) -> "Deadline":
        """This deadline, or `seconds` from now where that comes first."""
        return Deadline(min(self.at, self.clock.monotonic() + seconds), self.clock)


def chance() -> float:
    """A random number from 0 to 1, 1 excluded."""
    # os.urandom rather than `random`: importing that costs 11 ms (hashlib) on the way to Envoy's start.
    return int.from_bytes(os.urandom(4), "big") / 2**32


class Backoff:
    """Delays that double from `first` to `ceiling`, each shortened at random by up to `jitter` of itself.

    The jitter keeps a node full of agents from retrying in step after one common failure.
    """

    def __init__(self, first: float, ceiling: float, jitter: float = 0.2) -> None:
        self._first, self._ceiling, self._jitter = first, ceiling, jitter
        self._next = first

    def next(self) -> float:
        delay = self._next
        self._next = min(self._ceiling, self._next * 2)
        return delay * (1 - self._jitter * chance())

    def reset(self) -> None:
        self._next = self._first
