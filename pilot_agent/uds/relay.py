"""Passes the connections of a listening socket on to a server's own one: gRPC can't adopt a socket that listens.

Bytes only, in both directions, with the pressure of a slow reader passed back. `grpc_server` uses it.
"""

import asyncio
import os
import socket
from pathlib import Path
from typing import cast

from pilot_agent.log import Scope
from pilot_agent.uds.listener import BACKLOG, CREDENTIALS, Listener

MOST_CONNECTIONS = 4096
LONGEST_CONNECT_S, CONNECT_PAUSE_S = 5.0, 0.02


class Relay:
    """From `start` on every connection, those waiting in the backlog first, is joined to one to `backend`."""

    def __init__(self, listener: Listener, log: Scope, most: int = MOST_CONNECTIONS) -> None:
        self._listener, self._log, self._most = listener, log, most
        self._server: asyncio.Server | None = None
        self._ends: set[_Accepted] = set()
        self._is_open = False
        self._backend = ""
        self._joined = 0

    @property
    def connections(self) -> int:
        return len(self._ends)

    async def start(self, backend: Path) -> None:
        self._backend, self._is_open = os.fspath(backend), True
        loop = asyncio.get_running_loop()
        # A duplicate, since asyncio closes what it was given, and the listener outlives one run of its server; and not
        # create_unix_server, which removes the file too (from Python 3.13 on).
        sock = self._listener.socket.dup()
        self._server = await loop.create_server(lambda: _Accepted(self), sock=sock, backlog=BACKLOG)

    async def stop(self) -> None:
        """Accept no more, and cut every connection."""
        self._is_open = False
        if self._server is not None:
            self._server.close()
            self._server = None
        joining = [each.joining for each in self._ends if each.joining is not None]
        for each in list(self._ends):
            each.abort()
        if joining:
            await asyncio.gather(*joining, return_exceptions=True)

    def admit(self, end: "_Accepted") -> bool:
        """Whether there is room for one more. One may still come that was accepted just before the end."""
        if not self._is_open:
            return False
        if len(self._ends) >= self._most:
            self._log.warn(f"{self._listener.path}: more than {self._most} connections at once: refused")
            return False
        self._ends.add(end)
        return True

    def forget(self, end: "_Accepted") -> None:
        self._ends.discard(end)

    async def join(self, end: "_Accepted") -> None:
        loop = asyncio.get_running_loop()
        try:
            sock = await self._connected(process_behind(end.transport))
            await loop.create_unix_connection(lambda: _End(end), sock=sock)
        except OSError as error:
            self._log.warn(f"{self._listener.path}: its server can't be reached: {str(error) or 'its backlog is full'}")
            end.abort()

    async def _connected(self, process: int) -> socket.socket:
        """A connection to the backend, its own end named after the process in front of the relay: that name is all
        that gRPC tells of a peer.

        Connecting never takes time on a Unix socket, but a full backlog refuses; asyncio takes that for a connection
        under way, and then for one that is there.
        """
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            self._joined += 1
            sock.bind(f"\0pilot-agent.{process}.{os.getpid()}.{id(self)}.{self._joined}")
            async with asyncio.timeout(LONGEST_CONNECT_S):
                while True:
                    try:
                        sock.connect(self._backend)
                        return sock
                    except BlockingIOError:
                        await asyncio.sleep(CONNECT_PAUSE_S)
        except BaseException:
            sock.close()
            raise


def process_behind(transport: asyncio.BaseTransport) -> int:
    """The pid of whoever connected."""
    connected: socket.socket = transport.get_extra_info("socket")
    pid: int = CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))[0]
    return pid


class _End(asyncio.Protocol):
    """One of two ends that are joined: what it reads the other writes."""

    transport: asyncio.Transport

    def __init__(self, other: "_End | None" = None) -> None:
        self.other = other

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.other is not None:
            self.other.other = self
            if self.other.transport.is_closing():
                self.transport.abort()
            else:
                self.other.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's name)
        if self.other is not None:
            self.other.transport.close()  # what is still to be written is written first


class _Accepted(_End):
    """The end of whoever connected; it reads nothing before the other end is there."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay
        self.joining: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._relay.admit(self):
            self.transport.abort()
            return
        self.transport.pause_reading()
        self.joining = asyncio.get_running_loop().create_task(self._relay.join(self), name="relay")

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.forget(self)
        if self.joining is not None:
            self.joining.cancel()
        super().connection_lost(exc)

    def abort(self) -> None:
        self.transport.abort()
