"""Our client and a real gRPC server."""

import asyncio
import gc
import os
import weakref
from typing import Any

import grpc
import pytest

from pilot_agent.http2 import frames
from pilot_agent.http2.call import Call
from pilot_agent.http2.client import ClientConnection
from pilot_agent.http2.connection import Config
from pilot_agent.http2.frames import ErrorCode
from pilot_agent.http2.status import Code, Status
from tests.support.eventually_async import eventually_async
from tests.unit.http2.pairs import connected, grpc_echo, grpc_server, path
from tests.unit.http2.wires import RESPONSE, TRAILERS, ClientWire, Recorder, data, message

WORDS = "100 % of ünïcode, 日本 and a line\nend \x7f"


async def read_all(call: Call) -> list[bytes]:
    found = []
    while (each := await call.read()) is not None:
        found.append(bytes(each))
    return found


def test_messages_in_both_directions_of_any_size() -> None:
    async def run() -> None:
        async with grpc_server({"Echo": grpc_echo}) as address, connected(address) as connection:
            call = Call.open(connection, path("Echo"))
            for size in (0, 1, 4, 5, 100, 16383, 16384, 65535, 65536, 1_000_000, 30_000_000):
                body = os.urandom(size)
                await call.write(body)
                assert await call.read() == body
            call.end_writing()
            assert await call.read() is None
            assert call.status == Status(Code.OK)
            await eventually_async(lambda: not connection.streams)

    asyncio.run(run())


def test_many_answers_to_one_request_come_in_order() -> None:
    async def count(_requests: Any, context: Any) -> None:
        await context.read()
        for number in range(2000):
            await context.write(str(number).encode())

    async def run() -> None:
        async with grpc_server({"Count": count}) as address, connected(address) as connection:
            call = Call.open(connection, path("Count"))
            await call.write(b"go")
            call.end_writing()
            assert await read_all(call) == [str(number).encode() for number in range(2000)]
            assert call.status == Status(Code.OK)

    asyncio.run(run())


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_with_its_words(code: grpc.StatusCode) -> None:
    async def fail(_requests: Any, context: Any) -> None:
        await context.read()
        await context.abort(code, WORDS)

    async def run() -> None:
        async with grpc_server({"Fail": fail}) as address, connected(address) as connection:
            call = Call.open(connection, path("Fail"))
            await call.write(b"")
            assert await call.finished() == Status(Code[code.name], WORDS)

    asyncio.run(run())


def test_a_method_that_is_not_there_ends_by_trailers_only() -> None:
    async def run() -> None:
        async with grpc_server({}) as address, connected(address) as connection:
            call = Call.open(connection, path("Missing"))
            status = await call.finished()
            assert status.code is Code.UNIMPLEMENTED
            assert status.message

    asyncio.run(run())


def test_metadata_in_both_directions() -> None:
    seen: dict[str, Any] = {}

    async def tell(_requests: Any, context: Any) -> None:
        seen.update(context.invocation_metadata())
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x00\xff\x80")))
        context.set_trailing_metadata((("last", "2"), ("last-bin", bytes(range(256)))))

    async def run() -> None:
        options = [("grpc.max_metadata_size", 1 << 17), ("grpc.absolute_max_metadata_size", 1 << 17)]
        async with grpc_server({"Tell": tell}, options=options) as address, connected(address) as connection:
            token = "x" * 20_000  # longer than one frame
            sent = (("authorization", f"Bearer {token}"), ("clusterid", "c1"), ("own-bin", bytes(range(256))))
            call = Call.open(connection, path("Tell"), sent)
            assert (await call.finished()).is_ok
            assert seen["clusterid"] == "c1" and seen["own-bin"] == bytes(range(256))
            assert seen["authorization"] == f"Bearer {token}"
            assert ("first", "1") in call.headers and ("first-bin", b"\x00\xff\x80") in call.headers
            assert ("last", "2") in call.trailers and ("last-bin", bytes(range(256))) in call.trailers

    asyncio.run(run())


def test_a_credential_is_in_no_table_of_the_compression() -> None:
    async def run() -> None:
        wire = ClientWire()
        wire.connection.open("/a/b", Recorder(), (("authorization", "Bearer secret"), ("other", "public")))
        table = wire.connection._encoder.header_table.dynamic_entries
        assert any(value == b"public" for _, value in table)
        assert all(b"secret" not in value for _, value in table)
        wire.close()

    asyncio.run(run())


