"""Joins the sources of one scrape into one stream: whole bodies, one after the other, none waiting for a slow one.

Knows nothing of HTTP. Each source writes text, cut by `formats.Cutter`, into its lane; `scrape` reads `Merge.blocks`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

STALL_SECONDS = 0.1
"""A source that is silent for so long while another has text gives way, and goes on later at a family's start."""


class Lane:
    """One source's way into the merge: room for one block, so that TCP holds back a source that is not read."""

    def __init__(self, changed: asyncio.Event) -> None:
        self._changed = changed
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


class Merge:
    """`sources`: how many lanes will be opened or given up."""

    def __init__(self, sources: int, stall: float = STALL_SECONDS) -> None:
        self._awaited, self._stall = sources, stall
        self._changed = asyncio.Event()
        self._lanes: deque[Lane] = deque()

    @property
    def is_shared(self) -> bool:
        """Whether more than one source may still have text to send."""
        return self._awaited + len(self._lanes) > 1

    def open(self) -> Lane:
        """A source has its headers. The order of these calls is the order of the bodies."""
        lane = Lane(self._changed)
        self._lanes.append(lane)
        self.give_up()
        return lane

    def give_up(self) -> None:
        """A source will not open."""
        self._awaited -= 1
        self._changed.set()

    async def blocks(self) -> AsyncIterator[bytes]:
        """Ends when every source has ended; the sources' deadlines, not this, bound the time."""
        while self._lanes or self._awaited:
            if not self._lanes:
                await self._change()
                continue
            lane = self._lanes[0]
            if block := lane.take():
                yield block
            elif lane.has_ended:
                self._lanes.popleft()
            elif not any(other.is_ready for other in self._lanes):
                await self._change()
            elif not await self._revives(lane):
                self._lanes.rotate(-1)

    async def _revives(self, lane: Lane) -> bool:
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
