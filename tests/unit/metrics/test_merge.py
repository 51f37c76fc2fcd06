import asyncio

from pilot_agent.metrics.merge import Merge


async def everything(merge: Merge[str]) -> list[bytes]:
    return [block async for _, block in merge.blocks()]


def test_bodies_follow_each_other_in_the_order_of_their_headers() -> None:
    async def main() -> None:
        merge: Merge[str] = Merge(2, stall=60)
        reading = asyncio.create_task(everything(merge))
        first, second = merge.open("first"), merge.open("second")
        await second.put(b"s1")
        await first.put(b"f1")
        await first.put(b"f2")
        second.end(b"s2")
        first.end(b"f3")
        assert await reading == [b"f1", b"f2", b"f3", b"s1", b"s2"]

    asyncio.run(main())


def test_a_silent_source_gives_way_and_goes_on_later() -> None:
    async def main() -> None:
        merge: Merge[str] = Merge(2, stall=0)
        slow, quick = merge.open("slow"), merge.open("quick")
        await slow.put(b"slow 1")
        blocks = merge.blocks()
        assert await anext(blocks) == ("slow", b"slow 1")
        quick.end(b"quick")
        assert await anext(blocks) == ("quick", b"quick")
        slow.end(b"slow 2")
        assert [block async for _, block in blocks] == [b"slow 2"]

    asyncio.run(main())


def test_an_open_source_that_never_sends_does_not_hold_up_the_next() -> None:
    async def main() -> None:
        merge: Merge[str] = Merge(3, stall=0)
        silent, sending = merge.open("silent"), merge.open("sending")
        sending.end(b"here")
        blocks = merge.blocks()
        assert await anext(blocks) == ("sending", b"here")
        merge.give_up()
        silent.end(b"")
        assert [block async for _, block in blocks] == []

    asyncio.run(main())


def test_a_source_that_is_not_read_waits() -> None:
    async def main() -> None:
        merge: Merge[str] = Merge(1)
        lane = merge.open("only")
        await lane.put(b"1")
        putting = asyncio.create_task(lane.put(b"2"))
        await asyncio.sleep(0)
        assert lane.is_full and not putting.done()
        blocks = merge.blocks()
        assert await anext(blocks) == ("only", b"1")
        await putting
        lane.end(b"3")
        assert [block async for _, block in blocks] == [b"2", b"3"]

    asyncio.run(main())


def test_nothing_to_merge_ends_at_once() -> None:
    async def main() -> None:
        assert await everything(Merge(0)) == []
        merge: Merge[str] = Merge(1)
        merge.give_up()
        assert await everything(merge) == []

    asyncio.run(main())
