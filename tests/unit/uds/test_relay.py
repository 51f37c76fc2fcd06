"""Connections passed on to a server's own socket: all of them, all of their bytes, and no more than fit."""

import asyncio
import hashlib
import os
import socket
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pilot_agent.uds import relay as relay_module
from pilot_agent.uds.listener import Listener
from pilot_agent.uds.relay import MOST_CONNECTIONS, Relay
from tests.support.eventually_async import eventually_async
from tests.support.recorded_log import RecordedLog

Serve = Callable[[Reader, Writer], Awaitable[None]]

MEGABYTE = 1024 * 1024


async def echo(reader: Reader, writer: Writer) -> None:
    """Until the client says no more."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


class Stand:
    """A listener, a relay and a backend that treats each connection as `serve` does, then closes it."""

    def __init__(self, directory: Path) -> None:
        self.listener = Listener(directory / "socket", "SDS")
        self.backend = directory / "backend"
        self.log = RecordedLog()
        self.relay: Relay
        self.served = 0

    def run(
        self,
        scenario: Callable[[], Awaitable[None]],
        serve: Serve | None = echo,
        most: int = MOST_CONNECTIONS,
        backlog: int = 100,
    ) -> None:
        serving: set[asyncio.Task[None]] = set()

        async def accept(reader: Reader, writer: Writer) -> None:
            self.served += 1
            task = asyncio.current_task()
            assert serve is not None and task is not None
            serving.add(task)
            task.add_done_callback(serving.discard)
            try:
                await serve(reader, writer)
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        async def main() -> None:
            backend = None
            if serve is not None:
                backend = await asyncio.start_unix_server(accept, self.backend, backlog=backlog)
            self.relay = Relay(self.listener, self.log.scope, most)
            try:
                await scenario()
            finally:
                await self.relay.stop()
                if backend is not None:
                    backend.close()
                for task in serving:
                    task.cancel()
                await eventually_async(lambda: not serving and self.relay.connections == 0)

        try:
            asyncio.run(main())
        finally:
            self.listener.close()

    async def start(self) -> None:
        await self.relay.start(self.backend)

    async def connect(self) -> tuple[Reader, Writer]:
        return await asyncio.open_unix_connection(self.listener.path)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


async def ask(reader: Reader, writer: Writer, text: bytes) -> bytes:
    writer.write(text)
    return await reader.readexactly(len(text))


async def is_closed(reader: Reader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 5) == b""
    except ConnectionResetError:
        return True


def test_bytes_go_both_ways_and_the_connection_stays(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.start()
        reader, writer = await stand.connect()
        for number in range(20):
            assert await ask(reader, writer, b"%d" % number) == b"%d" % number
        assert (stand.relay.connections, stand.served) == (1, 1)
        writer.close()
        await eventually_async(lambda: stand.relay.connections == 0)

    stand.run(scenario)
    assert stand.log.lines == []


def test_who_waited_in_the_backlog_is_served_first_with_all_it_said(stand: Stand) -> None:
    early = []
    for number in range(100):
        client = socket.socket(socket.AF_UNIX)
        client.connect(os.fspath(stand.listener.path))
        client.sendall(b"hello from %03d" % number)
        client.setblocking(False)
        early.append(client)

    async def scenario() -> None:
        await stand.start()
        loop = asyncio.get_running_loop()
        for number, client in enumerate(early):
            with client:
                assert await asyncio.wait_for(loop.sock_recv(client, 100), 5) == b"hello from %03d" % number

    stand.run(scenario)
    assert stand.served == 100


def test_connections_do_not_disturb_each_other(stand: Stand) -> None:
    async def one(number: int) -> None:
        reader, writer = await stand.connect()
        text = b"%d " % number * 10_000
        assert await ask(reader, writer, text) == text
        writer.close()

    async def scenario() -> None:
        await stand.start()
        await asyncio.gather(*(one(number) for number in range(50)))

    stand.run(scenario)
    assert stand.served == 50


def test_the_server_may_speak_first(stand: Stand) -> None:
    async def greet(reader: Reader, writer: Writer) -> None:
        writer.write(b"hello")
        await reader.read()

    async def scenario() -> None:
        await stand.start()
        reader, writer = await stand.connect()
        assert await reader.readexactly(5) == b"hello"
        writer.close()

    stand.run(scenario, greet)


# Large transfers


def test_a_slow_reader_holds_the_server_back_and_misses_nothing(stand: Stand) -> None:
    total, block = 32 * MEGABYTE, os.urandom(64 * 1024)
    sent = 0

    async def pour(_: Reader, writer: Writer) -> None:
        nonlocal sent
        for _count in range(total // len(block)):
            writer.write(block)
            await writer.drain()
            sent += len(block)
        writer.write(b"end")
        await writer.drain()

    async def scenario() -> None:
        await stand.start()
        reader, writer = await stand.connect()
        assert await reader.readexactly(len(block)) == block
        before = -1
        while before != sent:  # until everything on the way is full
            before = sent
            for _ in range(200):
                await asyncio.sleep(0)
        assert sent < 4 * MEGABYTE, "what nobody reads is held by nobody"
        digest = hashlib.sha256(block)
        received = len(block)
        while received < total:
            data = await reader.read(min(MEGABYTE, total - received))
            assert data
            digest.update(data)
            received += len(data)
        assert await reader.read() == b"end"
        assert digest.digest() == hashlib.sha256(block * (total // len(block))).digest()
        writer.close()

    stand.run(scenario, pour)


def test_a_slow_server_holds_the_client_back_and_misses_nothing(stand: Stand) -> None:
    total, block = 32 * MEGABYTE, os.urandom(64 * 1024)
    may_read = asyncio.Event()
    digests: list[bytes] = []

    async def drink(reader: Reader, _: Writer) -> None:
        await may_read.wait()
        digest = hashlib.sha256()
        while data := await reader.read(MEGABYTE):
            digest.update(data)
        digests.append(digest.digest())

    async def scenario() -> None:
        await stand.start()
        _, writer = await stand.connect()
        sent = 0
        before = -1

        async def pour() -> None:
            nonlocal sent
            for _ in range(total // len(block)):
                writer.write(block)
                await writer.drain()
                sent += len(block)
            writer.write_eof()

        pouring = asyncio.create_task(pour())
        while before != sent or sent == 0:
            before = sent
            for _ in range(200):
                await asyncio.sleep(0)
        assert sent < 4 * MEGABYTE
        may_read.set()
        await pouring
        await eventually_async(lambda: digests)
        assert digests == [hashlib.sha256(block * (total // len(block))).digest()]
        writer.close()

    stand.run(scenario, drink)


def test_what_was_written_before_the_end_arrives(stand: Stand) -> None:
    """A server that answers and closes at once, with more than its client has read by then."""
    answer = os.urandom(2 * MEGABYTE)

    async def answer_and_close(reader: Reader, writer: Writer) -> None:
        await reader.readexactly(1)
        writer.write(answer)

    async def scenario() -> None:
        await stand.start()
        reader, writer = await stand.connect()
        writer.write(b"?")
        assert await reader.read() == answer
        writer.close()
        await eventually_async(lambda: stand.relay.connections == 0)

    stand.run(scenario, answer_and_close)


def test_a_client_that_says_no_more_is_heard_to_its_end(stand: Stand) -> None:
    """Half-closed is closed here (gRPC does not use it), once all that was said has been passed on."""
    heard: list[bytes] = []
    text = os.urandom(MEGABYTE)

    async def hear(reader: Reader, _: Writer) -> None:
        heard.append(await reader.read())

    async def scenario() -> None:
        await stand.start()
        reader, writer = await stand.connect()
        writer.write(text)
        writer.write_eof()
        await eventually_async(lambda: heard == [text])
        assert await is_closed(reader)
        writer.close()
        await eventually_async(lambda: stand.relay.connections == 0)

    stand.run(scenario, hear)


# Ends


def test_a_server_that_goes_away_ends_the_connection(stand: Stand) -> None:
    async def refuse(reader: Reader, writer: Writer) -> None:
        await reader.readexactly(1)
        writer.transport.abort()

    async def scenario() -> None:
        await stand.start()
        reader, writer = await stand.connect()
        writer.write(b"?")
        assert await is_closed(reader)
        writer.close()
        await eventually_async(lambda: stand.relay.connections == 0)

    stand.run(scenario, refuse)


def test_a_client_that_goes_away_ends_the_servers_connection(stand: Stand) -> None:
    gone: list[bool] = []

    async def wait(reader: Reader, _: Writer) -> None:
        await reader.read()
        gone.append(True)

    async def scenario() -> None:
        await stand.start()
        _, writer = await stand.connect()
        await eventually_async(lambda: stand.served)
        writer.transport.abort()
        await eventually_async(lambda: gone)
        await eventually_async(lambda: stand.relay.connections == 0)

    stand.run(scenario, wait)


def test_who_was_gone_before_its_turn_does_no_harm(stand: Stand) -> None:
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(stand.listener.path))
            client.sendall(b"x")

    async def scenario() -> None:
        await stand.start()
        reader, writer = await stand.connect()
        assert await ask(reader, writer, b"still here") == b"still here"
        writer.close()
        await eventually_async(lambda: stand.relay.connections == 0)

    stand.run(scenario)


def test_without_a_server_the_client_is_let_go_with_a_warning(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.start()
        reader, writer = await stand.connect()
        assert await is_closed(reader)
        writer.close()
        await eventually_async(lambda: stand.relay.connections == 0)

    stand.run(scenario, serve=None)
    (line,) = stand.log.lines
    assert line.startswith(f"warn {stand.listener.path}: its server can't be reached: ")
    assert "No such file or directory" in line


def test_a_server_that_comes_later_serves_the_next(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.start()
        reader, writer = await stand.connect()
        assert await is_closed(reader)
        writer.close()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.fspath(stand.backend))
            server.listen()
            reader, writer = await stand.connect()
            writer.write(b"hello")
            server.setblocking(False)
            accepted, _ = await asyncio.get_running_loop().sock_accept(server)
            with accepted:
                assert await asyncio.get_running_loop().sock_recv(accepted, 10) == b"hello"
            writer.close()
            await eventually_async(lambda: stand.relay.connections == 0)

    stand.run(scenario, serve=None)


def test_one_too_many_is_refused_and_room_is_made_by_who_leaves(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.start()
        first, second = await stand.connect(), await stand.connect()
        assert [await ask(*each, b"x") for each in (first, second)] == [b"x", b"x"]
        reader, writer = await stand.connect()
        assert await is_closed(reader)
        writer.close()
        assert await ask(*first, b"y") == b"y", "who is served already is not touched"
        first[1].close()
        await eventually_async(lambda: stand.relay.connections == 1)
        third = await stand.connect()
        assert await ask(*third, b"z") == b"z"
        second[1].close()
        third[1].close()

    stand.run(scenario, most=2)
    assert stand.log.lines == [f"warn {stand.listener.path}: more than 2 connections at once: refused"]


def test_its_end_cuts_connections_and_leaves_the_listener(stand: Stand) -> None:
    async def scenario() -> None:
        await stand.start()
        reader, writer = await stand.connect()
        assert await ask(reader, writer, b"x") == b"x"
        await stand.relay.stop()
        assert await is_closed(reader)
        writer.close()
        await stand.relay.stop()
        await eventually_async(lambda: stand.relay.connections == 0)

        late_reader, late = await stand.connect()
        late.write(b"later")
        await stand.start()
        assert await late_reader.readexactly(5) == b"later", "the backlog waits for the next run"
        late.close()

    stand.run(scenario)


def test_its_end_does_not_wait_for_who_does_not_read(stand: Stand) -> None:
    async def pour(_: Reader, writer: Writer) -> None:
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    async def scenario() -> None:
        await stand.start()
        _, writer = await stand.connect()
        await eventually_async(lambda: stand.served)
        await stand.relay.stop()
        await eventually_async(lambda: stand.relay.connections == 0)
        writer.close()

    stand.run(scenario, pour)


def test_a_crowd_is_served_by_a_server_with_a_short_backlog(stand: Stand) -> None:
    async def one(number: int) -> bytes:
        reader, writer = await stand.connect()
        try:
            return await asyncio.wait_for(ask(reader, writer, b"%03d" % number), 10)
        finally:
            writer.close()

    async def scenario() -> None:
        await stand.start()
        found = await asyncio.gather(*(one(number) for number in range(40)))
        assert found == [b"%03d" % number for number in range(40)]

    stand.run(scenario, backlog=1)


def test_a_server_that_accepts_nobody_is_given_up(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "LONGEST_CONNECT_S", 0.05)

    async def scenario() -> None:
        await stand.start()
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as other:
            server.bind(os.fspath(stand.backend))
            server.listen(0)
            other.connect(os.fspath(stand.backend))
            reader, writer = await stand.connect()
            assert await is_closed(reader)
            writer.close()

    stand.run(scenario, serve=None)
    assert stand.log.lines == [f"warn {stand.listener.path}: its server can't be reached: its backlog is full"]
