"""Connections of probes: their source address, TLS without verification, and how they end. Nothing of what is said.

A probe comes from 127.0.0.6 or ::6, which Istio's iptables rules let pass: from any other address they would send it
into Envoy, and back to the agent. Called by `probe_http`, `probes` and `workload_health`.
"""

import asyncio
import errno
import os
import socket
import ssl
import struct
from typing import NamedTuple

from pilot_agent.log import Scope

SOURCES = {socket.AF_INET: "127.0.0.6", socket.AF_INET6: "::6"}

_BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT of linux/in.h; Python has it from 3.12 on
_LOCAL = ("127.0.0.1", "::1")
_RESET = struct.pack("ii", 1, 0)


class ProbeFailed(Exception):
    """The application could not be asked, or did not answer as its protocol wants. The text is short and steady."""


class Place(NamedTuple):
    """Where to connect. `host`: an address, a name, or `localhost` or nothing for both loopback addresses."""

    host: str
    port: int

    @property
    def authority(self) -> bytes:
        """`host:port`, as a Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host or "localhost"
        return f"{host}:{self.port}".encode("ascii", "replace")


class Wire:
    """One open connection. Whoever dialled it ends it with `close`, or with `reset` when it is of no use any more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @property
    def protocol(self) -> str | None:
        """What TLS agreed on, `h2` or `http/1.1`; None without."""
        tls = self.writer.get_extra_info("ssl_object")
        return tls.selected_alpn_protocol() if tls is not None else None

    @property
    def is_usable(self) -> bool:
        return not self.reader.at_eof() and not self.writer.is_closing()

    def close(self) -> None:
        # Not writer.close(): over TLS that waits half a minute for the farewell of a peer that hangs.
        self.writer.transport.abort()

    def reset(self) -> None:
        """Let nothing of it stay behind, neither unsent bytes nor TIME_WAIT."""
        sock = self.writer.get_extra_info("socket")
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass  # it is closed
        self.close()


class Dialer:
    """Kubelet sets SO_LINGER to 1 s on its probes; here that is left out: close() of a socket whose peer does not
    read then holds up the whole event loop for that second, non-blocking or not (measured on Linux).
    """

    def __init__(self, log: Scope, *, is_source_bound: bool = True) -> None:
        self._log, self._is_source_bound = log, is_source_bound
        self._unusable: set[str] = set()

    async def dial(self, place: Place, tls: ssl.SSLContext | None = None) -> Wire:
        """Raises OSError, ssl.SSLError included, for the address tried last. There is no time limit here."""
        sock = await self._connect_any(place)
        # asyncio owns the socket from here on, failures and cancellation included.
        name = (place.host or "localhost") if tls is not None else None
        reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name)
        return Wire(reader, writer)

    async def touch(self, place: Place) -> None:
        """Connect and hang up. Raises OSError."""
        (await self._connect_any(place)).close()

    async def _connect_any(self, place: Place) -> socket.socket:
        problem: OSError | None = None
        for family, address in await _resolve(place):
            try:
                return await self._connect(family, address)
            except OSError as error:
                problem = error
        raise problem or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    async def _connect(self, family: int, address: tuple[object, ...]) -> socket.socket:
        source = SOURCES.get(socket.AddressFamily(family)) if self._is_source_bound else None
        try:
            return await self._connect_from(source, family, address)
        except OSError as error:
            # What the kernel says of a loopback source and a destination that is not on this machine.
            if source is None or error.errno != errno.EINVAL:
                raise
        return await self._connect_from(None, family, address)

    async def _connect_from(self, source: str | None, family: int, address: tuple[object, ...]) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if source is not None:
                self._bind(sock, source)
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock

    def _bind(self, sock: socket.socket, source: str) -> None:
        """The port is left to connect(): chosen by bind() it has to be free towards everybody, and a thousand probes a
        second use up all ports within the minute of TIME_WAIT.
        """
        try:
            sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        except OSError as error:
            if source not in self._unusable:
                self._unusable.add(source)
                self._log.warn(
                    f"probes can't come from {source} ({error.strerror}): intercepted, they may end in Envoy; "
                    f"add the address to the loopback interface: ip addr add {source} dev lo"
                )


def tls_context(*, http2: bool) -> ssl.SSLContext:
    """For probes: any certificate will do, as for kubelet's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if http2:
        context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def describe(error: BaseException) -> str:
    """A short, steady text: the same trouble must read the same at every probe, or each would be logged."""
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    if isinstance(error, ConnectionError):
        return "the connection was closed"  # asyncio's own, which has no number
    return str(error)[:200] or type(error).__name__


async def _resolve(place: Place) -> list[tuple[int, tuple[object, ...]]]:
    if place.host in ("", "localhost"):
        return [(socket.AF_INET, (_LOCAL[0], place.port)), (socket.AF_INET6, (_LOCAL[1], place.port))]
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except ValueError:  # a label of more than 63 letters, and the like
        raise ProbeFailed("what should be a host is no name") from None
    return [(family, address) for family, _, _, _, address in found]
