"""HTTP as bytes: tests write requests exactly as an attacker, or a clumsy client, would, and read the answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next answer. Raises IncompleteReadError when the server closes before its end."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        status = int(first.split()[1])
        if to_head or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, await self._chunked())
        if "content-length" in headers:
            return Answer(status, headers, await self.reader.readexactly(int(headers["content-length"])))
        return Answer(status, headers, await self.reader.read())

    async def ask(self, request: bytes) -> Answer:
        self.send(request)
        return await self.answer(to_head=request.startswith(b"HEAD "))

    async def is_closed(self) -> bool:
        """Waits for the server's end of the connection; true when nothing came before it."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    async def _chunked(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body


@asynccontextmanager
async def connected(port: int, host: str = "127.0.0.1") -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass  # the server was first


async def fetch(port: int, path: str, method: str = "GET", host: str = "127.0.0.1", headers: str = "") -> Answer:
    """One request on one connection; `headers` are whole lines."""
    async with connected(port, host) as client:
        return await client.ask(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode("utf-8", "surrogateescape")
        )
