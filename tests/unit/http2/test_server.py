"""Our server and a real gRPC client."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from hpack import Decoder

from pilot_agent.http2 import frames
from pilot_agent.http2 import server as module
from pilot_agent.http2.call import Call
from pilot_agent.http2.connection import Config
from pilot_agent.http2.server import Server, ServerConnection, ServerStream
from pilot_agent.http2.status import Code, Status
from tests.support.eventually_async import eventually_async
from tests.unit.http2.pairs import echo, grpc_client, our_server, path
from tests.unit.http2.wires import REQUEST, FakeTransport, Recorder, ServerWire, data, end_of, message

WORDS = "100 % of ünïcode, 日本 and a line\nend \x7f"


def test_messages_in_both_directions_of_any_size(tmp_path: Path) -> None:
    async def run() -> None:
        config = Config(largest_message=None)
        async with our_server(tmp_path, echo, config) as (_, name), grpc_client(name) as client:
            call = client()
            for size in (0, 1, 5, 16384, 65536, 1_000_000, 30_000_000):
                body = os.urandom(size)
                await call.write(body)
                assert await call.read() == body
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK

    asyncio.run(run())


def test_many_streams_of_one_connection_side_by_side(tmp_path: Path) -> None:
    async def run() -> None:
        async with our_server(tmp_path, echo) as (server, name), grpc_client(name) as client:

            async def talk(number: int) -> None:
                call = client()
                for turn in range(20):
                    body = bytes([number]) * (turn * 997)
                    await call.write(body)
                    assert await call.read() == body
                await call.done_writing()
                assert await call.code() is grpc.StatusCode.OK

            await asyncio.gather(*(talk(number) for number in range(100)))
            assert server.connections == 1

    asyncio.run(run())


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_with_its_words(tmp_path: Path, code: grpc.StatusCode) -> None:
    async def fail(call: Call) -> None:
        await call.read()
        call.end(Status(Code[code.name], WORDS), (("last-bin", b"\x00\xff"),))

    async def run() -> None:
        async with our_server(tmp_path, fail) as (_, name), grpc_client(name) as client:
            call = client()
            await call.write(b"")
            assert await call.code() is code
            assert await call.details() == WORDS
            assert dict(await call.trailing_metadata())["last-bin"] == b"\x00\xff"

    asyncio.run(run())


def test_an_end_behind_messages_comes_behind_them(tmp_path: Path) -> None:
    async def serve(call: Call) -> None:
        await call.write(b"a" * 3_000_000)
        await call.write(b"b")
        call.end(Status(Code.ABORTED, "so"))

    async def run() -> None:
        async with our_server(tmp_path, serve) as (_, name), grpc_client(name) as client:
            call = client()
            assert len(await call.read()) == 3_000_000
            assert await call.read() == b"b"
            assert await call.code() is grpc.StatusCode.ABORTED

    asyncio.run(run())


def test_metadata_and_the_process_behind(tmp_path: Path) -> None:
    seen: list[ServerStream] = []

    async def serve(call: Call) -> None:
        assert isinstance(call.stream, ServerStream)
        seen.append(call.stream)
        call.stream.send_headers((("first", "1"), ("first-bin", b"\x00\xff")))
        await call.read()  # a status that comes at the same time makes gRPC's client forget them
        call.end()

    async def run() -> None:
        async with our_server(tmp_path, serve) as (_, name), grpc_client(name) as client:
            call = client(metadata=(("a", "b"), ("c-bin", bytes(range(256))), ("long", "x" * 7000)))
            assert {("first", "1"), ("first-bin", b"\x00\xff")} <= set(await call.initial_metadata())
            await call.write(b"")
            assert await call.code() is grpc.StatusCode.OK
            found = dict(seen[0].metadata)
            assert (found["a"], found["c-bin"], found["long"]) == ("b", bytes(range(256)), "x" * 7000)
            assert seen[0].pid == os.getpid()
            assert seen[0].method == path("Any")

    asyncio.run(run())


def test_an_unknown_method(tmp_path: Path) -> None:
    async def run() -> None:
        async with our_server(tmp_path, echo) as (_, name), grpc_client(name) as client:
            call = client("Other")
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
            assert await call.details() == "unknown method /test.Service/Other"

    asyncio.run(run())


def test_a_message_over_the_limit_in_the_words_of_grpc(tmp_path: Path) -> None:
    async def run() -> None:
        async with our_server(tmp_path, echo, Config(largest_message=1000)) as (_, name), grpc_client(name) as client:
            call = client()
            await call.write(bytes(1000))
            assert len(await call.read()) == 1000
            await call.write(bytes(1001))
            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            ours = await call.details()
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1000)])
        made: Any = {"Any": grpc.stream_stream_rpc_method_handler(_read)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", made),))
        server.add_insecure_port(f"unix:{tmp_path}/g")
        await server.start()
        async with grpc_client(f"unix:{tmp_path}/g") as client:
            call = client()
            await call.write(bytes(1001))
            assert await call.details() == ours
        await server.stop(None)

    async def _read(_requests: Any, context: Any) -> None:
        await context.read()

    asyncio.run(run())


def test_compressed_messages_are_not_implemented(tmp_path: Path) -> None:
    async def run() -> None:
        async with our_server(tmp_path, echo) as (_, name), grpc_client(name) as client:
            call = client(compression=grpc.Compression.Gzip)
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(run())


def test_a_cancelled_call_is_told(tmp_path: Path) -> None:
    calls: list[Call] = []

    async def serve(call: Call) -> None:
        calls.append(call)
        await call.write(b"here")
        await call.finished()

    async def run() -> None:
        async with our_server(tmp_path, serve) as (_, name), grpc_client(name) as client:
            call = client()
            assert await call.read() == b"here"
            call.cancel()
            await eventually_async(lambda: calls[0].status is not None)
            assert calls[0].status is not None and calls[0].status.code is Code.CANCELLED
            assert await client().read() == b"here", "the connection is still used"

    asyncio.run(run())


def test_a_deadline_of_the_client_is_kept(tmp_path: Path) -> None:
    statuses: list[Status] = []

    async def hang(call: Call) -> None:
        statuses.append(await call.finished())

    async def run() -> None:
        async with our_server(tmp_path, hang) as (_, name), grpc_client(name) as client:
            call = client(timeout=0.2)
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await eventually_async(lambda: statuses)
            assert statuses[0].code in (Code.DEADLINE_EXCEEDED, Code.CANCELLED)

    asyncio.run(run())


def test_a_deadline_ends_a_call_whose_client_forgot_it() -> None:
    async def run() -> None:
        wire = ServerWire()
        wire.feed(wire.headers(1, [*REQUEST, ("grpc-timeout", "50m")]))
        await eventually_async(lambda: wire.opened[0].status is not None)
        assert wire.opened[0].status == Status(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        wire.close()

    asyncio.run(run())


def test_keepalive_of_a_client_is_answered_and_ours_too(tmp_path: Path) -> None:
    async def run() -> None:
        config = Config(keepalive_interval=0.02, keepalive_timeout=0.5)
        options = [("grpc.keepalive_time_ms", 20), ("grpc.keepalive_timeout_ms", 1000)]
        options += [("grpc.http2.max_pings_without_data", 0), ("grpc.http2.min_ping_interval_without_data_ms", 1)]
        async with our_server(tmp_path, echo, config) as (_, name), grpc_client(name, *options) as client:
            call = client()
            await call.write(b"a")
            assert await call.read() == b"a"
            await asyncio.sleep(0.3)
            await call.write(b"b")
            assert await call.read() == b"b"

    asyncio.run(run())


def test_a_client_that_is_gone_is_noticed() -> None:
    async def run() -> None:
        wire = ServerWire(Config(keepalive_interval=0.02, keepalive_timeout=0.05))
        wire.feed(wire.request())
        await eventually_async(lambda: wire.opened[0].status is not None)
        assert wire.opened[0].status == Status(Code.UNAVAILABLE, "keepalive watchdog timeout")
        wire.close()

    asyncio.run(run())


def test_what_waits_in_the_backlog_is_served_and_the_socket_serves_again(tmp_path: Path) -> None:
    async def run() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "s"))
            listening.listen()
            listening.setblocking(False)
            async with grpc_client(f"unix:{tmp_path}/s") as client:
                for _ in range(2):
                    early = client(wait_for_ready=True)
                    await asyncio.sleep(0.1)
                    server = Server({path("Any"): _greet})
                    await server.start(listening)
                    assert await early.read() == b"hello"
                    await server.close(0.2)
                    assert await early.code() is not grpc.StatusCode.OK
        assert (tmp_path / "s").exists()

    asyncio.run(run())


def _greet(stream: ServerStream) -> Recorder:
    stream.write(b"hello")
    return Recorder(stream)


def test_a_close_lets_streams_end_and_refuses_new_ones() -> None:
    async def run() -> None:
        wire = ServerWire()
        wire.feed(wire.request())
        wire.connection.close_when_done()
        wire.feed(wire.request(3))
        found = await wire.frames()
        assert end_of(found) == "GOAWAY NO_ERROR"
        assert end_of([each for each in found if each.kind == frames.RST_STREAM]) == "RST_STREAM REFUSED_STREAM"
        assert len(wire.opened) == 1
        stream = wire.opened[0].stream
        assert isinstance(stream, ServerStream)
        stream.end()
        await wire.frames()
        assert wire.transport.is_closed and not wire.transport.is_cut
        wire.close()

    asyncio.run(run())


def test_a_server_that_closes_cuts_what_does_not_end(tmp_path: Path) -> None:
    calls: list[Call] = []

    async def hang(call: Call) -> None:
        calls.append(call)
        await call.finished()

    async def run() -> None:
        async with our_server(tmp_path, hang) as (server, name), grpc_client(name) as client:
            call = client()
            await call.write(b"x")
            await eventually_async(lambda: calls)
            await server.close(0.05)
            assert server.connections == 0
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert calls[0].status is not None and calls[0].status.code is Code.UNAVAILABLE

    asyncio.run(run())


def test_a_client_that_does_not_read_makes_the_writer_wait(tmp_path: Path) -> None:
    written = 0

    async def many(call: Call) -> None:
        nonlocal written
        for _ in range(100):
            await call.write(bytes(1_000_000))
            written += 1
        call.end()

    async def run() -> None:
        async with our_server(tmp_path, many) as (_, name), grpc_client(name) as client:
            call = client()
            await eventually_async(lambda: written > 0)
            await asyncio.sleep(0.3)
            assert written < 30
            for _ in range(100):
                assert len(await call.read()) == 1_000_000
            assert await call.code() is grpc.StatusCode.OK

    asyncio.run(run())


def test_a_reader_that_pauses_makes_the_client_wait(tmp_path: Path) -> None:
    may_read = asyncio.Event()

    async def slow(call: Call) -> None:
        call.stream.pause_reading()
        await may_read.wait()
        call.stream.resume_reading()
        count = 0
        while (await call.read()) is not None:
            count += 1
        await call.write(str(count).encode())
        call.end()

    async def run() -> None:
        async with our_server(tmp_path, slow, Config(window=1 << 17)) as (_, name), grpc_client(name) as client:
            call = client()
            written = 0

            async def write() -> None:
                nonlocal written
                for _ in range(100):
                    await call.write(bytes(100_000))
                    written += 1
                await call.done_writing()

            writing = asyncio.create_task(write())
            await asyncio.sleep(0.3)
            assert written < 50
            may_read.set()
            await writing
            assert await call.read() == b"100"

    asyncio.run(run())


# What a gRPC client would not say


def answer_to(fields: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}

    async def run() -> None:
        wire = ServerWire()
        wire.feed(wire.headers(1, fields, ends=True))
        blocks = [each for each in await wire.frames() if each.kind == frames.HEADERS]
        assert len(blocks) == 1 and blocks[0].flags & frames.END_STREAM
        found.update((str(name), str(value)) for name, value in Decoder().decode(blocks[0].payload))
        assert wire.connection.streams == {}
        wire.close()

    asyncio.run(run())
    return found


def changed(name: str, value: str) -> list[tuple[str, str]]:
    return [(each, value if each == name else before) for each, before in REQUEST]


@pytest.mark.parametrize("content_type", ["text/plain", "application/grpc-web", "application/json", ""])
def test_another_content_type_is_415(content_type: str) -> None:
    assert answer_to(changed("content-type", content_type)) == {":status": "415"}


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/grpc;charset=x", "APPLICATION/GRPC"])
def test_content_types_of_grpc(content_type: str) -> None:
    async def run() -> None:
        wire = ServerWire()
        wire.feed(wire.headers(1, changed("content-type", content_type)))
        assert len(wire.opened) == 1
        wire.close()

    asyncio.run(run())


def test_another_verb_is_405() -> None:
    assert answer_to(changed(":method", "GET")) == {":status": "405"}


@pytest.mark.parametrize("timeout", ["", "5", "x", "-1S", "123456789S", "1s"])
def test_a_timeout_that_is_none_is_an_error(timeout: str) -> None:
    async def run() -> None:
        wire = ServerWire()
        wire.feed(wire.headers(1, [*REQUEST, ("grpc-timeout", timeout)]))
        assert end_of(await wire.frames()) == "RST_STREAM PROTOCOL_ERROR"
        wire.close()

    asyncio.run(run())


def test_a_connection_that_says_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_SILENCE_S", 0.02)

    async def run() -> None:
        server = Server({})
        server._is_open = True
        connection, transport = ServerConnection(server), FakeTransport()
        connection.connection_made(transport)
        await eventually_async(lambda: transport.is_cut)
        connection.connection_lost(None)

    asyncio.run(run())


def test_more_connections_than_the_limit_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 0)

    async def run() -> None:
        server = Server({})
        server._is_open = True
        connection, transport = ServerConnection(server), FakeTransport()
        connection.connection_made(transport)
        assert transport.is_cut and server.connections == 0
        connection.connection_lost(None)

    asyncio.run(run())


def test_a_trailing_end_of_the_client_half_closes() -> None:
    async def run() -> None:
        wire = ServerWire()
        wire.feed(wire.request() + data(1, message(b"x")) + wire.headers(1, [("a", "b")], ends=True))
        assert wire.opened[0].messages == [b"x"]
        assert wire.opened[0].notes == ["half-closed"]
        wire.close()

    asyncio.run(run())
