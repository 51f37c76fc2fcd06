"""Asking Envoy again and again over one connection, and noticing when no answer can come."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pilot_agent.envoy.heartbeat import Heartbeat
from pilot_agent.errors import AdminError
from tests.support.eventually_async import eventually_async
from tests.support.ports import free_port

ANSWER = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Peer:
    """Plays the admin port: answers while `answers` is set, and closes a connection after `most` of them."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.answers = asyncio.Event()
        self.answers.set()
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.questions: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        try:
            for _ in range(self.most):
                self.questions.append(await reader.readuntil(b"\r\n\r\n"))
                await self.answers.wait()
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the heartbeat was closed
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        self.open.discard(writer)


def asked(scenario: Callable[[Heartbeat, Peer], Awaitable[None]], most: int = 1000) -> Peer:
    async def run() -> Peer:
        peer = Peer(most)
        async with await asyncio.start_server(peer.serve, "127.0.0.1", 0) as server:
            heartbeat = Heartbeat("127.0.0.1", server.sockets[0].getsockname()[1])
            try:
                await scenario(heartbeat, peer)
            finally:
                heartbeat.close()
                await eventually_async(lambda: not peer.open)
        return peer

    return asyncio.run(run())


def test_one_connection_is_enough_and_any_answer_counts() -> None:
    async def scenario(heartbeat: Heartbeat, peer: Peer) -> None:
        for _ in range(5):
            await heartbeat.beat()

    peer = asked(scenario)
    assert (peer.connections, len(peer.questions)) == (1, 5)
    assert peer.questions[0].startswith(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize("most", [1, 2])
def test_a_connection_that_was_closed_meanwhile_is_no_silence(most: int) -> None:
    async def scenario(heartbeat: Heartbeat, peer: Peer) -> None:
        for _ in range(4):
            await heartbeat.beat()

    assert asked(scenario, most).connections == 4 // most


def test_it_waits_for_an_answer_and_hears_it_at_once() -> None:
    async def scenario(heartbeat: Heartbeat, peer: Peer) -> None:
        await heartbeat.beat()
        peer.answers.clear()
        beating = asyncio.create_task(heartbeat.beat())
        await eventually_async(lambda: len(peer.questions) == 2)
        assert not beating.done()
        peer.answers.set()
        await beating

    asked(scenario)


def test_a_port_that_closes_every_connection_does_not_answer() -> None:
    async def scenario(heartbeat: Heartbeat, _: Peer) -> None:
        with pytest.raises(AdminError, match="closed the connection"):
            await heartbeat.beat()

    asked(scenario, most=0)


def test_a_port_where_nobody_listens_is_named_with_the_systems_words() -> None:
    port = free_port()

    async def run() -> None:
        with pytest.raises(AdminError) as refused:
            await Heartbeat("127.0.0.1", port).beat()
        assert str(refused.value) == f"Envoy's admin port {port} can't be reached: connection refused"

    asyncio.run(run())


def test_closing_ends_a_question_and_a_connection_being_made() -> None:
    async def scenario(heartbeat: Heartbeat, peer: Peer) -> None:
        beating = asyncio.create_task(heartbeat.beat())
        await asyncio.sleep(0)
        heartbeat.close()
        with pytest.raises(AdminError):
            await beating
        assert peer.questions == []

    asked(scenario)
