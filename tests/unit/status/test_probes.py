import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.status import probes as probes_module
from pilot_agent.status.probe_config import parse_probers
from pilot_agent.status.probe_dial import SOURCES, Place
from pilot_agent.status.probes import AppProbes, ProbeOptions, host_header, passed_on
from tests.support.certificates import self_signed_server
from tests.support.eventually_async import eventually_async
from tests.support.health_server import health_server
from tests.support.http import Answer, connected
from tests.support.ports import free_port
from tests.support.probed import Probed, answering, answering_http2, http, listening
from tests.support.recorded_log import RecordedLog
from tests.unit.status.served import served

LIVEZ = "/app-health/app/livez"
OK = http(200, b"fine")


class Agent(NamedTuple):
    port: int
    log: RecordedLog

    async def ask(self, path: str = LIVEZ, method: str = "GET", headers: str = "Host: pod:15020\r\n") -> Answer:
        async with connected(self.port) as client:
            return await client.ask(f"{method} {path} HTTP/1.1\r\n{headers}\r\n".encode("latin-1"))

    async def result(self, path: str = LIVEZ) -> tuple[int, bytes]:
        answer = await self.ask(path)
        return answer.status, answer.body


@asynccontextmanager
async def agent(probers: dict[str, Any], **options: Any) -> AsyncIterator[Agent]:
    """A status port with probes, and their log. A prober without `timeoutSeconds` gets 20."""
    log = RecordedLog()
    text = json.dumps({key: {"timeoutSeconds": 20, **prober} for key, prober in probers.items()})
    given = {"instance_ip": "127.0.0.1", "status_port": 15020, "legacy_localhost": False, "keepalive": False}
    found = AppProbes(
        parse_probers(text, 15020)[0], ProbeOptions(**{**given, "http2": True, "log": log.scope, **options})
    )
    async with served(probes=found) as port:
        yield Agent(port.port, log)
    await found.close()


def http_prober(port: int, path: str = "/healthy", scheme: str = "HTTP", **more: object) -> dict[str, Any]:
    return {LIVEZ: {"httpGet": {"port": port, "path": path, "scheme": scheme}, **more}}


def https_prober(app: Probed) -> dict[str, Any]:
    return http_prober(app.port, scheme="HTTPS")


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


@pytest.mark.parametrize("status", [200, 201, 204, 299, 400, 401, 404, 499, 500, 503, 599])
def test_the_applications_status_and_body_come_back(status: int) -> None:
    async def main() -> None:
        body = b"" if status == 204 else b"said by the application"
        async with answering(http(status, body)) as app, agent(http_prober(app.port)) as probing:
            assert await probing.result() == (status, body)
            assert app.first_lines == ["GET /healthy HTTP/1.1"]
            assert probing.log.lines == []

    run(main)


@pytest.mark.parametrize("status", [300, 301, 302, 304, 307, 308, 399])
def test_a_redirect_that_is_not_followed_is_success_without_a_body(status: int) -> None:
    async def main() -> None:
        away = http(status, b"" if status == 304 else b"gone", "Location: http://elsewhere.example/x")
        async with answering(away) as app, agent(http_prober(app.port)) as probing:
            assert await probing.result() == (200, b"")
            assert len(app.heads) == 1

    run(main)


def test_a_redirect_without_a_location_is_success() -> None:
    async def main() -> None:
        async with answering(http(302)) as app, agent(http_prober(app.port)) as probing:
            assert await probing.result() == (200, b"")

    run(main)


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("/ready?a=1", "pod:{port}"),
        ("ready?a=1", "pod:{port}"),
        ("http://127.0.0.1:{port}/ready?a=1", "127.0.0.1:{port}"),
    ],
)
def test_a_redirect_on_the_same_host_is_followed(location: str, host: str) -> None:
    def answer(path: str, port: int) -> bytes:
        return OK if path == "/ready?a=1" else http(302, b"", f"Location: {location.format(port=port)}")

    async def main() -> None:
        async with answering(answer) as app, agent(http_prober(app.port)) as probing:
            assert await probing.result() == (200, b"fine")
            assert app.first_lines == ["GET /healthy HTTP/1.1", "GET /ready?a=1 HTTP/1.1"]
            assert app.headers[0] == f"Host: {host.format(port=app.port)}"

    run(main)


