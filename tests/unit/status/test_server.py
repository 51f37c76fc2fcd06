import asyncio
import contextlib
import json
import socket

import pytest
from aiohttp import web

from pilot_agent.errors import AdminError
from pilot_agent.status import server
from pilot_agent.status.page import page
from pilot_agent.status.server import clean_path, is_loopback, is_of_another_site, split_target
from tests.support.eventually_async import eventually_async
from tests.support.http import connected, fetch
from tests.unit.status.served import Asked, Blocks, served

LOCAL_ONLY = (403, b"Only requests from localhost are allowed\n")
NOT_FOUND = (404, b"404 page not found\n")
WRONG_METHOD = (405, b"Method Not Allowed\n")
SCRAPED = (200, b"one 1\ntwo 2\n")


def own_address() -> str | None:
    """An address of this machine that is not loopback; no packet is sent to find it."""
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            address = str(probe.getsockname()[0])
            if not is_loopback(address):
                return address
    return None


@pytest.mark.parametrize(
    ("method", "path", "from_loopback", "from_elsewhere"),
    [
        ("GET", "/healthz/ready", (200, b""), (200, b"")),
        ("POST", "/healthz/ready", (200, b""), (200, b"")),
        ("GET", "/healthz/ready?x=1", (200, b""), (200, b"")),
        ("GET", "/healthz/ready?verbose", (200, b"[+]envoy ok (since 0.0s)\n"), (200, b"[+]envoy ok (since 0.0s)\n")),
        ("GET", "/metrics", SCRAPED, SCRAPED),
        ("GET", "/stats/prometheus", SCRAPED, SCRAPED),
        ("POST", "/metrics", SCRAPED, SCRAPED),
        ("HEAD", "/metrics", (200, b""), (200, b"")),
        ("POST", "/drain", (200, b"OK: draining"), LOCAL_ONLY),
        ("GET", "/drain", WRONG_METHOD, LOCAL_ONLY),
        ("POST", "/quitquitquit", (200, b"OK: stopping"), LOCAL_ONLY),
        ("PUT", "/quitquitquit", WRONG_METHOD, LOCAL_ONLY),
        ("POST", "/", WRONG_METHOD, LOCAL_ONLY),
        ("GET", "/app-health/app/readyz", NOT_FOUND, NOT_FOUND),
        ("GET", "/nothing", NOT_FOUND, NOT_FOUND),
        ("GET", "/healthz/ready/", NOT_FOUND, NOT_FOUND),
        ("GET", "/metrics/", NOT_FOUND, NOT_FOUND),
        ("POST", "/DRAIN", NOT_FOUND, NOT_FOUND),
        ("POST", "/%64rain", NOT_FOUND, NOT_FOUND),
        ("POST", "/drain%2f", NOT_FOUND, NOT_FOUND),
        ("OPTIONS", "*", NOT_FOUND, NOT_FOUND),
    ],
)
def test_endpoints(method: str, path: str, from_loopback: tuple[int, bytes], from_elsewhere: tuple[int, bytes]) -> None:
    async def main() -> None:
        async with served() as port:
            answer = await fetch(port.port, path, method)
            assert (answer.status, answer.body) == from_loopback
            if (address := own_address()) is not None:
                answer = await fetch(port.port, path, method, host=address)
                assert (answer.status, answer.body) == from_elsewhere
            if from_loopback[0] >= 400:
                assert answer.headers["x-content-type-options"] == "nosniff"

    asyncio.run(main())


class EchoProbes:
    """Answers with the path it was given."""

    def load(self) -> None:
        pass

    async def answer(self, path: str, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=202, text=f"{request.method} {path}")


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("/app-health/app/readyz", (202, b"GET /app-health/app/readyz")),
        ("/app-health/a%2fb/readyz?x=1", (202, b"GET /app-health/a%2fb/readyz")),
        ("/app-lifecycle/app/prestopz", (202, b"GET /app-lifecycle/app/prestopz")),
        ("/app-health/", (202, b"GET /app-health/")),
        ("/app-healthy", NOT_FOUND),
        ("/app-health/../drain", (307, b"")),
        ("/app-health", (307, b"")),
    ],
)
def test_paths_of_the_application_go_to_its_probes_as_they_came(target: str, answer: tuple[int, bytes]) -> None:
    async def main() -> None:
        async with served(probes=EchoProbes()) as port:
            hosts = ["127.0.0.1", *filter(None, [own_address()])]
            for host in hosts:
                given = await fetch(port.port, target, host=host)
                assert (given.status, given.body) == answer
                if target == "/app-health":
                    assert given.headers["location"] == "/app-health/"

    asyncio.run(main())


