"""When the memory of large pushes is given back."""

import asyncio

from pilot_agent.xds.heap import LARGE, Heap, trim


def trims_after(*sizes: int) -> int:
    trims: list[None] = []

    async def pass_all() -> None:
        heap = Heap(lambda: trims.append(None), pause_s=0.0)
        for size in sizes:
            heap.note(size)
        assert trims == [], "not while messages come"
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(pass_all())
    return len(trims)


def test_large_messages_are_followed_by_one_trim() -> None:
    assert trims_after(LARGE, LARGE, 3, 20 * LARGE) == 1


def test_small_messages_are_followed_by_none() -> None:
    assert trims_after(*[LARGE - 1] * 100) == 0


def test_a_trim_is_harmless() -> None:
    trim()