def test_a_redirect_is_followed_where_the_pods_address_is_not_known() -> None:
    async def main() -> None:
        def answer(path: str, _: int) -> bytes:
            return OK if path == "/" else http(302, b"", "Location: /")

        async with answering(answer) as app, agent(http_prober(app.port), instance_ip="") as probing:
            assert await probing.result() == (200, b"fine")

    run(main)


def test_a_redirect_leads_from_http_to_https(tmp_path: Path) -> None:
    async def main() -> None:
        async with answering(http(404, b"no"), self_signed_server(tmp_path)) as safe:
            to_tls = http(301, b"", f"Location: https://127.0.0.1:{safe.port}/")
            async with answering(to_tls) as app, agent(http_prober(app.port)) as probing:
                assert await probing.result() == (404, b"no")

    run(main)


def test_the_tenth_redirect_fails_the_probe_and_the_ninth_does_not() -> None:
    async def main() -> None:
        def answer(path: str, _: int) -> bytes:
            left = int(path.removeprefix("/"))
            return http(302, b"", f"Location: /{left - 1}") if left else OK

        async with answering(answer) as app:
            async with agent(http_prober(app.port, "/9")) as probing:
                assert await probing.result() == (200, b"fine")
            async with agent(http_prober(app.port, "/10")) as probing:
                assert await probing.result() == (500, b"")
                assert probing.log.lines == [f"error probe {LIVEZ} failed: 10 redirects, one after the other"]

    run(main)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://[::1/", "a redirect to what is no URL"),
        ("http://127.0.0.1:99999/", "a redirect to what is no URL"),
        ("ftp://127.0.0.1/", "a redirect to what is not HTTP"),
    ],
)
def test_a_redirect_to_nowhere_fails_the_probe(location: str, said: str) -> None:
    async def main() -> None:
        away = http(302, b"", f"Location: {location}")
        async with answering(away) as app, agent(http_prober(app.port)) as probing:
            assert await probing.result() == (500, b"")
            assert probing.log.lines == [f"error probe {LIVEZ} failed: {said}"]

    run(main)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
def test_whatever_the_method_the_application_is_asked_with_get_and_no_body(method: str) -> None:
    async def main() -> None:
        async with answering(OK) as app, agent(http_prober(app.port)) as probing:
            headers = "Host: x\r\nContent-Length: 0\r\n"
            answer = await probing.ask(method=method, headers=headers)
            assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"fine")
            assert app.first_lines == ["GET /healthy HTTP/1.1"]
            assert not any("content-length" in line.lower() for line in app.headers)

    run(main)


def test_the_callers_headers_go_to_the_application_as_they_are() -> None:
    async def main() -> None:
        async with answering(OK) as app, agent(http_prober(app.port)) as probing:
            sent = [
                "User-Agent: kube-probe/1.34",
                "Accept: */*",
                "Authorization: Bearer of-the-pod",
                "X-Twice: one",
                "X-Twice: two",
                "x-Forwarded-For: 10.0.0.1",
                "X-Bytes: \xff",
            ]
            hop = ["Connection: close, X-Mine", "X-Mine: 1", "Keep-Alive: 1", "TE: gzip"]
            await probing.ask(headers="\r\n".join(["Host: pod:15020", *sent, *hop, ""]))
            assert app.headers == [f"Host: pod:{app.port}", *sent, "Connection: close"]

    run(main)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("x:15020", "x:{port}"),
        ("x:81", "x:81"),
        ("x", "x"),
        ("[fd00::1]:15020", "[fd00::1]:{port}"),
        ("15020", "15020"),
    ],
)
def test_the_host_header_names_the_applications_port_for_the_agents(host: str, expected: str) -> None:
    async def main() -> None:
        async with answering(OK) as app, agent(http_prober(app.port)) as probing:
            await probing.ask(headers=f"Host: {host}\r\n")
            assert app.headers[0] == "Host: " + expected.format(port=app.port)

    run(main)