@pytest.mark.parametrize("metadata", [(("A", "x"),), (("a b", "x"),), ((":path", "x"),), (("a", "b\nc"),)])
def test_metadata_that_cant_be_sent_is_refused_here(metadata: Any) -> None:
    async def run() -> None:
        wire = ClientWire()
        with pytest.raises(ValueError, match="field"):
            wire.connection.open("/a/b", Recorder(), metadata)
        wire.close()

    asyncio.run(run())


def test_a_deadline_ends_the_call_at_both_ends() -> None:
    left: list[float] = []
    ended = asyncio.Event()

    async def hang(_requests: Any, context: Any) -> None:
        left.append(context.time_remaining())
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def run() -> None:
        async with grpc_server({"Hang": hang}) as address, connected(address) as connection:
            call = Call.open(connection, path("Hang"), timeout=0.5)
            assert await call.finished() == Status(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
            await ended.wait()
            assert 0 < left[0] <= 0.5

    asyncio.run(run())


def test_a_cancelled_call_is_cancelled_at_the_server() -> None:
    ended = asyncio.Event()

    async def hang(_requests: Any, context: Any) -> None:
        await context.write(b"here")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def run() -> None:
        async with grpc_server({"Hang": hang}) as address, connected(address) as connection:
            call = Call.open(connection, path("Hang"))
            assert await call.read() == b"here"
            call.cancel()
            await ended.wait()
            assert connection.streams == {}
            assert not connection.is_over

    asyncio.run(run())


def test_a_server_that_stops_and_comes_again() -> None:
    async def hang(_requests: Any, context: Any) -> None:
        await context.write(b"here")
        await asyncio.Event().wait()

    async def run() -> None:
        async with grpc_server({"Hang": hang}) as address, connected(address) as connection:
            call = Call.open(connection, path("Hang"))
            assert await call.read() == b"here"
        status = await call.finished()
        assert status.code in (Code.UNAVAILABLE, Code.CANCELLED)
        await eventually_async(lambda: connection.is_over)
        late = Call.open(connection, path("Hang"))
        assert (await late.finished()).code is Code.UNAVAILABLE
        async with grpc_server({"Hang": hang}, port=address.port) as again, connected(again) as connection:
            call = Call.open(connection, path("Hang"))
            assert await call.read() == b"here"

    asyncio.run(run())


def test_a_server_that_does_not_read_makes_the_writer_wait() -> None:
    may_read = asyncio.Event()

    async def slow(_requests: Any, context: Any) -> None:
        await may_read.wait()
        count = 0
        while (await context.read()) is not grpc.aio.EOF:
            count += 1
        await context.write(str(count).encode())

    async def run() -> None:
        async with grpc_server({"Slow": slow}) as address, connected(address) as connection:
            call = Call.open(connection, path("Slow"))
            written = 0

            async def write() -> None:
                nonlocal written
                for _ in range(200):
                    await call.write(bytes(1_000_000))
                    written += 1

            writing = asyncio.create_task(write())
            await eventually_async(lambda: call.stream.is_writing_paused)
            await asyncio.sleep(0.2)
            assert written < 30, "what is on its way is bounded"
            may_read.set()
            await writing
            call.end_writing()
            assert await call.read() == b"200"

    asyncio.run(run())


def test_a_reader_that_pauses_makes_the_server_wait() -> None:
    written = 0

    async def many(_requests: Any, context: Any) -> None:
        nonlocal written
        for _ in range(100):
            await context.write(bytes(1_000_000))
            written += 1

    async def run() -> None:
        config = Config(largest_message=None, window=1 << 20)
        async with grpc_server({"Many": many}) as address, connected(address, config) as connection:
            told = Recorder()
            stream = connection.open(path("Many"), told)
            stream.pause_reading()
            await eventually_async(lambda: written > 0)
            await asyncio.sleep(0.3)
            assert written < 30 and told.messages == []
            stream.resume_reading()
            await eventually_async(lambda: told.status is not None, within=20)
            assert len(told.messages) == 100

    asyncio.run(run())


def test_a_server_that_is_silent_is_unavailable_by_the_watchdog() -> None:
    async def run() -> None:
        wire = ClientWire(Config(keepalive_interval=0.02, keepalive_timeout=0.05))
        await eventually_async(lambda: wire.told.status is not None)
        assert wire.told.status == Status(Code.UNAVAILABLE, "keepalive watchdog timeout")
        assert wire.transport.is_closed
        wire.close()

    asyncio.run(run())


def test_pings_are_answered_so_the_watchdog_is_quiet() -> None:
    async def run() -> None:
        config = Config(keepalive_interval=0.02, keepalive_timeout=0.5)
        options = [("grpc.http2.min_ping_interval_without_data_ms", 1), ("grpc.http2.max_ping_strikes", 0)]
        serving = grpc_server({"Echo": grpc_echo}, options=options)
        async with serving as address, connected(address, config) as connection:
            call = Call.open(connection, path("Echo"))
            await asyncio.sleep(0.3)
            await call.write(b"still there")
            assert await call.read() == b"still there"

    asyncio.run(run())


# What a gRPC server would not say


def fed(*make: Any) -> tuple[Recorder, ClientWire]:
    told: list[Any] = []

    async def run() -> None:
        wire = ClientWire(Config(largest_message=1000))
        for each in make:
            wire.feed(each(wire))
        await wire.frames()
        told.extend((wire.told, wire))
        wire.close()

    asyncio.run(run())
    return told[0], told[1]


@pytest.mark.parametrize(
    ("http", "code"),
    [
        ("400", Code.INTERNAL),
        ("401", Code.UNAUTHENTICATED),
        ("403", Code.PERMISSION_DENIED),
        ("404", Code.UNIMPLEMENTED),
        ("429", Code.UNAVAILABLE),
        ("502", Code.UNAVAILABLE),
        ("503", Code.UNAVAILABLE),
        ("504", Code.UNAVAILABLE),
        ("500", Code.UNKNOWN),
        ("302", Code.UNKNOWN),
    ],
)
@pytest.mark.parametrize("ends", [True, False])
def test_an_answer_of_http_alone(http: str, code: Code, ends: bool) -> None:
    told, _ = fed(lambda w: w.headers(1, [(":status", http), ("content-type", "text/html")], ends=ends))
    assert told.status is not None
    assert told.status.code is code
    assert http in told.status.message


def test_a_grpc_status_counts_more_than_https() -> None:
    fields = [(":status", "503"), ("grpc-status", "5"), ("grpc-message", "not%20here")]
    assert fed(lambda w: w.headers(1, fields, ends=True))[0].status == Status(Code.NOT_FOUND, "not here")


def test_another_content_type_is_no_answer() -> None:
    told, _ = fed(lambda w: w.headers(1, [(":status", "200"), ("content-type", "text/html")]))
    assert told.status is not None
    assert told.status.code is Code.UNKNOWN
    assert "text/html" in told.status.message


@pytest.mark.parametrize("fields", [[("a", "b")], [("grpc-status", "what")], [("grpc-status", "99")]])
def test_trailers_without_a_status_one_knows(fields: list[tuple[str, str]]) -> None:
    told, _ = fed(lambda w: w.response(), lambda w: w.headers(1, fields, ends=True))
    assert told.status is not None
    assert told.status.code is Code.UNKNOWN


def test_an_end_without_trailers() -> None:
    told, _ = fed(lambda w: w.response() + data(1, message(b"x"), 1))
    assert told.messages == [b"x"]
    assert told.status == Status(Code.UNKNOWN, "the stream ended without a grpc-status")


def test_interim_answers_are_passed_over() -> None:
    told, _ = fed(
        lambda w: w.headers(1, [(":status", "103"), ("link", "x")]),
        lambda w: w.headers(1, RESPONSE) + data(1, message(b"x")) + w.headers(1, TRAILERS, ends=True),
    )
    assert told.messages == [b"x"]
    assert told.status == Status(Code.OK)


def test_an_end_within_a_message() -> None:
    told, _ = fed(lambda w: w.response() + data(1, message(b"12345")[:7]) + w.trailers())
    assert told.status == Status(Code.INTERNAL, "the stream ended within a message")


@pytest.mark.parametrize(
    ("prefix", "code"),
    [
        (b"\x01\0\0\0\x05", Code.UNIMPLEMENTED),
        (b"\x02\0\0\0\x05", Code.INTERNAL),
        (b"\0\0\0\x10\0", Code.RESOURCE_EXHAUSTED),
    ],
)
def test_messages_that_are_not_taken(prefix: bytes, code: Code) -> None:
    told, _ = fed(lambda w: w.response() + data(1, prefix + b"12345"))
    assert told.status is not None
    assert told.status.code is code
    assert told.messages == []
    if code is Code.RESOURCE_EXHAUSTED:
        assert told.status.message == "CLIENT: Received message larger than max (4096 vs. 1000)"


@pytest.mark.parametrize(
    ("reset", "code"),
    [
        (ErrorCode.NO_ERROR, Code.INTERNAL),
        (ErrorCode.PROTOCOL_ERROR, Code.INTERNAL),
        (ErrorCode.STREAM_CLOSED, Code.UNKNOWN),
        (ErrorCode.REFUSED_STREAM, Code.UNAVAILABLE),
        (ErrorCode.CANCEL, Code.CANCELLED),
        (ErrorCode.ENHANCE_YOUR_CALM, Code.RESOURCE_EXHAUSTED),
        (ErrorCode.INADEQUATE_SECURITY, Code.PERMISSION_DENIED),
        (0x77, Code.UNKNOWN),
    ],
)
def test_a_stream_that_is_reset(reset: int, code: Code) -> None:
    told, _ = fed(lambda w: frames.rst_stream(1, reset))
    assert told.status is not None
    assert told.status.code is code
    assert told.status.message == f"Received RST_STREAM with error code {int(reset)} ({frames.name_of(reset)})"


def test_goaway_for_a_stream_nobody_looked_at() -> None:
    told, wire = fed(lambda w: frames.goaway(0, ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings"))
    assert told.status is not None
    assert told.status.code is Code.UNAVAILABLE
    assert "GOAWAY received; Error code: 11; Debug Text: too_many_pings" in told.status.message
    assert wire.transport.is_closed


def test_goaway_lets_what_is_there_end_and_refuses_what_comes() -> None:
    async def run() -> None:
        wire = ClientWire()
        wire.feed(wire.response() + frames.goaway(1, ErrorCode.NO_ERROR, "bye"))
        late = Recorder()
        wire.connection.open("/a/b", late)
        await wire.frames()
        said = "GOAWAY received; Error code: 0; Debug Text: bye"
        assert late.status == Status(Code.UNAVAILABLE, f"the server takes no more streams: {said}")
        wire.feed(data(1, message(b"x")))
        assert wire.told.messages == [b"x"]
        wire.connection.connection_lost(ConnectionResetError(104, "Connection reset by peer"))
        assert wire.told.status is not None
        assert wire.told.status.code is Code.UNAVAILABLE
        assert "Connection reset by peer" in wire.told.status.message
        assert "GOAWAY received; Error code: 0; Debug Text: bye" in wire.told.status.message

    asyncio.run(run())


def test_the_servers_limit_of_streams_is_kept() -> None:
    async def run() -> None:
        wire = ClientWire()
        wire.feed(frames.settings({frames.MAX_CONCURRENT_STREAMS: 1}))
        late = Recorder()
        wire.connection.open("/a/b", late)
        await wire.frames()
        assert late.status is not None and "no more than 1 streams" in late.status.message
        wire.close()

    asyncio.run(run())


def test_a_receiver_that_fails_ends_its_own_stream() -> None:
    async def run() -> None:
        problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        wire = ClientWire()

        def fail(_message: bytes) -> None:
            raise RuntimeError("a bug")

        wire.told.message_received = fail  # type: ignore[assignment,method-assign]
        wire.feed(wire.response() + data(1, message(b"x") + message(b"y")))
        assert wire.told.status is not None and wire.told.status.code is Code.INTERNAL
        assert [str(each["exception"]) for each in problems] == ["a bug"]
        assert not wire.transport.is_closed
        wire.close()

    asyncio.run(run())


def test_the_end_waits_for_a_reader_that_pauses() -> None:
    async def run() -> None:
        wire = ClientWire()
        wire.stream.pause_reading()
        wire.feed(wire.response() + data(1, message(b"x") + message(b"y")) + wire.trailers())
        assert (wire.told.messages, wire.told.status) == ([], None)
        wire.stream.resume_reading()
        assert (wire.told.messages, wire.told.status) == ([b"x", b"y"], Status(Code.OK))
        wire.close()

    asyncio.run(run())


def test_a_connection_to_a_grpc_server_is_one_of_many_streams() -> None:
    async def run() -> None:
        async with grpc_server({"Echo": grpc_echo}) as address, connected(address) as connection:
            calls = [Call.open(connection, path("Echo")) for _ in range(50)]
            for number, call in enumerate(calls):
                await call.write(bytes([number]) * 100_000)
            for number, call in enumerate(calls):
                assert await call.read() == bytes([number]) * 100_000
            connection.close()
            await eventually_async(lambda: connection.is_over)

    asyncio.run(run())


def test_nothing_is_kept_of_a_connection_that_is_gone() -> None:
    async def run() -> "weakref.ref[ClientConnection]":
        async with grpc_server({"Echo": grpc_echo}) as address, connected(address) as connection:
            call = Call.open(connection, path("Echo"))
            await call.write(b"x")
            assert await call.read() == b"x"
        return weakref.ref(connection)

    found = asyncio.run(run())
    gc.collect()
    assert found() is None
