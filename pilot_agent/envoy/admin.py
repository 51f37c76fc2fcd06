"""A small client of Envoy's admin interface: what the agent asks, typed, each call with its own time limit.

Not aiohttp, nor http.client: the agent asks while Envoy boots, and either import (0.3 s, 0.02 s) would come between
Envoy and its first ready. Envoy closes the connection after each answer: all there is to parse is a head and chunks.
"""

import asyncio
import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from pilot_agent.errors import AdminError

LARGEST_ANSWER = 16 * 1024 * 1024

STARTUP_STATS = (
    "cluster_manager.cds.update_success",
    "cluster_manager.cds.update_rejected",
    "listener_manager.lds.update_success",
    "listener_manager.lds.update_rejected",
    "listener_manager.workers_started",
    "server.state",
)
SERVER_STATES = ("LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING")


class ServerInfo(NamedTuple):
    """From /server_info: `state` as Envoy names it, `epoch` the hot-restart epoch that answered."""

    state: str
    epoch: int
    version: str


class Admin:
    """Envoy's admin interface at `host`:`port`. Every method raises AdminError when it gets no proper answer."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    async def call(self, path: str, *, method: str = "GET", timeout: float = 1.0) -> str:  # noqa: ASYNC109 - asyncio.timeout inside
        """The body of a 200 answer. `timeout` (seconds) covers connect, request and the whole body."""
        try:
            async with asyncio.timeout(timeout):
                data = await self._exchange(path, method)
            status, body = parse_answer(data)
        except TimeoutError:
            raise AdminError(f"Envoy's admin port {self.port} did not answer {path} within {timeout:g} s") from None
        except OSError as error:
            raise AdminError(f"Envoy's admin port {self.port} can't be reached: {_plain(error)}") from None
        except ValueError as error:
            raise AdminError(f"Envoy's admin port {self.port} answered {path} with garbage: {error}") from None
        if status != 200:
            raise AdminError(f"Envoy's admin port {self.port} answered {path} with status {status}")
        return body.decode(errors="replace")

    async def _exchange(self, path: str, method: str) -> bytes:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            host = f"[{self.host}]" if ":" in self.host else self.host
            length = "Content-Length: 0\r\n" if method == "POST" else ""
            request = f"{method} {path} HTTP/1.1\r\nHost: {host}:{self.port}\r\nConnection: close\r\n{length}\r\n"
            writer.write(request.encode())
            data = await reader.read(LARGEST_ANSWER)
            while chunk := await reader.read(LARGEST_ANSWER - len(data)):
                data += chunk
            return data
        finally:
            writer.transport.abort()

    async def stats(self, names: Iterable[str], *, timeout: float = 1.0) -> dict[str, int]:  # noqa: ASYNC109
        """The integer stats of these exact names; one Envoy has not used yet is missing."""
        pattern = "|".join(name.replace(".", r"\.") for name in names)
        return parse_stats(await self.call(f"/stats?usedonly&filter=^({pattern})$", timeout=timeout))

    async def server_info(self, *, timeout: float = 1.0) -> ServerInfo:  # noqa: ASYNC109
        text = await self.call("/server_info", timeout=timeout)
        try:
            info = json.loads(text)
            options = info.get("command_line_options", {})
            return ServerInfo(str(info["state"]), int(options.get("restart_epoch", 0)), str(info.get("version", "")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AdminError(f"Envoy's /server_info is not what it should be: {error!r}") from None


def _plain(error: OSError) -> str:
    """The system's words: asyncio puts its own, with the address, in their place."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


def parse_answer(data: bytes) -> tuple[int, bytes]:
    """Status and body of a whole HTTP/1.1 answer on a connection that was closed after it (RFC 9112, section 6).

    Raises ValueError for anything else, an answer that was cut short included.
    """
    head, separator, rest = data.partition(b"\r\n\r\n")
    version, _, after = head.partition(b" ")
    if not separator or not version.startswith(b"HTTP/1."):
        raise ValueError(f"{data[:60]!r} is not an HTTP answer")
    fields = {
        name.strip().lower(): value.strip().lower()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    status = int(after[:3])
    if fields.get(b"transfer-encoding") == b"chunked":
        return status, _joined_chunks(rest)
    if len(rest) < int(fields.get(b"content-length", 0)):
        raise ValueError("the body is cut short")
    return status, rest


def _joined_chunks(data: bytes) -> bytes:
    body: list[bytes] = []
    position = 0
    while True:
        end = data.index(b"\r\n", position)
        size = int(data[position:end].split(b";")[0], 16)
        if size == 0:
            return b"".join(body)
        body.append(data[end + 2 : end + 2 + size])
        position = end + 2 + size + 2
        if position > len(data):
            raise ValueError("the body is cut short")


def parse_stats(text: str) -> dict[str, int]:
    """Lines `name: number`; anything else (histograms, texts) is left out."""
    stats = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(": ")
        if name and value.isascii() and value.isdigit():
            stats[name] = int(value)
    return stats


def config_reason(stats: dict[str, int]) -> str | None:
    """Why Envoy's configuration is not complete, from STARTUP_STATS; None when it has clusters and listeners.

    Rejections count for nothing once both were received (reference: Istio's readiness, first step).
    """
    cds, lds = (stats.get(name, 0) for name in (STARTUP_STATS[0], STARTUP_STATS[2]))
    cds_rejected, lds_rejected = (stats.get(name, 0) for name in (STARTUP_STATS[1], STARTUP_STATS[3]))
    counts = (
        f"clusters: {cds} successful, {cds_rejected} rejected; listeners: {lds} successful, {lds_rejected} rejected"
    )
    if not (cds and lds):
        if cds_rejected or lds_rejected:
            return f"configuration received but rejected by Envoy: {counts}"
        if not (cds or lds):
            return f"no configuration received yet: {counts}"
        return f"configuration not fully received: {counts}"
    return None


def workers_reason(stats: dict[str, int]) -> str | None:
    """Why no worker takes connections yet, from STARTUP_STATS; None when Envoy is LIVE and its workers run."""
    state = stats.get("server.state")
    if state is None:
        return "Envoy does not report its state yet"
    if state != 0:
        return f"Envoy is {SERVER_STATES[state] if state < len(SERVER_STATES) else state}, not LIVE"
    if stats.get("listener_manager.workers_started") != 1:
        return "Envoy's workers have not started yet"
    return None