def test_a_caller_without_a_host_is_passed_on_with_the_applications_address() -> None:
    assert host_header([], 15020, Place("fd00::1", 80)) == b"[fd00::1]:80"
    assert host_header([], 15020, Place("", 80)) == b"localhost:80"


@given(st.lists(st.tuples(st.sampled_from([b"Host", b"TE", b"Accept", b"Cookie", b"a", b"B"]), st.binary(max_size=5))))
def test_what_is_passed_on_keeps_its_order_and_nothing_of_the_connection(headers: list[tuple[bytes, bytes]]) -> None:
    expected = [(name, value) for name, value in headers if name not in (b"Host", b"TE")]
    assert passed_on(headers) == expected


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/a?b=c&d=%20", "/a?b=c&d=%20"),
        ("a", "/a"),
        ("/a b", "/a%20b"),
        ("/ä", "/%C3%A4"),
        ("/a\r\nX: y", "/a%0D%0AX:%20y"),
        ("/a#b", "/a"),
    ],
)
def test_the_path_is_asked_for_as_configured(path: str, target: str) -> None:
    async def main() -> None:
        async with answering(OK) as app, agent(http_prober(app.port, path)) as probing:
            assert await probing.result() == (200, b"fine")
            assert app.first_lines == [f"GET {target} HTTP/1.1"]

    run(main)


@pytest.mark.parametrize("host", [{}, {"instance_ip": ""}, {"instance_ip": "192.0.2.1", "legacy_localhost": True}])
def test_a_probe_comes_from_the_address_that_interception_spares(host: dict[str, Any]) -> None:
    async def main() -> None:
        async with answering(OK) as app, agent(http_prober(app.port), **host) as probing:
            assert await probing.result() == (200, b"fine")
            assert app.peers == ["127.0.0.6"]
            assert probing.log.lines == []

    run(main)


def test_a_source_address_that_is_missing_is_told_once_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, socket.AF_INET, "192.0.2.7")

    async def main() -> None:
        async with answering(OK) as app, agent(http_prober(app.port)) as probing:
            for _ in range(3):
                assert await probing.result() == (200, b"fine")
            assert app.peers == ["127.0.0.1"] * 3
            assert len(probing.log.lines) == 1
            assert probing.log.lines[0].startswith("warn probes can't come from 192.0.2.7")

    run(main)


def test_the_first_10_kib_of_an_endless_body_come_back() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 1000)
            await writer.drain()

    async def main() -> None:
        async with listening(say) as app, agent(http_prober(app.port)) as probing:
            assert await probing.result() == (200, b"x" * 10240)
            await eventually_async(lambda: app.open == 0)

    run(main)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "the connection was closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "not HTTP: "),
        (b"\x00\xff" * 100_000, "not HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "not HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "not HTTP: "),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "not HTTP: "),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "not HTTP: "),
    ],
)
def test_garbage_is_a_failed_probe(answer: bytes, said: str) -> None:
    async def main() -> None:
        async with answering(answer) as app, agent(http_prober(app.port)) as probing:
            assert await probing.result() == (500, b"")
            [line] = probing.log.lines
            assert line.startswith(f"error probe {LIVEZ} failed: {said}")

    run(main)


def test_a_long_head_is_read() -> None:
    async def main() -> None:
        async with answering(http(200, b"fine", "X: " + "x" * 40_000)) as app, agent(http_prober(app.port)) as probing:
            assert await probing.result() == (200, b"fine")

    run(main)


