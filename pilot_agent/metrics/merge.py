"""Joins the sources of one scrape into one stream: whole bodies, one after the other, none waiting for a slow one.

Knows nothing of HTTP. Each source writes lines, cut by `formats.Cutter`, into its lane; `scrape` reads `Merge.blocks`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")

STALL_SECONDS = 0.1
"""A source that is silent for so long while another has text gives way, and goes on later at a family's start."""


class Lane(Generic[T]):
    """One source's way into the merge: room for one block, so that TCP holds back a source that is not read."""

    def __init__(self, origin: T, changed: asyncio.Event) -> None:
        self.origin, self._changed = origin, changed
        self._taken = asyncio.Event()
        self._block = self._last = b""
        self.has_ended = False

    @property
    def is_ready(self) -> bool:
        return bool(self._block or self._last)

    @property
    def is_full(self) -> bool:
        return bool(self._block)

    async def put(self, block: bytes) -> None:
        """Hand over a block, after the one before it was taken."""
        while self._block:
            self._taken.clear()
            await self._taken.wait()
        self._block = block
        self._changed.set()

    def end(self, last: bytes) -> None:
        """Nothing comes after `last`; never waits, so that a source past its deadline can still say it."""
        self._last, self.has_ended = last, True
        self._changed.set()

    def take(self) -> bytes:
        """The next block, or nothing."""
        if self._block:
            block, self._block = self._block, b""
            self._taken.set()
            return block
        block, self._last = self._last, b""
        return block


class Merge(Generic[T]):
    """`sources`: how many lanes will be opened or given up. A lane keeps what it was opened with as its `origin`."""

    def __init__(self, sources: int, stall: float = STALL_SECONDS) -> None:
        self._awaited, self._stall = sources, stall
        self._changed = asyncio.Event()
        self._lanes: deque[Lane[T]] = deque()

    def open(self, origin: T) -> Lane[T]:
        """A source has its headers. The order of these calls is the order of the bodies."""
        lane = Lane(origin, self._changed)
        self._lanes.append(lane)
        self.give_up()
        return lane

    def give_up(self) -> None:
        """A source will not open."""
        self._awaited -= 1
        self._changed.set()

    async def blocks(self) -> AsyncIterator[tuple[T, bytes]]:
        """Each block with its origin, until every source has ended; their deadlines, not this, bound the time."""
        while self._lanes or self._awaited:
            if not self._lanes:
                await self._change()
                continue
            lane = self._lanes[0]
            if block := lane.take():
                yield lane.origin, block
            elif lane.has_ended:
                self._lanes.popleft()
            elif not any(other.is_ready for other in self._lanes):
                await self._change()
            elif not await self._revives(lane):
                self._lanes.rotate(-1)

    async def _revives(self, lane: Lane[T]) -> bool:
        """Whether `lane` gets text, or ends, before its patience is over."""
        try:
            async with asyncio.timeout(self._stall):
                while not (lane.is_ready or lane.has_ended):
                    await self._change()
        except TimeoutError:
            return False
        return True

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
