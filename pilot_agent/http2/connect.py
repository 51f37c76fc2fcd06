"""A connection to a server: the name's addresses one after the other, TCP, TLS with h2 by ALPN, the server's
settings, all within one limit.

Nothing is retried and nothing is kept: who wants another connection calls `connect` again.
"""

import asyncio
import os
import socket
import ssl
from typing import cast

from pilot_agent.http2.client import ClientConnection
from pilot_agent.http2.connection import Config
from pilot_agent.values import HostPort

CONNECT_S = 5.0
CLOSE_TLS_S = 1.0


class ConnectFailed(Exception):
    """No connection; one line says what failed, for each address that was tried."""


async def connect(
    address: HostPort,
    config: Config = Config(),  # noqa: B008  (frozen)
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    limit: float = CONNECT_S,
) -> ClientConnection:
    """To the first of the name's addresses that takes it, within `limit` seconds for everything: name, TCP, TLS, and
    the server's SETTINGS.

    `tls` checks the certificate for `server_hostname` (the address's host without one), and must have h2 agreed by ALPN
    (RFC 9113, 3.3): it is set here, with TLS 1.2 as the least. Raises ConnectFailed.
    """
    if tls is not None:
        tls.set_alpn_protocols(["h2"])
        tls.minimum_version = max(tls.minimum_version, ssl.TLSVersion.TLSv1_2)
    stage = [f"resolve {address.host}"]
    try:
        async with asyncio.timeout(limit):
            sock = await _dial(address, limit, stage)
            connection = await _open(sock, address, config, tls, server_hostname or address.host, stage)
            await _wait_ready(connection, address, stage)
            return connection
    except TimeoutError:
        raise ConnectFailed(f"no connection within {limit:g} s: timed out at: {'; '.join(stage)}") from None


async def _dial(address: HostPort, limit: float, stage: list[str]) -> socket.socket:
    """A connected socket; one address may not take the time of those behind it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectFailed(f"resolve {address.host}: {error.strerror or error}") from None
    stage.clear()
    places = list(dict.fromkeys((family, place) for family, _, _, _, place in found))
    for number, (family, place) in enumerate(places):
        name = str(HostPort(str(place[0]), int(place[1])))
        stage.append(f"connect to {name}")
        left = (end - loop.time()) / (len(places) - number)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(left):
                await loop.sock_connect(sock, place)
            return sock
        except TimeoutError:
            sock.close()
            stage[-1] += ": timed out"
        except OSError as error:
            sock.close()
            stage[-1] += f": {os.strerror(error.errno).lower() if error.errno else error}"
        except BaseException:
            sock.close()
            raise
    raise ConnectFailed("; ".join(stage))


async def _wait_ready(connection: ClientConnection, address: HostPort, stage: list[str]) -> None:
    """A kernel takes a connection, and a proxy a handshake, for a server that does not answer any more."""
    stage[:] = [f"HTTP/2 with {address}"]
    try:
        problem = await connection.wait_ready()
    except BaseException:
        connection.abort()
        raise
    if problem is not None:
        raise ConnectFailed(f"HTTP/2 with {address}: {problem}")


async def _open(
    sock: socket.socket,
    address: HostPort,
    config: Config,
    tls: ssl.SSLContext | None,
    server_hostname: str,
    stage: list[str],
) -> ClientConnection:
    loop = asyncio.get_running_loop()
    authority = str(address) if tls is None else server_hostname
    connection = ClientConnection(config, "http" if tls is None else "https", authority)
    stage[:] = [f"TLS with {address}"]
    try:
        if tls is None:
            await loop.create_connection(lambda: connection, sock=sock)
            return connection
        transport, _ = await loop.create_connection(
            lambda: connection, sock=sock, ssl=tls, server_hostname=server_hostname, ssl_shutdown_timeout=CLOSE_TLS_S
        )
    except ssl.SSLCertVerificationError as error:
        raise ConnectFailed(f"TLS with {address}: {error.reason}: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise ConnectFailed(f"TLS with {address}: {error.reason or error}") from None
    except OSError as error:
        raise ConnectFailed(
            f"TLS with {address}: {error.strerror or str(error) or 'the connection was closed'}"
        ) from None
    except BaseException:
        sock.close()
        raise
    chosen = cast(ssl.SSLObject, transport.get_extra_info("ssl_object")).selected_alpn_protocol()
    if chosen != "h2":
        connection.abort()
        raise ConnectFailed(f"TLS with {address}: the server does not agree to h2 by ALPN (it says {chosen})")
    return connection
