"""Envoy's admin interface: how its answers are read, and that no answer whatsoever is more than an AdminError."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.envoy.admin import (
    STARTUP_STATS,
    Admin,
    ServerInfo,
    config_reason,
    parse_answer,
    parse_stats,
    workers_reason,
)
from pilot_agent.errors import AdminError
from tests.support.ports import free_port

# Answers


def answered(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"", body])


def chunked(chunks: list[bytes], extension: bytes = b"") -> bytes:
    body = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks if chunk)
    return answered(body + b"0\r\n\r\n", b"transfer-encoding: chunked")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (answered(b"LIVE\n", b"content-length: 5"), (200, b"LIVE\n")),
        (answered(b"LIVE\n"), (200, b"LIVE\n")),
        (answered(b"", b"Content-Length: 0"), (200, b"")),
        (answered(b"no", b"CONTENT-LENGTH:2", status=b"503 Service Unavailable"), (503, b"no")),
        (answered(b"", status=b"404"), (404, b"")),
        (chunked([b"one", b"two"]), (200, b"onetwo")),
        (chunked([]), (200, b"")),
        (chunked([b"x" * 300], b";name=value"), (200, b"x" * 300)),
        (chunked([b"a"]).replace(b"transfer-encoding: chunked", b"Transfer-Encoding:  Chunked"), (200, b"a")),
        (chunked([b"a\r\n0\r\n\r\nb"]), (200, b"a\r\n0\r\n\r\nb")),
        (b"HTTP/1.0 200 OK\r\n\r\nbody", (200, b"body")),
    ],
)
def test_answers_are_read(data: bytes, expected: tuple[int, bytes]) -> None:
    assert parse_answer(data) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\n", "is not an HTTP answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "is not an HTTP answer"),
        (b"HTTP/2 200\r\n\r\n", "is not an HTTP answer"),
        (b"HTTP/1.1\r\n\r\n", "invalid literal"),
        (b"HTTP/1.1 OK\r\n\r\n", "invalid literal"),
        (answered(b"abc", b"content-length: 4"), "the body is cut short"),
        (answered(b"abc", b"content-length: many"), "invalid literal"),
        (answered(b"5\r\nabc\r\n0\r\n\r\n", b"transfer-encoding: chunked"), "cut short|subsection not found|invalid"),
        (answered(b"zz\r\nabc\r\n", b"transfer-encoding: chunked"), "invalid literal"),
        (answered(b"", b"transfer-encoding: chunked"), "subsection not found"),
    ],
)
def test_what_is_no_answer_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_answer(data)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_a_body_comes_out_whole_however_it_was_chunked(chunks: list[bytes]) -> None:
    assert parse_answer(chunked(chunks)) == (200, b"".join(chunks))


@given(body=st.binary(min_size=1, max_size=60), data=st.data())
def test_an_answer_that_was_cut_anywhere_is_noticed(body: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(min_value=0, max_value=len(body)))
    whole = data.draw(
        st.sampled_from(
            [
                chunked([body[:cut], body[cut:]])[:-2],  # without the empty trailer, which says nothing
                answered(body, b"content-length: %d" % len(body)),
            ]
        )
    )
    with pytest.raises(ValueError, match=r"is not an HTTP answer|cut short|not found|invalid literal"):
        parse_answer(whole[: data.draw(st.integers(min_value=0, max_value=len(whole) - 1))])


@given(
    head=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n\r\n", answered(b"", b"transfer-encoding: chunked")]),
    rest=st.binary(max_size=40).map(lambda raw: raw.replace(b"-", b"")),
)
def test_garbage_is_an_answer_or_a_value_error(head: bytes, rest: bytes) -> None:
    try:
        status, body = parse_answer(head + rest)
    except ValueError:
        return
    assert status == 200
    assert len(body) <= len(rest)


# Statistics


def test_integer_statistics_are_read_and_others_left_out() -> None:
    text = (
        "server.state: 0\nlistener.[__]_15021.downstream_cx_active: 3\nwith: colon: 5\n"
        "cluster.a.upstream_cx_length_ms: P0(nan,1.0) P25(nan,2)\nserver.version: text\n"
        "negative: -1\n\nbare\n: 4\nb: ²\n"
    )
    assert parse_stats(text) == {
        "server.state": 0,
        "listener.[__]_15021.downstream_cx_active": 3,
        "with: colon": 5,
    }


def received(cds: int = 0, lds: int = 0, cds_rejected: int = 0, lds_rejected: int = 0, **more: int) -> dict[str, int]:
    values = (cds, cds_rejected, lds, lds_rejected)
    stats = {name: value for name, value in zip(STARTUP_STATS, values, strict=False) if value}
    return stats | {name.replace("__", "."): value for name, value in more.items()}


LIVE = {"server__state": 0, "listener_manager__workers_started": 1}


@pytest.mark.parametrize(
    ("stats", "reason"),
    [
        ({}, "no configuration received yet: clusters: 0 successful, 0 rejected; listeners: 0 successful, 0 rejected"),
        (
            received(cds_rejected=1, lds=1),
            "configuration received but rejected by Envoy: "
            "clusters: 0 successful, 1 rejected; listeners: 1 successful, 0 rejected",
        ),
        (
            received(lds_rejected=2),
            "configuration received but rejected by Envoy: "
            "clusters: 0 successful, 0 rejected; listeners: 0 successful, 2 rejected",
        ),
        (
            received(lds=1),
            "configuration not fully received: clusters: 0 successful, 0 rejected; listeners: 1 successful, 0 rejected",
        ),
        (
            received(cds=3, **LIVE),
            "configuration not fully received: clusters: 3 successful, 0 rejected; listeners: 0 successful, 0 rejected",
        ),
        (received(1, 1), "Envoy does not report its state yet"),
        (received(1, 1, listener_manager__workers_started=1), "Envoy does not report its state yet"),
        (received(1, 1, server__state=1, listener_manager__workers_started=1), "Envoy is DRAINING, not LIVE"),
        (received(1, 1, server__state=2), "Envoy is PRE_INITIALIZING, not LIVE"),
        (received(1, 1, server__state=3, listener_manager__workers_started=1), "Envoy is INITIALIZING, not LIVE"),
        (received(1, 1, server__state=4), "Envoy is 4, not LIVE"),
        (received(1, 1, server__state=0), "Envoy's workers have not started yet"),
        (
            received(1, 1, server__state=0, listener_manager__workers_started=0),
            "Envoy's workers have not started yet",
        ),
        (
            received(1, 1, server__state=0, listener_manager__workers_started=2),
            "Envoy's workers have not started yet",
        ),
        (received(1, 1, **LIVE), None),
        (received(1, 1, 5, 5, **LIVE), None),
    ],
)
def test_why_envoy_does_not_serve_yet(stats: dict[str, int], reason: str | None) -> None:
    assert (config_reason(stats) or workers_reason(stats)) == reason


# Over the wire

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Returned = TypeVar("Returned")


class Peer:
    """Plays Envoy's admin port: gives `answer` to every request, in these parts; None is silence."""

    def __init__(self, *parts: bytes | None, host: str = "127.0.0.1") -> None:
        self.parts, self.host = parts, host
        self.requests: list[str] = []
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        for part in self.parts:
            if part is None:
                await reader.read()  # until the client goes away
            else:
                writer.write(part)
                await writer.drain()
        writer.close()
        self.gone.set()

    async def ask(self, call: Callable[[Admin], Awaitable[Returned]]) -> Returned:
        server = await asyncio.start_server(self.serve, self.host, 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            try:
                return await call(Admin(self.host, self.port))
            finally:
                if self.requests:
                    await self.gone.wait()


def ask(call: Callable[[Admin], Awaitable[Returned]], *parts: bytes | None) -> tuple[Returned, Peer]:
    async def run() -> tuple[Returned, Peer]:
        peer = Peer(*parts)
        return await peer.ask(call), peer

    return asyncio.run(run())


def refusal(call: Callable[[Admin], Awaitable[object]], *parts: bytes | None) -> str:
    with pytest.raises(AdminError) as refused:
        ask(call, *parts)
    return str(refused.value)


def test_a_request_and_its_answer() -> None:
    body, peer = ask(lambda admin: admin.call("/ready"), answered(b"LIVE\n", b"content-length: 5"))
    assert body == "LIVE\n"
    assert peer.requests == [f"GET /ready HTTP/1.1\r\nHost: 127.0.0.1:{peer.port}\r\nConnection: close\r\n\r\n"]


def test_a_post_has_an_empty_body() -> None:
    _, peer = ask(lambda admin: admin.call("/drain_listeners?graceful", method="POST"), answered(b"OK\n"))
    (request,) = peer.requests
    assert request.startswith("POST /drain_listeners?graceful HTTP/1.1\r\n")
    assert "Content-Length: 0\r\n" in request


def test_an_answer_in_pieces_and_of_any_size() -> None:
    whole = chunked([b"x" * 70_000, b"\xff", b"y" * 70_000])
    body, _ = ask(lambda admin: admin.call("/stats"), whole[:5], whole[5:100_000], whole[100_000:])
    assert body == "x" * 70_000 + "\ufffd" + "y" * 70_000


def test_an_ipv6_host_is_put_in_brackets() -> None:
    async def run() -> Peer:
        peer = Peer(answered(b"ok"), host="::1")
        assert await peer.ask(lambda admin: admin.call("/")) == "ok"
        return peer

    peer = asyncio.run(run())
    assert f"Host: [::1]:{peer.port}\r\n" in peer.requests[0]


@pytest.mark.parametrize(
    "parts", [(None,), (b"HTTP/1.1 200 OK\r\n", None), (answered(b"a", b"content-length: 2"), None)]
)
def test_silence_ends_with_the_time_limit(parts: tuple[bytes | None, ...]) -> None:
    assert refusal(lambda admin: admin.call("/ready", timeout=0.05), *parts).endswith(
        "did not answer /ready within 0.05 s"
    )


def test_a_port_nobody_listens_on() -> None:
    port = free_port()
    with pytest.raises(AdminError) as refused:
        asyncio.run(Admin("127.0.0.1", port).call("/ready"))
    assert str(refused.value) == f"Envoy's admin port {port} can't be reached: connection refused"


@pytest.mark.parametrize("status", [b"503 Service Unavailable", b"404 Not Found", b"302 Found", b"204 No Content"])
def test_any_status_but_200_is_an_error(status: bytes) -> None:
    told = refusal(lambda admin: admin.call("/ready"), answered(b"", b"content-length: 0", status=status))
    assert told.endswith(f"answered /ready with status {status[:3].decode()}")


@pytest.mark.parametrize("data", [b"", b"\x00\x01", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"])
def test_garbage_is_an_error(data: bytes) -> None:
    assert "answered /ready with garbage: " in refusal(lambda admin: admin.call("/ready"), data)


def test_statistics_are_asked_for_by_their_exact_names() -> None:
    stats, peer = ask(lambda admin: admin.stats(("server.state", "a.b")), answered(b"server.state: 2\nother: 5\n"))
    assert stats == {"server.state": 2, "other": 5}
    assert peer.requests[0].split(" ")[1] == r"/stats?usedonly&filter=^(server\.state|a\.b)$"


INFO = b'{"state": "LIVE", "version": "v1", "command_line_options": {"restart_epoch": 3}}'


@pytest.mark.parametrize(
    ("body", "info"),
    [
        (INFO, ServerInfo("LIVE", 3, "v1")),
        (b'{"state": "DRAINING"}', ServerInfo("DRAINING", 0, "")),
        (b'{"state": "LIVE", "command_line_options": {}}', ServerInfo("LIVE", 0, "")),
    ],
)
def test_server_info(body: bytes, info: ServerInfo) -> None:
    assert ask(lambda admin: admin.server_info(), answered(body))[0] == info


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'"LIVE"',
        b'{"state": "LIVE", "command_line_options": {"restart_epoch": "x"}}',
        b'{"state": "LIVE", "command_line_options": []}',
    ],
)
def test_server_info_that_is_none(body: bytes) -> None:
    told = refusal(lambda admin: admin.server_info(), answered(body))
    assert told.startswith("Envoy's /server_info is not what it should be: ")


def test_a_call_that_is_cancelled_lets_go_of_its_connection() -> None:
    async def run() -> None:
        peer = Peer(None)

        async def cancelled(admin: Admin) -> None:
            task: asyncio.Task[Any] = asyncio.create_task(admin.call("/ready", timeout=60))
            while not peer.requests:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        await peer.ask(cancelled)  # returns only when the peer saw the connection end

    asyncio.run(run())
