import asyncio

import pytest

from pilot_agent.status.front import Limits, Probe, parse_probe
from tests.support.eventually_async import eventually_async
from tests.support.http import connected, fetch
from tests.unit.status.served import Blocks, served

READY = b"GET /healthz/ready HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (READY, Probe(True, False, True)),
        (b"HEAD /healthz/ready HTTP/1.1\r\nHost: x\r\n\r\n", Probe(False, False, True)),
        (b"GET /healthz/ready HTTP/1.0\r\n\r\n", Probe(True, True, False)),
        (b"GET /healthz/ready HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Probe(True, True, True)),
        (b"GET /healthz/ready HTTP/1.1\r\nConnection: close\r\n\r\n", Probe(True, False, False)),
        (b"GET /healthz/ready HTTP/1.1\r\nconnection:keep-alive , CLOSE\r\n\r\n", Probe(True, False, False)),
        (b"GET /healthz/ready HTTP/1.1\r\nAccept: */*\r\n\r\n", Probe(True, False, True)),
        (b"GET /healthz/ready HTTP/1.1\r\nAccept: application/json\r\n\r\n", None),
        (b"GET /healthz/ready HTTP/1.1\r\nConnection: upgrade\r\n\r\n", None),
        (b"GET /healthz/ready HTTP/1.1\r\nUpgrade: h2c\r\n\r\n", None),
        (b"GET /healthz/ready HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", None),
        (b"GET /healthz/ready HTTP/1.1\r\nContent-Length: 0\r\n\r\n", None),
        (b"GET /healthz/ready HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"GET /healthz/ready HTTP/1.1\r\nContent-Length : 5\r\n\r\n", None),
        (b"GET /healthz/ready HTTP/1.1\r\nX: a\nContent-Length: 5\r\n\r\n", None),
        (b"GET /healthz/ready HTTP/1.1\r\nX: a\r\n b\r\n\r\n", None),
        (b"GET /healthz/ready HTTP/1.1\r\nX: a\0\r\n\r\n", None),
        (b"GET /healthz/ready HTTP/1.1\r\nno colon\r\n\r\n", None),
        (b"GET  /healthz/ready HTTP/1.1\r\n\r\n", None),
        (b"GET /healthz/ready HTTP/1.2\r\n\r\n", None),
        (b"GET /healthz/ready?verbose HTTP/1.1\r\n\r\n", None),
        (b"GET /healthz/ready/ HTTP/1.1\r\n\r\n", None),
        (b"get /healthz/ready HTTP/1.1\r\n\r\n", None),
        (b"POST /healthz/ready HTTP/1.1\r\n\r\n", None),
        (b"GET http://x/healthz/ready HTTP/1.1\r\n\r\n", None),
    ],
)
def test_only_plain_probes_are_recognised(block: bytes, expected: Probe | None) -> None:
    assert parse_probe(block) == expected


def test_ready_is_an_empty_200_and_unready_says_why() -> None:
    async def main() -> None:
        async with served() as port, connected(port.port) as client:
            answer = await client.ask(READY)
            assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
            assert "date" in answer.headers and "content-type" not in answer.headers
            port.gate.text = "exited with code 1"
            answer = await client.ask(READY)
            assert (answer.status, answer.body) == (503, b"envoy: exited with code 1\n")
            answer = await client.ask(READY.replace(b"GET", b"HEAD"))
            assert (answer.status, answer.headers["content-length"]) == (503, "26")
            assert not port.server.has_backend

    asyncio.run(main())