def test_the_page_is_for_loopback_and_never_stored() -> None:
    async def main() -> None:
        async with served() as port:
            answer = await fetch(port.port, "/")
            assert (answer.status, answer.body) == (200, page())
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers["cache-control"] == "no-store"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            if (address := own_address()) is not None:
                answer = await fetch(port.port, "/", host=address)
                assert (answer.status, answer.body) == LOCAL_ONLY

    asyncio.run(main())


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json", True),
        ("text/html, application/json;q=0.9", True),
        ("text/plain\r\nAccept: APPLICATION/JSON", True),
        ("application/json; q=0", False),
        ("application/json;q=0.001", True),
        ("application/json;q=0.00", False),
        ("application/jsonl", False),
        ("*/*", False),
    ],
)
@pytest.mark.parametrize("query", ["", "?verbose"])
def test_readiness_is_json_for_whoever_accepts_it(accept: str, is_json: bool, query: str) -> None:
    async def main() -> None:
        async with served(notes=["a.yaml is refused"]) as port:
            port.readiness.reason()
            port.clock.now += 2.5
            answer = await fetch(port.port, f"/healthz/ready{query}", headers=f"Accept: {accept}\r\n")
            assert answer.status == 200
            if not is_json:
                assert "json" not in answer.headers.get("content-type", "")
                return
            assert answer.headers["content-type"] == "application/json; charset=utf-8"
            gate = {"name": "envoy", "state": "open", "reason": None, "since_seconds": 2.5}
            gate |= {"since": "1970-01-01T00:16:40.000Z"}
            assert json.loads(answer.body) == {"ready": True, "gates": [gate], "notes": ["a.yaml is refused"]}
            port.gate.text = "gone"
            answer = await fetch(port.port, f"/healthz/ready{query}", headers=f"Accept: {accept}\r\n")
            assert answer.status == 503
            gate |= {"state": "closed", "reason": "gone", "since_seconds": 0.0, "since": "1970-01-01T00:16:42.500Z"}
            assert json.loads(answer.body) == {"ready": False, "gates": [gate], "notes": ["a.yaml is refused"]}

    asyncio.run(main())


def test_metrics_may_be_for_loopback_only() -> None:
    async def main() -> None:
        async with served(are_metrics_local_only=True) as port:
            assert (await fetch(port.port, "/metrics")).status == 200
            assert (await fetch(port.port, "/metrics", host="::1")).status == 200
            if (address := own_address()) is not None:
                answer = await fetch(port.port, "/metrics", host=address)
                assert (answer.status, answer.body) == LOCAL_ONLY
                assert port.scraper.started == 2

    asyncio.run(main())


def test_a_forged_header_makes_nobody_local() -> None:
    async def main() -> None:
        async with served() as port:
            for host in filter(None, [own_address()]):
                answer = await fetch(port.port, "/drain", "POST", host, "X-Forwarded-For: 127.0.0.1\r\n")
                assert answer.status == 403
            assert port.control.drains == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.6", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:7f00:6", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("fd00::1", False),
        ("::1%lo", False),
        ("fe80::1%eth0", False),
        ("::", False),
        ("0.0.0.0", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/healthz/ready/../../quitquitquit", "/quitquitquit"),
        ("/healthz/ready/../..//quitquitquit", "/quitquitquit"),
        ("//quitquitquit", "/quitquitquit"),
        ("/./quitquitquit", "/quitquitquit"),
        ("/quitquitquit/.", "/quitquitquit/"),
        ("/../../../quitquitquit", "/quitquitquit"),
        ("/healthz/ready/..;/../../quitquitquit", "/healthz/quitquitquit"),
        ("//evil.example/..", "/"),
        ("///evil.example//x?a=//b", "/evil.example/x?a=//b"),
        ("/x/../drain?graceful", "/drain?graceful"),
        ("http://x/healthz/ready/../../quitquitquit", "/quitquitquit"),
        ("http://x//drain", "/drain"),
    ],
)
def test_an_unclean_path_is_sent_back_and_never_served(path: str, location: str) -> None:
    async def main() -> None:
        async with served() as port:
            answer = await fetch(port.port, path, "POST")
            assert (answer.status, answer.headers["location"]) == (307, location)
            assert (port.control.quits, port.control.drains) == (0, 0)

    asyncio.run(main())