def test_informational_answers_are_read_past() -> None:
    async def main() -> None:
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        async with answering(hints * 3 + OK) as app, agent(http_prober(app.port)) as probing:
            assert await probing.result() == (200, b"fine")

    run(main)


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"<script>x</script>", "text/plain; charset=utf-8"), (b"\xff\xfe", "application/octet-stream")],
)
def test_no_header_of_the_application_comes_back(body: bytes, kind: str) -> None:
    async def main() -> None:
        answer = http(200, body, "Content-Type: text/html", "Set-Cookie: a=b", "X-App: 1")
        async with answering(answer) as app, agent(http_prober(app.port)) as probing:
            found = await probing.ask()
            assert found.body == body
            assert found.headers["content-type"] == kind
            assert found.headers["x-content-type-options"] == "nosniff"
            assert not {"set-cookie", "x-app"} & found.headers.keys()

    run(main)


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


@pytest.mark.parametrize(
    "prober",
    [
        {"httpGet": {"path": "/"}},
        {"httpGet": {"path": "/", "scheme": "HTTPS"}},
        {"grpc": {}},
    ],
    ids=["http", "https", "grpc"],
)
def test_an_application_that_hangs_fails_at_the_deadline(prober: dict[str, Any]) -> None:
    async def main() -> None:
        async with listening(hang) as app:
            [(kind, action)] = prober.items()
            async with agent({LIVEZ: {kind: {**action, "port": app.port}, "timeoutSeconds": 1}}) as probing:
                assert await probing.result() == (500, b"")
                assert probing.log.lines == [f"error probe {LIVEZ} failed: no answer within 1 s"]
                await eventually_async(lambda: app.open == 0)

    run(main)


def test_a_body_that_stalls_fails_at_the_deadline() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await reader.read()

    async def main() -> None:
        async with listening(say) as app, agent(http_prober(app.port, timeoutSeconds=1)) as probing:
            assert await probing.result() == (500, b"")
            await eventually_async(lambda: app.open == 0)

    run(main)


def test_a_caller_that_hangs_up_ends_the_probe() -> None:
    async def main() -> None:
        async with listening(hang) as app, agent(http_prober(app.port)) as probing:
            async with connected(probing.port) as client:
                client.send(f"GET {LIVEZ} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                await eventually_async(lambda: app.open == 1)
            await eventually_async(lambda: app.open == 0)

    run(main)


def test_more_probes_than_may_run_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes_module, "PROBES_AT_ONCE", 3)

    async def main() -> None:
        async with listening(hang) as app, agent(http_prober(app.port)) as probing:
            waiting = [asyncio.create_task(probing.ask()) for _ in range(3)]
            await eventually_async(lambda: app.open == 3)
            assert await probing.result() == (503, b"3 probes are running already\n")
            assert (await probing.result("/app-health/other/livez"))[0] == 400
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await eventually_async(lambda: app.open == 0)
            again = asyncio.create_task(probing.ask())
            await eventually_async(lambda: app.open == 1)
            again.cancel()
            await asyncio.gather(again, return_exceptions=True)

    run(main)


@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket", "grpc"])
def test_a_refused_connection_is_a_failed_probe(kind: str) -> None:
    async def main() -> None:
        async with agent({LIVEZ: {kind: {"port": free_port()}}}) as probing:
            assert await probing.result() == (500, b"")
            assert probing.log.lines == [f"error probe {LIVEZ} failed: Connection refused"]

    run(main)


def test_a_change_is_logged_once_per_path() -> None:
    async def main() -> None:
        port = free_port()
        readyz = {"/app-health/app/readyz": {"tcpSocket": {"port": port}}}
        async with agent({**http_prober(port), **readyz}) as probing:
            for _ in range(3):
                await probing.result()
            await probing.result("/app-health/app/readyz")
            async with listening_at(port):
                for _ in range(3):
                    assert await probing.result() == (200, b"fine")
            await probing.result()
            refused = "failed: Connection refused"
            assert probing.log.lines == [
                f"error probe {LIVEZ} {refused}",
                f"error probe /app-health/app/readyz {refused}",
                f"info probe {LIVEZ}: the application answers again",
                f"error probe {LIVEZ} {refused}",
            ]

    run(main)


