"""Gives back the memory that large pushes leave behind, once they are over.

glibc keeps the place of a message of 20 MB for the next one: 20 MiB more than at rest, for ever. `proxy` tells of each
message that passed. A low M_TRIM_THRESHOLD would do it too, and make a push slower.
"""

import asyncio
import ctypes
from collections.abc import Callable

LARGE = 1_000_000
"""Bytes of a message that is worth a trim."""
PAUSE_S = 1.0
"""Without a large message: while they come, the next one needs the same memory. A trim takes 5 to 10 ms."""


def trim() -> None:
    """Does nothing where the C library is another one (musl)."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


class Heap:
    """Of one event loop at a time."""

    def __init__(self, trim: Callable[[], None] = trim, pause_s: float = PAUSE_S) -> None:
        self._trim, self._pause_s = trim, pause_s
        self._timer: asyncio.TimerHandle | None = None

    def note(self, size: int) -> None:
        """A message of `size` bytes has passed."""
        if size < LARGE:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._trim)