@pytest.mark.parametrize(
    "path",
    [
        "/healthz/ready/%2e%2e/%2e%2e/quitquitquit",
        "/healthz/ready/..%2f..%2fquitquitquit",
        "/healthz/ready/..\\..\\quitquitquit",
        "/quitquitquit;x",
        "/quitquitquit%00",
        "/quitquitquit#x",
        "/./\u00e4",
        "/\udcff/quitquitquit",
        "quitquitquit",
    ],
)
def test_an_encoded_path_is_not_decoded(path: str) -> None:
    async def main() -> None:
        async with served() as port:
            answer = await fetch(port.port, path, "POST")
            assert answer.status in (400, 404)
            assert (port.control.quits, port.control.drains) == (0, 0)

    asyncio.run(main())


def test_an_absolute_target_is_served_by_its_path() -> None:
    async def main() -> None:
        async with served() as port:
            assert (await fetch(port.port, "http://127.0.0.1:15020/metrics?a=b")).status == 200
            assert port.scraper.queries == ["a=b"]

    asyncio.run(main())


def test_targets_and_paths() -> None:
    assert split_target("/a?b?c") == ("/a", "?", "b?c")
    assert split_target("http://host") == ("/", "", "")
    assert clean_path("*") == "*"
    assert clean_path("/a/b/") == "/a/b/"


def test_verbose_lists_gates_and_notes() -> None:
    async def main() -> None:
        async with served(notes=["note: a.yaml line 3: no such field"]) as port:
            port.gate.text = "starting"
            answer = await fetch(port.port, "/healthz/ready?verbose=1")
            assert answer.status == 503
            assert answer.body == b"[-]envoy: starting (since 0.0s)\nnote: a.yaml line 3: no such field\n"

    asyncio.run(main())