@asynccontextmanager
async def listening_at(port: int) -> AsyncIterator[Probed]:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with listening(say, port=port) as app:
        yield app


@pytest.mark.parametrize(
    "path",
    [
        "/app-health/other/livez",
        "/app-health/app/livez/",
        "/app-health/app/LIVEZ",
        "/app-health/",
        "/app-lifecycle/app/prestopz",
        "/app-health/app%2Flivez/x",
    ],
)
def test_an_unknown_path_is_refused_by_name(path: str) -> None:
    async def main() -> None:
        async with answering(OK) as app, agent(http_prober(app.port)) as probing:
            status, body = await probing.result(path)
            assert status == 400
            named = path.replace("%2F", "/")
            assert body.decode() == f"no probe of the application is configured for '{named}'\n"
            assert app.heads == []

    run(main)


@pytest.mark.parametrize("path", [LIVEZ + "?x=1", "/app-health/%61pp/livez", "/app-health/app%2Flivez"])
def test_a_path_is_compared_decoded_and_without_its_query(path: str) -> None:
    async def main() -> None:
        async with answering(OK) as app, agent(http_prober(app.port)) as probing:
            assert await probing.result(path) == (200, b"fine")
            assert app.first_lines == ["GET /healthy HTTP/1.1"]

    run(main)


def test_a_lifecycle_hook_is_asked_like_a_probe() -> None:
    async def main() -> None:
        key = "/app-lifecycle/app/prestopz"
        async with answering(OK) as app, agent({key: {"httpGet": {"port": app.port, "path": "/stop"}}}) as probing:
            assert await probing.result(key) == (200, b"fine")
            assert app.first_lines == ["GET /stop HTTP/1.1"]

    run(main)


def test_over_tls_any_certificate_will_do(tmp_path: Path) -> None:
    async def main() -> None:
        tls = self_signed_server(tmp_path, "http/1.1")
        async with answering(OK, tls) as app, agent(http_prober(app.port, scheme="HTTPS")) as probing:
            assert await probing.result() == (200, b"fine")
            assert app.peers == ["127.0.0.6"]
            assert app.names == [None], "an address is no server name"

    run(main)


def test_over_tls_the_server_name_is_the_host(tmp_path: Path) -> None:
    async def main() -> None:
        tls, options = self_signed_server(tmp_path), {"legacy_localhost": True}
        async with answering(OK, tls) as app, agent(http_prober(app.port, scheme="HTTPS"), **options) as probing:
            assert await probing.result() == (200, b"fine")
            assert app.names == ["localhost"]

    run(main)


@pytest.mark.parametrize("status", [200, 404, 503])
def test_an_application_that_speaks_http2_only_is_probed_over_tls(tmp_path: Path, status: int) -> None:
    async def main() -> None:
        tls = self_signed_server(tmp_path, "h2")
        async with answering_http2(b"%d" % status, b"two", tls) as app, agent(https_prober(app)) as probing:
            answer = await probing.ask(headers="Host: pod:15020\r\nX-One: 1\r\nConnection: keep-alive\r\n")
            assert (answer.status, answer.body) == (status, b"two")
            expected = [":method: GET", ":scheme: https", f":authority: pod:{app.port}", ":path: /healthy"]
            assert app.headers == [*expected, "x-one: 1"]

    run(main)


def test_http2_brings_10_kib_and_redirects_as_http1_does(tmp_path: Path) -> None:
    async def main() -> None:
        tls = self_signed_server(tmp_path, "h2")
        async with answering_http2(b"200", b"x" * 16000, tls) as app, agent(https_prober(app)) as probing:
            assert await probing.result() == (200, b"x" * 10240)
            await eventually_async(lambda: app.open == 0)
        location = (b"location", b"https://elsewhere.example/")
        async with answering_http2(b"302", b"gone", tls, location) as app, agent(https_prober(app)) as probing:
            assert await probing.result() == (200, b"")

    run(main)


