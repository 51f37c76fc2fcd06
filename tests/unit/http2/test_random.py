"""What holds for any bytes in any pieces: the same is delivered, nothing is raised, no window is overrun."""

import asyncio
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot_agent.http2 import frames
from pilot_agent.http2.connection import Config
from pilot_agent.http2.frames import CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PADDED, PREFACE
from pilot_agent.http2.server import Server, ServerConnection, ServerStream
from pilot_agent.http2.status import Code, Status
from tests.unit.http2.wires import (
    PATH,
    REQUEST,
    ClientWire,
    FakeTransport,
    Frame,
    Recorder,
    ServerWire,
    Wire,
    data,
    message,
)

SIZES = st.lists(st.integers(1, 70_000) | st.integers(1, 20), min_size=1, max_size=20)
BODIES = st.lists(st.binary(max_size=50) | st.integers(0, 200_000).map(bytes), max_size=8)
LARGE = Config(largest_message=None, window=1 << 20, max_frame=frames.LARGEST_MAX_FRAME)


@settings(max_examples=150)
@given(
    BODIES, st.lists(st.integers(1, 250_000) | st.integers(1, 30), min_size=1, max_size=10), st.integers(0, 255), SIZES
)
def test_pieces_of_any_size_deliver_the_same(
    bodies: list[bytes], cuts: list[int], padding: int, sizes: list[int]
) -> None:
    """The messages cut into frames in any way, the frames into reads in any way."""

    async def run() -> None:
        wire = ClientWire(LARGE)
        stream = b"".join(map(message, bodies))
        sent = wire.response()
        position = turn = 0
        while position < len(stream):
            cut = max(cuts[turn % len(cuts)], len(stream) // 1000)  # a test of seconds shows no more
            part = stream[position : position + cut]
            if turn % 3 == 1 and padding:
                sent += data(1, bytes([padding]) + part + bytes(padding), PADDED)
            else:
                sent += data(1, part)
            if turn % 4 == 1 and turn < 1000:  # fewer than are a flood
                sent += frames.ping(b"between!") + frames.frame(0x55, 0, 1, b"unknown")
            position, turn = position + len(part), turn + 1
        wire.feed(sent + wire.trailers(), sizes)
        assert wire.told.messages == bodies
        assert wire.told.status == Status(Code.OK)
        wire.close()

    asyncio.run(run())


@settings(max_examples=100)
@given(st.binary(max_size=2000), SIZES, st.booleans())
def test_garbage_raises_nothing_and_ends(garbage: bytes, sizes: list[int], is_server: bool) -> None:
    async def run() -> None:
        wire: Wire = ServerWire() if is_server else ClientWire()
        wire.feed(garbage, sizes)
        await wire.frames()
        wire.close()

    asyncio.run(run())


KINDS = st.integers(0, 12)
PAYLOADS = [bytes(4), bytes(8), b"\0\0\0\1", b"\0\4\x7f\xff\xff\xff", b"REQUEST"]
SOME_FRAMES = st.lists(
    st.tuples(
        KINDS,
        st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF]),
        st.sampled_from([0, 1, 1, 1, 2, 3, 5, 0x7FFFFFFF]),
        st.binary(max_size=40) | st.sampled_from(PAYLOADS),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(SOME_FRAMES, SIZES, st.booleans())
def test_frames_of_any_kind_raise_nothing(
    found: list[tuple[int, int, int, bytes]], sizes: list[int], is_server: bool
) -> None:
    async def run() -> None:
        problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        wire: Wire = ServerWire() if is_server else ClientWire()
        sent = b""
        for kind, flags, stream, payload in found:
            body = wire.block(REQUEST) if payload == b"REQUEST" else payload
            sent += frames.frame(kind, flags, stream, body)
        wire.feed(sent, sizes)
        await wire.frames()
        assert problems == []
        if not wire.transport.is_closed and not wire.connection._block_of:
            wire.feed(frames.ping(b"12345678"))
            await wire.frames()
        wire.close()

    asyncio.run(run())


@settings(max_examples=100)
@given(st.binary(max_size=300), st.integers(0, 5))
def test_header_blocks_of_any_bytes_raise_nothing(block: bytes, cuts: int) -> None:
    async def run() -> None:
        wire = ServerWire()
        parts = [block[n :: cuts + 1] for n in range(cuts + 1)]
        for number, part in enumerate(parts):
            flags = END_HEADERS if number == cuts else 0
            wire.feed(frames.frame(CONTINUATION if number else HEADERS, flags, 1, part))
        await wire.frames()
        wire.close()

    asyncio.run(run())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 2), st.integers(0, 100_000)),
        st.tuples(st.just("widen"), st.integers(-1, 2), st.integers(1, 100_000)),
        st.tuples(st.just("initial"), st.just(0), st.integers(0, 200_000)),
        st.tuples(st.just("largest"), st.just(0), st.integers(16384, 50_000)),
        st.tuples(st.just("block"), st.just(0), st.just(0)),
        st.tuples(st.just("unblock"), st.just(0), st.just(0)),
        st.tuples(st.just("turn"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


class Peer:
    """The windows as the other side counts them."""

    def __init__(self) -> None:
        self.connection, self.initial, self.largest = 65535, 65535, 16384
        self.streams = dict.fromkeys((1, 3, 5), 65535)
        self.received: dict[int, bytearray] = {number: bytearray() for number in (1, 3, 5)}

    def take(self, found: list[Frame]) -> None:
        for each in found:
            if each.kind == frames.DATA:
                assert len(each.payload) <= self.largest
                self.connection -= len(each.payload)
                self.streams[each.stream] -= len(each.payload)
                self.received[each.stream] += each.payload
                assert self.connection >= 0
                assert self.streams[each.stream] >= 0 or not each.payload


@settings(max_examples=150)
@given(STEPS)
def test_no_window_is_overrun_and_everything_arrives(steps: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        wire, peer = ServerWire(), Peer()
        for number in (1, 3, 5):
            wire.feed(wire.request(number))
        streams = [each.stream for each in wire.opened]
        written: dict[int, bytearray] = {number: bytearray() for number in (1, 3, 5)}
        for what, which, size in steps:
            if what == "write":
                body = bytes([which]) * size
                written[2 * which + 1] += message(body)
                stream = streams[which]
                assert stream is not None
                stream.write(body)
            elif what == "widen":
                number = 0 if which < 0 else 2 * which + 1
                wire.feed(frames.window_update(number, size))
                if number:
                    peer.streams[number] += size
                else:
                    peer.connection += size
            elif what == "initial":
                # What is on its way was sent by the window before.
                peer.take(await wire.frames())
                wire.feed(frames.settings({frames.INITIAL_WINDOW_SIZE: size}))
                peer.streams = {number: left + size - peer.initial for number, left in peer.streams.items()}
                peer.initial = size
            elif what == "largest":
                peer.take(await wire.frames())
                wire.feed(frames.settings({frames.MAX_FRAME_SIZE: size}))
                peer.largest = size
            elif what == "block":
                wire.connection.pause_writing()
            elif what == "unblock":
                wire.connection.resume_writing()
            else:
                peer.take(await wire.frames())
        wire.connection.resume_writing()
        wire.feed(frames.window_update(0, 1 << 30))
        for number in (1, 3, 5):
            wire.feed(frames.window_update(number, 1 << 30))
        peer.connection += 1 << 30
        peer.streams = {number: left + (1 << 30) for number, left in peer.streams.items()}
        peer.take(await wire.frames())
        assert peer.received == written
        for each in wire.opened:
            assert isinstance(each.stream, ServerStream)
            assert each.notes.count("pause") == each.notes.count("resume")
            each.stream.end()
        ends = [each for each in await wire.frames() if each.kind == HEADERS and each.flags & END_STREAM]
        assert len(ends) == 3
        wire.close()

    asyncio.run(run())


@settings(max_examples=60)
@given(BODIES, BODIES, SIZES, st.integers(0, 3))
def test_h2_as_the_client_finds_no_fault(asked: list[bytes], told: list[bytes], sizes: list[int], code: int) -> None:
    """The library h2 keeps a strict account of states, windows and tables; it raises for each violation of ours."""

    async def run() -> None:
        opened: list[Recorder] = []

        def handler(stream: ServerStream) -> Recorder:
            opened.append(Recorder(stream))
            return opened[-1]

        server = Server({PATH: handler}, Config(largest_message=None))
        server._is_open = True
        connection, transport = ServerConnection(server), FakeTransport()
        connection.connection_made(transport)
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        client.initiate_connection()
        events: list[Any] = []

        async def exchange() -> None:
            while True:
                for _ in range(3):
                    await asyncio.sleep(0)
                answer = bytes(transport.written)
                transport.written.clear()
                for event in client.receive_data(answer):
                    events.append(event)
                    if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                        client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                out = client.data_to_send()
                if not out and not answer:
                    return
                position = turn = 0
                while position < len(out):
                    buffer = connection.get_buffer(-1)
                    size = min(len(buffer), len(out) - position, sizes[turn % len(sizes)])
                    buffer[:size] = out[position : position + size]
                    position, turn = position + size, turn + 1
                    connection.buffer_updated(size)

        client.send_headers(1, REQUEST)
        await exchange()
        for body in asked:
            rest = message(body)
            while rest:
                room = min(client.local_flow_control_window(1), client.max_outbound_frame_size)
                client.send_data(1, rest[:room])
                rest = rest[room:]
                await exchange()
        client.end_stream(1)
        await exchange()
        assert opened[0].messages == asked and opened[0].notes == ["half-closed"]
        stream = opened[0].stream
        assert isinstance(stream, ServerStream)
        for body in told:
            stream.write(body)
        stream.end(Status(Code(code), "wörds"))
        await exchange()
        received = b"".join(each.data for each in events if isinstance(each, h2.events.DataReceived))
        assert received == b"".join(map(message, told))
        ends = [each for each in events if isinstance(each, h2.events.StreamEnded)]
        assert len(ends) == 1
        connection.connection_lost(None)

    asyncio.run(run())


def test_a_large_message_is_written_in_small_pieces() -> None:
    """Not gathered a second time before the socket takes it."""

    async def run() -> None:
        wire = ServerWire()
        wire.feed(wire.request() + frames.window_update(0, 1 << 30) + frames.window_update(1, 1 << 30))
        assert wire.opened[0].stream is not None
        wire.opened[0].stream.write(bytes(20_000_000))
        await wire.frames()
        assert wire.transport.largest_write < 300_000
        wire.close()

    asyncio.run(run())


def test_the_preface_in_single_bytes() -> None:
    async def run() -> None:
        server = Server({PATH: Recorder})
        server._is_open = True
        connection, transport = ServerConnection(server), FakeTransport()
        connection.connection_made(transport)
        for byte in PREFACE + frames.settings({}) + frames.ping(b"12345678"):
            connection.get_buffer(-1)[:1] = bytes([byte])
            connection.buffer_updated(1)
        await asyncio.sleep(0)
        assert frames.ping(b"12345678", is_ack=True) in bytes(transport.written)
        connection.connection_lost(None)

    asyncio.run(run())