def test_metrics_stream_as_they_come_with_the_raw_query() -> None:
    async def main() -> None:
        scraper = Blocks(may_end=asyncio.Event())
        async with served(scraper=scraper) as port, connected(port.port) as client:
            client.send(b"GET /stats/prometheus?filter=a%20b&usedonly HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
            assert await client.reader.readuntil(b"one 1\n") and await client.reader.readuntil(b"two 2\n")
            assert scraper.may_end is not None
            scraper.may_end.set()
            assert (await client.reader.readuntil(b"0\r\n\r\n")) == b"\r\n0\r\n\r\n"
            assert scraper.queries == ["filter=a%20b&usedonly"]

    asyncio.run(main())


def test_a_scraper_that_hangs_up_ends_the_work() -> None:
    async def main() -> None:
        scraper = Blocks(may_end=asyncio.Event())
        async with served(scraper=scraper) as port:
            async with connected(port.port) as client:
                client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                await client.reader.readuntil(b"two 2\n")
            await eventually_async(lambda: scraper.finished == 1)
            assert port.log.lines == []

    asyncio.run(main())


def test_closing_ends_a_running_scrape() -> None:
    async def main() -> None:
        scraper = Blocks(may_end=asyncio.Event())
        async with served(scraper=scraper) as port, connected(port.port) as client:
            client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.reader.readuntil(b"two 2\n")
            await port.server.close()
            assert scraper.finished == 1

    asyncio.run(main())


def test_scrapes_at_once_have_a_limit() -> None:
    async def main() -> None:
        scraper = Blocks(may_end=asyncio.Event(), in_flight_limit=1)
        async with served(scraper=scraper) as port, connected(port.port) as client:
            client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.reader.readuntil(b"two 2\n")
            refused = await fetch(port.port, "/metrics")
            assert (refused.status, refused.body) == (429, b"1 scrapes are running already\n")
            assert scraper.refused == 1
            assert scraper.may_end is not None
            scraper.may_end.set()
            await client.reader.readuntil(b"0\r\n\r\n")
            assert (await fetch(port.port, "/metrics")).status == 200

    asyncio.run(main())


def test_a_scraper_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_WRITE_PATIENCE_SECONDS", 0.01)

    async def main() -> None:
        scraper = Blocks(blocks=[b"a" * 65536] * 1000)
        async with served(scraper=scraper) as port, connected(port.port) as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await eventually_async(lambda: scraper.finished == 1)
            await eventually_async(lambda: port.server.connections == 0)

    asyncio.run(main())


def test_an_error_midway_breaks_the_answer_off_and_is_logged() -> None:
    async def main() -> None:
        async with served(scraper=Blocks(error=RuntimeError("oh"))) as port:
            with pytest.raises(asyncio.IncompleteReadError):
                await fetch(port.port, "/metrics")
            assert port.log.lines == ["error status port: GET /metrics failed: RuntimeError('oh')"]
            assert (await fetch(port.port, "/healthz/ready?verbose")).status == 200

    asyncio.run(main())


def test_an_error_before_the_answer_is_a_500() -> None:
    async def main() -> None:
        async with served(scraper=Blocks(blocks=[], error=RuntimeError("oh"))) as port:
            assert (await fetch(port.port, "/metrics")).status == 500

    asyncio.run(main())


def test_a_drain_is_shared_and_outlives_its_caller() -> None:
    async def main() -> None:
        control = Asked(may_answer=asyncio.Event())
        async with served(control=control) as port:
            async with connected(port.port) as client:
                client.send(b"POST /drain HTTP/1.1\r\nHost: x\r\n\r\n")
                await eventually_async(lambda: control.drains == 1)
            second = asyncio.create_task(fetch(port.port, "/drain", "POST"))
            await eventually_async(lambda: port.server.connections == 1)
            assert control.may_answer is not None
            control.may_answer.set()
            assert (await second).body == b"OK: draining"
            assert control.drains <= 2

    asyncio.run(main())


def test_a_drain_that_fails_says_so() -> None:
    async def main() -> None:
        async with served(control=Asked(error=AdminError("Envoy did not answer in 5 s"))) as port:
            answer = await fetch(port.port, "/drain", "POST")
            assert (answer.status, answer.body) == (500, b"drain failed: Envoy did not answer in 5 s\n")

    asyncio.run(main())


def test_quitting_twice_is_answered_twice() -> None:
    async def main() -> None:
        async with served() as port:
            for _ in range(2):
                assert (await fetch(port.port, "/quitquitquit", "POST")).body == b"OK: stopping"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "headers", "is_other"),
    [
        ("/", {"Host": "localhost:15020"}, False),
        ("/debug/status", {"Host": "127.0.0.1:15020"}, False),
        ("/debug/status", {"Host": "[::1]:15020"}, False),
        ("/debug/status", {}, False),
        ("/", {"Host": "evil.example:15020"}, True),
        ("/debug/status", {"Host": "localhost.evil.example"}, True),
        ("/debug/status", {"Host": "[::1"}, True),
        ("/debug/status", {"Host": "localhost", "Origin": "http://evil.example"}, True),
        ("/drain", {"Host": "localhost", "Origin": "http://evil.example"}, True),
        ("/quitquitquit", {"Host": "localhost", "Origin": "null"}, True),
        ("/quitquitquit", {"Host": "localhost", "Origin": "http://localhost:15020"}, False),
        ("/quitquitquit", {"Host": "whatever"}, False),
        ("/metrics", {"Host": "10.1.2.3:15092"}, False),
    ],
)
def test_a_page_of_another_site_is_told_by_its_headers(path: str, headers: dict[str, str], is_other: bool) -> None:
    assert is_of_another_site(path, headers) is is_other
