"""`eventually` for tests inside an event loop, which must run on meanwhile."""

import asyncio
import time
from collections.abc import Callable


async def eventually_async(predicate: Callable[[], object], within: float = 5.0, every: float = 0.01) -> None:
    """Returns as soon as `predicate()` is true; AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while not predicate():
        assert time.monotonic() < deadline, f"not true within {within:g} s"
        await asyncio.sleep(every)