def test_a_status_that_is_none_over_http2_is_a_failed_probe(tmp_path: Path) -> None:
    async def main() -> None:
        tls = self_signed_server(tmp_path, "h2")
        async with answering_http2(b"abc", b"two", tls) as app, agent(https_prober(app)) as probing:
            assert await probing.result() == (500, b"")
            assert len(probing.log.lines) == 1

    run(main)


def test_http2_is_not_offered_when_it_is_switched_off(tmp_path: Path) -> None:
    async def main() -> None:
        tls = self_signed_server(tmp_path, "h2", "http/1.1")
        async with answering(OK, tls) as app, agent(https_prober(app), http2=False) as probing:
            assert await probing.result() == (200, b"fine")
            assert app.first_lines == ["GET /healthy HTTP/1.1"]

    run(main)


def test_a_server_without_tls_fails_a_probe_over_tls() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(http(400))

    async def main() -> None:
        async with listening(say) as app, agent(https_prober(app)) as probing:
            assert await probing.result() == (500, b"")
            assert probing.log.lines == [f"error probe {LIVEZ} failed: TLS failed: WRONG_VERSION_NUMBER"]

    run(main)


def test_a_server_that_knows_no_protocol_of_ours_fails_the_probe(tmp_path: Path) -> None:
    async def main() -> None:
        tls = self_signed_server(tmp_path)
        tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_2
        tls.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # its key is of another kind
        async with answering(OK, tls) as app, agent(http_prober(app.port, scheme="HTTPS")) as probing:
            assert await probing.result() == (500, b"")
            assert probing.log.lines == [f"error probe {LIVEZ} failed: the connection was closed"]

    run(main)


def test_tcp_is_a_connection_and_nothing_else() -> None:
    received = []

    async def say(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read())

    async def main() -> None:
        async with listening(say) as app, agent({LIVEZ: {"tcpSocket": {"port": app.port}}}) as probing:
            assert await probing.result() == (200, b"")
            await eventually_async(lambda: received == [b""])
            assert app.peers == ["127.0.0.6"]

    run(main)


def test_grpc_health_with_a_real_server() -> None:
    cases = {
        "": (200, None),
        "serving": (200, None),
        "not-serving": (500, "NOT_SERVING"),
        "unknown": (500, "UNKNOWN"),
        "other": (500, "gRPC status NOT_FOUND"),
        "broken": (500, "not an answer of the gRPC health protocol"),
    }

    async def main(port: int) -> None:
        for service, (status, said) in cases.items():
            async with agent({LIVEZ: {"grpc": {"port": port, "service": service}}}) as probing:
                for _ in range(2):
                    assert await probing.result() == (status, b""), service
                expected = [] if said is None else [f"error probe {LIVEZ} failed: {said}"]
                assert probing.log.lines == expected

    with health_server() as server:
        asyncio.run(main(server.port))


def test_grpc_callers_user_agent_comes_first_and_the_source_is_spared_by_interception() -> None:
    async def main(port: int) -> None:
        async with agent({LIVEZ: {"grpc": {"port": port, "service": None}}}) as probing:
            answer = await probing.ask(headers="Host: x\r\nUser-Agent: kube-probe/1.34\r\n")
            assert answer.status == 200

    with health_server() as server:
        asyncio.run(main(server.port))
        caller = server.caller()
    assert caller.startswith("ipv4:127.0.0.6:")
    assert " kube-probe/1.34 pilot-agent/" in caller


def test_grpc_one_deadline_covers_the_call() -> None:
    async def main(port: int) -> None:
        prober = {"grpc": {"port": port, "service": "slow"}, "timeoutSeconds": 1}
        async with agent({LIVEZ: prober}) as probing:
            assert await probing.result() == (500, b"")
            assert probing.log.lines == [f"error probe {LIVEZ} failed: no answer within 1 s"]

    with health_server() as server:
        asyncio.run(main(server.port))