def test_http_1_0_is_closed_unless_it_asks_to_be_kept() -> None:
    async def main() -> None:
        async with served() as port:
            async with connected(port.port) as client:
                answer = await client.ask(b"GET /healthz/ready HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                assert answer.headers["connection"] == "keep-alive"
                answer = await client.ask(b"GET /healthz/ready HTTP/1.0\r\n\r\n")
                assert answer.headers["connection"] == "close"
                assert await client.is_closed()
            async with connected(port.port) as client:
                client.send(READY.replace(b"Host: x", b"Connection: close") + READY)
                assert (await client.answer()).status == 200
                assert await client.is_closed()

    asyncio.run(main())


def test_a_header_may_come_byte_by_byte() -> None:
    async def main() -> None:
        async with served() as port, connected(port.port) as client:
            for byte in READY:
                client.send(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0)
            assert (await client.answer()).status == 200

    asyncio.run(main())


def test_pipelined_requests_are_answered_in_order() -> None:
    async def main() -> None:
        async with served() as port, connected(port.port) as client:
            # Probes, then a scrape, then probes, in one write: the scrape takes the connection to aiohttp midway.
            client.send(READY * 50 + b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" + READY * 20)
            answers = [await client.answer() for _ in range(71)]
            assert [answer.status for answer in answers] == [200] * 71
            assert [index for index, answer in enumerate(answers) if answer.body] == [50]

    asyncio.run(main())


def test_a_request_split_behind_a_probe_is_put_together() -> None:
    async def main() -> None:
        async with served() as port, connected(port.port) as client:
            client.send(READY + READY[:20])
            assert (await client.answer()).status == 200
            client.send(READY[20:])
            assert (await client.answer()).status == 200
            client.send(READY[:-2])
            await asyncio.sleep(0)
            client.send(READY[-2:])
            assert (await client.answer()).status == 200

    asyncio.run(main())


def test_a_connection_goes_from_ready_to_metrics_to_ready() -> None:
    async def main() -> None:
        async with served() as port, connected(port.port) as client:
            assert (await client.ask(READY)).status == 200
            assert (await client.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).body == b"one 1\ntwo 2\n"
            port.gate.text = "draining"
            answer = await client.ask(READY)
            assert (answer.status, answer.body) == (503, b"envoy: draining\n")
            assert port.server.has_backend
            assert port.server.front.connections == 0

    asyncio.run(main())


def test_a_body_that_is_still_coming_is_handed_over_with_its_head() -> None:
    async def main() -> None:
        async with served() as port, connected(port.port) as client:
            client.send(b"POST /quitquitquit HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
            assert (await client.answer()).status == 200
            client.send(b"67890" + READY)
            assert (await client.answer()).status == 200
            assert port.control.quits == 1

    asyncio.run(main())


def test_probes_are_answered_while_aiohttp_is_loading() -> None:
    async def main() -> None:
        async with served() as port, connected(port.port) as scraper, connected(port.port) as prober:
            scraper.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" + READY)
            await eventually_async(lambda: port.server.is_loading or port.server.has_backend)
            assert (await prober.ask(READY)).status == 200
            assert (await scraper.answer()).body == b"one 1\ntwo 2\n"
            assert (await scraper.answer()).status == 200

    asyncio.run(main())


def test_a_client_that_leaves_while_aiohttp_is_loading_is_forgotten() -> None:
    async def main() -> None:
        async with served() as port:
            async with connected(port.port) as client:
                client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                await eventually_async(lambda: port.server.is_loading or port.server.has_backend)
            await eventually_async(lambda: port.server.has_backend)
            await eventually_async(lambda: port.server.connections == 0)
            assert (await fetch(port.port, "/metrics")).status == 200

    asyncio.run(main())


def test_without_aiohttp_probes_go_on_and_the_rest_gets_503_and_another_try() -> None:
    async def main() -> None:
        scraper = Blocks(load_error=ImportError("no such module"))
        async with served(scraper=scraper) as port:
            assert (await fetch(port.port, "/metrics")).status == 503
            assert (await fetch(port.port, "/healthz/ready")).status == 200
            assert "no such module" in port.log.lines[0]
            scraper.load_error = None
            assert (await fetch(port.port, "/metrics")).status == 200

    asyncio.run(main())


def test_preload_makes_the_backend_ready_once() -> None:
    async def main() -> None:
        async with served() as port:
            port.server.preload()
            port.server.preload()
            await eventually_async(lambda: port.server.has_backend)
            port.server.preload()
            assert not port.server.is_loading

    asyncio.run(main())


def test_closing_while_aiohttp_is_loading_leaves_nothing() -> None:
    async def main() -> None:
        async with served() as port, connected(port.port) as client:
            client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await eventually_async(lambda: port.server.is_loading or port.server.has_backend)

    asyncio.run(main())


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\n\n",
        b"\r\n\r\n\r\nx",
    ],
)
def test_what_is_not_http_is_refused_and_closed(garbage: bytes) -> None:
    async def main() -> None:
        async with served() as port, connected(port.port) as client:
            client.send(garbage)
            client.writer.write_eof()
            data = await client.reader.read()
            assert data == b"" or data.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
            assert port.log.lines == []

    asyncio.run(main())


def test_a_header_without_end_is_refused_at_the_cap() -> None:
    async def main() -> None:
        async with served() as port, connected(port.port) as client:
            client.send(b"GET /healthz/ready HTTP/1.1\r\nX: " + b"a" * 20_000)
            assert (await client.answer()).status == 431
            assert await client.is_closed()

    asyncio.run(main())


def test_a_slow_header_and_an_idle_connection_end_at_their_time() -> None:
    async def main() -> None:
        async with served(limits=Limits(header_seconds=10, idle_seconds=75)) as port:
            front = port.server.front
            async with connected(port.port) as slow, connected(port.port) as idle:
                slow.send(b"GET /healthz/ready HTTP/1.1\r\n")
                await eventually_async(lambda: front.connections == 2)
                await eventually_async(lambda: front.held_bytes > 0)
                port.clock.now += 9
                slow.send(b"X: a\r\n")  # no further time for what comes late
                assert (await idle.ask(READY)).status == 200
                front.sweep()
                assert front.connections == 2
                port.clock.now += 1
                front.sweep()
                assert (await slow.answer()).status == 408
                assert await slow.is_closed()
                port.clock.now += 73
                front.sweep()
                assert (await idle.ask(READY)).status == 200
                port.clock.now += 75
                front.sweep()
                assert await idle.is_closed()

    asyncio.run(main())


def test_beyond_the_cap_the_slowest_peer_makes_room() -> None:
    async def main() -> None:
        limits = Limits(connections=3)
        async with served(limits=limits) as port, connected(port.port) as slow, connected(port.port) as second:
            slow.send(b"GET /healthz")
            await eventually_async(lambda: port.server.front.held_bytes > 0)
            async with connected(port.port) as third:
                assert (await second.ask(READY)).status == (await third.ask(READY)).status == 200
                assert (await fetch(port.port, "/healthz/ready")).status == 200
                assert await slow.is_closed()
                assert (await second.ask(READY)).status == 200

    asyncio.run(main())


def test_connections_handed_over_count_too() -> None:
    async def main() -> None:
        limits = Limits(connections=2)
        async with served(limits=limits) as port, connected(port.port) as first, connected(port.port) as second:
            for client in (first, second):
                assert (await client.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
            async with connected(port.port) as third:
                assert await third.is_closed()
            assert (await first.ask(READY)).status == 200

    asyncio.run(main())


def test_a_peer_that_does_not_read_its_answers_is_not_read_and_then_cut() -> None:
    async def main() -> None:
        async with served() as port, connected(port.port) as client:
            front = port.server.front
            port.gate.text = "x" * 10_000
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(READY * 2000)
            await eventually_async(lambda: front.connections == 1)

            def is_cut_in_time() -> bool:
                port.clock.now += 100
                front.sweep()
                return front.connections == 0

            await eventually_async(is_cut_in_time)

    asyncio.run(main())


def test_closing_ends_open_connections_and_refuses_new_ones() -> None:
    async def main() -> None:
        async with served() as port:
            async with connected(port.port) as client:
                assert (await client.ask(READY)).status == 200
                await port.server.close()
                assert await client.is_closed()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port.port)

    asyncio.run(main())
