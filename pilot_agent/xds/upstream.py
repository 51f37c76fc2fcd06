"""The stream to istiod: a new connection for each of Envoy's, to the first address that answers."""

import asyncio
import ssl
from collections.abc import Callable
from typing import NamedTuple

from pilot_agent.clock import Clock
from pilot_agent.errors import IdentityError
from pilot_agent.http2.client import ClientConnection, ClientStream
from pilot_agent.http2.connect import ConnectFailed, connect
from pilot_agent.http2.connection import Config
from pilot_agent.http2.frames import LARGEST_MAX_FRAME
from pilot_agent.http2.outgoing import Turn
from pilot_agent.http2.stream import Receiver
from pilot_agent.identity.channel import metadata, read_credentials, tls_context
from pilot_agent.identity.crypto import IN_PROCESS, Crypto
from pilot_agent.identity.tokens import Tokens
from pilot_agent.log import Scope
from pilot_agent.xds.options import IstiodOptions, XdsOptions

SERVICE = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
SOTW, DELTA = "StreamAggregatedResources", "DeltaAggregatedResources"
WINDOW, BUFFER = 1 << 20, 1 << 18
"""Bytes of a stream's window at rest and of one read. A larger window lets a push begin while the one before still
waits for Envoy, which is memory; a message on its way is granted whole."""


class Unreachable(Exception):
    """No istiod could be connected to; the text says why, for each address."""


class Opened(NamedTuple):
    """A stream under way, and the connection that ends with it."""

    stream: ClientStream
    connection: ClientConnection
    istiod: str


class Upstream:
    """Opens streams. `options` is asked anew each time, files and token are read anew. `ciphers` are the TLS 1.2 suites
    a compliance policy leaves, as OpenSSL lists them; None: its own choice."""

    def __init__(
        self,
        options: Callable[[], XdsOptions],
        tokens: Tokens | None,
        log: Scope,
        clock: Clock,
        crypto: Crypto = IN_PROCESS,
        ciphers: str | None = None,
    ) -> None:
        self._options, self._tokens, self._log, self._clock = options, tokens, log, clock
        self._crypto, self._ciphers = crypto, ciphers
        self.turn = Turn()
        """Of these connections and Envoy's."""

    async def open(self, receiver: Receiver, *, is_delta: bool) -> Opened:
        """Raises Unreachable when no address could be connected to."""
        options = self._options()
        problems = []
        for istiod in options.istiods:
            try:
                return await self._open(options, istiod, receiver, is_delta=is_delta)
            except (IdentityError, ConnectFailed, ssl.SSLError, ValueError) as error:
                problems.append(f"istiod {istiod.address}: {error}")
        raise Unreachable("; ".join(problems))

    async def _open(self, options: XdsOptions, istiod: IstiodOptions, receiver: Receiver, *, is_delta: bool) -> Opened:
        loop = asyncio.get_running_loop()
        tls = await loop.run_in_executor(None, lambda: self._tls(istiod))
        token = await loop.run_in_executor(None, self._tokens.read) if self._tokens is not None else ""
        interval, timeout = options.keepalive
        config = Config(
            largest_message=None,
            window=WINDOW,
            max_frame=LARGEST_MAX_FRAME,
            buffer=BUFFER,
            keepalive_interval=interval,
            keepalive_timeout=timeout,
            turn=self.turn,
        )
        connection = await connect(istiod.address, config, tls, istiod.server_name)
        try:
            method = SERVICE + (DELTA if is_delta else SOTW)
            stream = connection.open(method, receiver, metadata(istiod, token))
        except BaseException:
            connection.abort()
            raise
        return Opened(stream, connection, str(istiod.address))

    def _tls(self, istiod: IstiodOptions) -> ssl.SSLContext | None:
        credentials = read_credentials(istiod, self._log, self._clock, self._crypto)
        return None if istiod.is_plaintext else tls_context(credentials, self._ciphers)
