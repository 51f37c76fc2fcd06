"""An application, or an Envoy, that answers a scrape as the test's script says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

TEXT_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n"


@dataclass
class Exchange:
    """One request. Without a Content-Length the body ends where the connection does."""

    request: bytes
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class Application:
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    left: int = 0
    """Exchanges that ended because the other side was gone."""


@asynccontextmanager
async def application(script: Script) -> AsyncIterator[Application]:
    app = Application()
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            app.requests.append(request)
            await script(Exchange(request, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            app.left += 1
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    app.port = server.sockets[0].getsockname()[1]
    try:
        yield app
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()


def text(body: bytes, head: bytes = TEXT_HEAD) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.send(head + body)

    return script
