"""Connections: TLS against gRPC's own server, and one line that says what failed."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from pilot_agent.http2 import connect as module
from pilot_agent.http2 import frames
from pilot_agent.http2.call import Call
from pilot_agent.http2.connect import ConnectFailed, connect
from pilot_agent.http2.connection import Config
from pilot_agent.http2.status import Code, Status
from pilot_agent.values import HostPort
from tests.support.authority import Authority, Pair
from tests.unit.http2.pairs import HOST, WANTS_ALL, connected, grpc_echo, grpc_server, path, unused_address

NAME = "istiod.istio-system.svc"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def trusting(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem)
    context.check_hostname = True
    return context


def credentials(pair: Pair) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(pair.key.encode(), pair.chain.encode())])


async def problem(address: HostPort, tls: ssl.SSLContext | None = None, limit: float = 5.0, name: str = NAME) -> str:
    with pytest.raises(ConnectFailed) as caught:
        await connect(address, WANTS_ALL, tls, name, limit)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tls_with_a_name_that_differs_from_the_address(authority: Authority) -> None:
    async def run() -> None:
        serving = grpc_server({"Echo": grpc_echo}, credentials=credentials(authority.pair(NAME)))
        async with serving as address, connected(address, tls=trusting(authority), server_hostname=NAME) as connection:
            call = Call.open(connection, path("Echo"))
            for size in (10, 3_000_000):
                await call.write(bytes(size))
                assert len(await call.read() or b"") == size
            call.end_writing()
            assert await call.finished() == Status(Code.OK)

    asyncio.run(run())


def test_a_large_message_over_tls_in_both_directions(authority: Authority) -> None:
    async def run() -> None:
        serving = grpc_server({"Echo": grpc_echo}, credentials=credentials(authority.pair(NAME)))
        async with serving as address, connected(address, tls=trusting(authority), server_hostname=NAME) as connection:
            call = Call.open(connection, path("Echo"))
            body = bytes(range(256)) * 100_000
            await call.write(body)
            assert await call.read() == body

    asyncio.run(run())


def test_a_client_certificate_is_shown(authority: Authority, tmp_path: Path) -> None:
    pair = authority.pair("spiffe://cluster.local/ns/a/sa/b")
    (tmp_path / "client.pem").write_text(pair.key + pair.chain)
    server = authority.pair(NAME)
    required = grpc.ssl_server_credentials(
        [(server.key.encode(), server.chain.encode())], authority.pem.encode(), require_client_auth=True
    )

    async def run() -> None:
        async with grpc_server({"Echo": grpc_echo}, credentials=required) as address:
            tls = trusting(authority)
            tls.load_cert_chain(tmp_path / "client.pem")
            async with connected(address, tls=tls, server_hostname=NAME) as connection:
                call = Call.open(connection, path("Echo"))
                await call.write(b"x")
                assert await call.read() == b"x"
            # TLS 1.3 tells it after the handshake, and where our own bytes come too late, only that it is over.
            assert (await problem(address, trusting(authority))).startswith("HTTP/2 with 127.0.0.1:")

    asyncio.run(run())


def test_a_certificate_of_another_authority_is_refused(authority: Authority) -> None:
    async def run() -> str:
        async with grpc_server({}, credentials=credentials(Authority("other").pair(NAME))) as address:
            return await problem(address, trusting(authority))

    assert "CERTIFICATE_VERIFY_FAILED: " in asyncio.run(run())


def test_a_certificate_for_another_name_is_refused(authority: Authority) -> None:
    async def run() -> str:
        async with grpc_server({}, credentials=credentials(authority.pair("other.svc"))) as address:
            return await problem(address, trusting(authority))

    found = asyncio.run(run())
    assert "Hostname mismatch" in found and NAME in found


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    async def run() -> str:
        pair = authority.pair(NAME, lifetime_s=60, not_before=1_600_000_000)
        async with grpc_server({}, credentials=credentials(pair)) as address:
            return await problem(address, trusting(authority))

    assert "certificate has expired" in asyncio.run(run())


def test_plaintext_where_tls_is_wanted(authority: Authority) -> None:
    async def run() -> str:
        async with grpc_server({}) as address:
            return await problem(address, trusting(authority))

    found = asyncio.run(run())
    assert found.startswith("TLS with 127.0.0.1:")


@asynccontextmanager
async def answering(
    authority: Authority, tmp_path: Path, protocols: list[str], highest: ssl.TLSVersion
) -> AsyncIterator[HostPort]:
    """TLS, and no more than settings behind it."""
    pair = authority.pair(NAME)
    (tmp_path / "server.pem").write_text(pair.key + pair.chain)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem")
    tls.maximum_version = highest
    if protocols:
        tls.set_alpn_protocols(protocols)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(frames.settings({}))
            await reader.read()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(hang, HOST, 0, ssl=tls)
    try:
        yield HostPort(HOST, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
def test_a_server_that_does_not_agree_to_h2(authority: Authority, tmp_path: Path, protocols: list[str]) -> None:
    async def run() -> str:
        async with answering(authority, tmp_path, protocols, ssl.TLSVersion.TLSv1_3) as address:
            return await problem(address, trusting(authority))

    assert "does not agree to h2 by ALPN" in asyncio.run(run())


def test_tls_1_2_is_taken(authority: Authority, tmp_path: Path) -> None:
    async def run() -> None:
        async with answering(authority, tmp_path, ["h2"], ssl.TLSVersion.TLSv1_2) as address:
            connection = await connect(address, WANTS_ALL, trusting(authority), NAME)
            connection.abort()
            await asyncio.sleep(0)

    asyncio.run(run())


def test_the_least_version_of_tls_is_1_2(authority: Authority) -> None:
    async def run() -> None:
        tls = trusting(authority)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        await problem(unused_address(), tls)
        assert tls.minimum_version is ssl.TLSVersion.TLSv1_3, "a stricter one stays"

    asyncio.run(run())


def test_refused_is_said_for_each_address() -> None:
    address = unused_address()
    found = asyncio.run(problem(HostPort("localhost", address.port)))
    assert f"connect to 127.0.0.1:{address.port}: connection refused" in found


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    async def run() -> str:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
        return await problem(HostPort("nowhere.example", 15012))

    assert asyncio.run(run()) == "resolve nowhere.example: Name or service not known"


def test_a_name_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    async def run() -> str:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", slow)
        return await problem(HostPort("slow.example", 15012), limit=0.1)

    assert asyncio.run(run()) == "no connection within 0.1 s: timed out at: resolve slow.example"


@pytest.fixture
def deaf() -> Iterator[HostPort]:
    """Takes connections into its backlog, and says nothing."""
    with socket.create_server((HOST, 0)) as sock:
        yield HostPort(HOST, sock.getsockname()[1])


def test_a_handshake_that_nobody_answers(deaf: HostPort, authority: Authority) -> None:
    found = asyncio.run(problem(deaf, trusting(authority), limit=0.2))
    assert found == f"no connection within 0.2 s: timed out at: TLS with {deaf}"


def test_a_dead_address_does_not_take_the_time_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with grpc_server({"Echo": grpc_echo}) as address:
            dead = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", address.port))
            alive = (socket.AF_INET, socket.SOCK_STREAM, 0, "", (HOST, address.port))
            connect_really = loop.sock_connect

            async def resolve(*_: object, **__: object) -> list[object]:
                return [dead, alive]

            async def hang(sock: socket.socket, place: tuple[str, int]) -> None:
                if place[0] == "192.0.2.1":
                    await asyncio.Event().wait()
                await connect_really(sock, place)

            monkeypatch.setattr(loop, "getaddrinfo", resolve)
            monkeypatch.setattr(loop, "sock_connect", hang)
            async with connected(HostPort("two.example", address.port), limit=1.0) as connection:
                call = Call.open(connection, path("Echo"))
                await call.write(b"x")
                assert await call.read() == b"x"

    asyncio.run(run())


def test_a_server_that_says_nothing(deaf: HostPort) -> None:
    found = asyncio.run(problem(deaf, limit=0.2))
    assert found == f"no connection within 0.2 s: timed out at: HTTP/2 with {deaf}"


def test_a_half_open_connection_ends_by_the_watchdog(authority: Authority, tmp_path: Path) -> None:
    async def run() -> None:
        config = Config(keepalive_interval=0.02, keepalive_timeout=0.05)
        answered = answering(authority, tmp_path, ["h2"], ssl.TLSVersion.TLSv1_3)
        async with (
            answered as address,
            connected(address, config, tls=trusting(authority), server_hostname=NAME) as connection,
        ):
            call = Call.open(connection, path("Any"))
            assert await call.finished() == Status(Code.UNAVAILABLE, "keepalive watchdog timeout")

    asyncio.run(run())


def test_a_connection_that_is_reset() -> None:
    async def run() -> None:
        async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()

        server = await asyncio.start_server(reset, HOST, 0)
        address = HostPort(HOST, server.sockets[0].getsockname()[1])
        found = await problem(address)
        assert found in (
            f"HTTP/2 with {address}: connection error: {why}" for why in ("Connection reset by peer", "Broken pipe")
        )
        server.close()
        await asyncio.sleep(0.01)

    asyncio.run(run())


def test_cancelling_leaves_no_socket(deaf: HostPort, authority: Authority) -> None:
    async def run() -> None:
        task = asyncio.create_task(connect(deaf, WANTS_ALL, trusting(authority), NAME))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert module.CONNECT_S == 5.0
