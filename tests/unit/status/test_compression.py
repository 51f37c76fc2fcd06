import asyncio
import importlib
import sys
import zlib

import pytest

from pilot_agent.status.compression import Compression, choose_encoding
from pilot_agent.status.page import page
from tests.support.http import connected
from tests.unit.status.served import Blocks, served

BOTH = ("zstd", "gzip")


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("deflate, gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("GZIP", "gzip"),
        ("*", "zstd"),
        ("*, zstd;q=0", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=x", None),
        ("gzip;q=2", None),
        ("br", None),
        ("identity", None),
        ("", None),
    ],
)
def test_the_encoding_with_the_highest_q_wins(accepted: str, expected: str | None) -> None:
    assert choose_encoding(accepted, BOTH) == expected


def test_without_a_module_for_it_zstd_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    compression = Compression()
    assert compression.choose(["gzip", "zstd"]) == "gzip"


async def fetched(blocks: list[bytes], accepted: str, method: str = "GET") -> tuple[bytes, bytes]:
    """Head and body of one scrape."""
    async with served(scraper=Blocks(blocks=blocks)) as port, connected(port.port) as client:
        request = f"{method} /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {accepted}\r\nConnection: close\r\n\r\n"
        client.send(request.encode())
        head, _, body = (await client.reader.read(-1)).partition(b"\r\n\r\n")
        return head.lower(), _unchunked(body) if b"chunked" in head else body


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return whole


def test_a_long_answer_is_compressed_for_who_accepts_it() -> None:
    blocks = [b"one 1\n" * 100, b"two 2\n" * 100, b"three 3\n" * 50_000]
    head, body = asyncio.run(fetched(blocks, "gzip"))
    assert b"content-encoding: gzip" in head and b"vary: accept-encoding" in head
    assert len(body) < 10_000 and zlib.decompress(body, wbits=31) == b"".join(blocks)


@pytest.mark.parametrize(
    ("blocks", "accepted", "method"),
    [
        ([b"one 1\n" * 1000], "identity", "GET"),
        ([b"one 1\n" * 1000], "br", "GET"),
        ([b"one 1\n", b"two 2\n"], "gzip", "GET"),
        ([b"x" * 1023], "gzip", "GET"),
        ([], "gzip", "GET"),
        ([b"one 1\n" * 1000], "gzip", "HEAD"),
    ],
)
def test_other_answers_are_not(blocks: list[bytes], accepted: str, method: str) -> None:
    head, body = asyncio.run(fetched(blocks, accepted, method))
    assert b"content-encoding" not in head and b"vary: accept-encoding" in head
    assert body == (b"" if method == "HEAD" else b"".join(blocks))


def test_an_answer_in_zstd_is_the_same_answer() -> None:
    zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    blocks = [b"one_total 1\n" * 500, b"two_total 2\n" * 500]
    head, body = asyncio.run(fetched(blocks, "gzip, zstd"))
    assert b"content-encoding: zstd" in head
    assert b"vary: accept-encoding" in head
    assert len(body) < 1000
    assert zstd.decompress(body) == b"".join(blocks)


@pytest.mark.parametrize(("accepted", "is_packed"), [("gzip", True), ("", False)])
def test_every_large_answer_is_compressed(accepted: str, is_packed: bool) -> None:
    async def main() -> tuple[bytes, bytes]:
        async with served() as port, connected(port.port) as client:
            lines = f"GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {accepted}\r\nConnection: close\r\n\r\n"
            client.send(lines.encode())
            head, _, body = (await client.reader.read(-1)).partition(b"\r\n\r\n")
            return head.lower(), body

    head, body = asyncio.run(main())
    assert (b"content-encoding: gzip" in head) is is_packed
    assert b"vary: accept-encoding" in head
    assert (zlib.decompress(body, wbits=31) if is_packed else body) == page()
