"""Applications to be probed, inside the test's event loop: each says on every connection what it was told to."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Probed:
    """What the application saw: heads of requests, where they came from, the name in TLS; `open` connections now."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    open: int = 0

    @property
    def headers(self) -> list[str]:
        """The lines of the last request behind its first one."""
        return self.heads[-1].split("\r\n")[1:-2]

    @property
    def first_lines(self) -> list[str]:
        return [head.split("\r\n")[0] for head in self.heads]


@asynccontextmanager
async def listening(
    say: Say, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Probed]:
    """Hands every connection to `say`, and closes it when that returns."""
    probed = Probed()
    if tls is not None:
        tls.sni_callback = lambda _connection, name, _context: probed.names.append(name)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        probed.open += 1
        probed.peers.append(writer.get_extra_info("peername")[0])
        try:
            await say(reader, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the probe hung up
        finally:
            probed.open -= 1
            tasks.discard(task)
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(connected, host, port, ssl=tls, backlog=1024)
    probed.port = server.sockets[0].getsockname()[1]
    try:
        yield probed
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def answering(
    answer: bytes | Callable[[str, int], bytes],
    tls: ssl.SSLContext | None = None,
    *,
    keeps: bool = False,
    host: str = "127.0.0.1",
) -> AsyncIterator[Probed]:
    """Answers each request with these bytes, or what they are for its path and the port; `keeps`: on one connection."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            probed.heads.append(head)
            writer.write(answer if isinstance(answer, bytes) else answer(head.split(" ")[1], probed.port))
            if not keeps:
                return

    async with listening(say, tls, host) as probed:
        yield probed


@asynccontextmanager
async def answering_http2(
    status: bytes, body: bytes, tls: ssl.SSLContext | None, *headers: tuple[bytes, bytes]
) -> AsyncIterator[Probed]:
    """One HTTP/2 answer per connection; the request's head is kept as `name: value` lines."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    lines = [f"{name.decode()}: {value.decode()}" for name, value in event.headers or ()]
                    probed.heads.append("\r\n".join(["HTTP/2", *lines, "", ""]))
                    connection.send_headers(1, [(b":status", status), *headers])
                    connection.send_data(1, body, end_stream=True)
            writer.write(connection.data_to_send())

    async with listening(say, tls) as probed:
        yield probed


def http(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
