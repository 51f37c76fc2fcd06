"""What is looked at before Envoy gets it: what comes behind it waits, and what goes wrong is told."""

import asyncio
from collections.abc import Awaitable

import grpc

from tests.support.eventually import eventually
from tests.support.fake_ads import CDS, cluster
from tests.support.fake_istiod import FakeIstiod
from tests.unit.xds.proxied import Proxied


def test_responses_keep_their_order_when_some_are_looked_at(proxied: Proxied, istiod: FakeIstiod) -> None:
    looked_at = []

    def some(_type_url: str, response: bytes, _is_delta: bool) -> Awaitable[bytes] | None:
        async def look() -> bytes:
            await asyncio.sleep(0.002)
            looked_at.append(response)
            return bytes(response)

        return look() if len(response) % 3 == 0 else None

    proxied.proxy.pass_on = some
    client = proxied.stream()
    client.ask(CDS)
    client.next()
    for number in range(60):
        istiod.ads.set(CDS, f"c{number}", cluster(f"c{number}", 80))
    assert [len(client.next_message().resources) for _ in range(60)] == list(range(1, 61))
    assert looked_at


def test_a_look_that_fails_ends_the_stream_with_words(proxied: Proxied, istiod: FakeIstiod) -> None:
    async def fail() -> bytes:
        raise RuntimeError("a bug")

    proxied.proxy.pass_on = lambda *_: fail()
    client = proxied.stream()
    client.ask(CDS)
    code, details = client.ended()
    assert code is grpc.StatusCode.INTERNAL
    assert details == f"what istiod {istiod.address} sent could not be passed on: RuntimeError('a bug')"
    eventually(lambda: not istiod.ads.open_streams())


def test_a_stream_that_ends_during_a_look_leaves_nothing(proxied: Proxied, istiod: FakeIstiod) -> None:
    started = []

    async def slow() -> bytes:
        started.append(1)
        await asyncio.sleep(0.2)
        return b""

    proxied.proxy.pass_on = lambda *_: slow()
    client = proxied.stream()
    client.ask(CDS)
    eventually(lambda: started)
    client.cancel()
    eventually(lambda: not istiod.ads.open_streams())
    eventually(lambda: not proxied.account.streams)