def test_grpc_without_the_health_service_is_unimplemented() -> None:
    async def main(port: int) -> None:
        async with agent({LIVEZ: {"grpc": {"port": port}}}) as probing:
            assert await probing.result() == (500, b"")
            assert probing.log.lines == [f"error probe {LIVEZ} failed: gRPC status UNIMPLEMENTED"]

    with health_server(service="/other.Service/Call") as server:
        asyncio.run(main(server.port))


@pytest.mark.parametrize("answer", [OK, b"\0" * 5000, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 70000])
def test_grpc_asked_of_something_else_fails(answer: bytes) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer)

    async def main() -> None:
        async with listening(say) as app, agent({LIVEZ: {"grpc": {"port": app.port}}}) as probing:
            assert await probing.result() == (500, b"")
            assert len(probing.log.lines) == 1
            await eventually_async(lambda: app.open == 0)

    run(main)


def test_grpc_asked_of_an_http2_server_without_grpc_fails() -> None:
    async def main() -> None:
        async with answering_http2(b"200", b"hello", None) as app, agent({LIVEZ: {"grpc": {"port": app.port}}}) as it:
            assert await it.result() == (500, b"")
            assert it.log.lines == [f"error probe {LIVEZ} failed: not a gRPC answer (HTTP status 200)"]

    run(main)


@pytest.mark.parametrize("keepalive", [False, True])
def test_connections_are_kept_only_when_that_is_asked_for(tmp_path: Path, keepalive: bool) -> None:
    async def main() -> None:
        for tls, scheme in ((None, "HTTP"), (self_signed_server(tmp_path), "HTTPS")):
            async with answering(OK, tls, keeps=True) as app:
                async with agent(http_prober(app.port, scheme=scheme), keepalive=keepalive) as probing:
                    for _ in range(3):
                        assert await probing.result() == (200, b"fine")
                    assert len(app.peers) == (1 if keepalive else 3)
                    assert ("Connection: close" in app.headers) is not keepalive
                await eventually_async(lambda: app.open == 0)

    run(main)


def test_a_kept_connection_that_the_application_closed_is_replaced() -> None:
    async def main() -> None:
        async with answering(OK) as app, agent(http_prober(app.port), keepalive=True) as probing:
            for _ in range(5):
                assert await probing.result() == (200, b"fine")
            assert len(app.peers) == 5
            assert probing.log.lines == []

    run(main)


def test_no_descriptor_is_left_after_2000_probes() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/garbage" in head:
            writer.write(b"garbage\r\n\r\n")
        elif b"/closed" not in head:
            writer.write(OK)

    async def main() -> None:
        kinds = {
            "/app-health/ok/livez": ("httpGet", "/ok"),
            "/app-health/garbage/livez": ("httpGet", "/garbage"),
            "/app-health/closed/livez": ("httpGet", "/closed"),
            "/app-health/tcp/livez": ("tcpSocket", ""),
            "/app-health/grpc/livez": ("grpc", ""),
        }
        async with listening(say) as app:
            probers = {key: {kind: {"port": app.port, "path": path}} for key, (kind, path) in kinds.items()}
            async with agent(probers) as probing, connected(probing.port) as client:
                statuses = set()
                before = 0
                for turn in range(400):
                    for key in kinds:
                        answer = await client.ask(f"GET {key} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                        statuses.add((key.split("/")[2], answer.status))
                    if turn == 10:
                        await eventually_async(lambda: app.open == 0)
                        before = len(os.listdir("/proc/self/fd"))
                await eventually_async(lambda: app.open == 0)
                await eventually_async(lambda: len(os.listdir("/proc/self/fd")) <= before)
                assert statuses == {("ok", 200), ("garbage", 500), ("closed", 500), ("tcp", 200), ("grpc", 500)}

    run(main)
