"""Asking Envoy whether it still answers, often and for little: one kept connection to its admin interface.

What the answer says does not matter; whoever wants to know more asks `admin`. A connection and a parsed answer for each
question cost more than twice the CPU (measured in an idle agent). Called by the supervisor's pulse.
"""

import asyncio
import os
from typing import cast

from pilot_agent.errors import AdminError


class Heartbeat(asyncio.Protocol):
    """`host`:`port` is the admin interface of one Envoy; another Envoy gets another heartbeat."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        name = f"[{host}]" if ":" in host else host
        self._question = f"GET /ready HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bool] | None = None
        self._is_closed = False

    async def beat(self) -> None:
        """Return when Envoy's main thread has answered; one at a time, as long as it takes. Raises AdminError when no
        answer can come."""
        if self._transport is not None and await self._ask(self._transport):
            return
        # A kept connection that closes may have been closed before the question: that says nothing.
        if not await self._ask(await self._connect()):
            raise AdminError(f"Envoy's admin port {self._port} closed the connection")

    def close(self) -> None:
        self._is_closed = True
        if self._transport is not None:
            self._transport.abort()

    async def _connect(self) -> asyncio.Transport:
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise AdminError(f"Envoy's admin port {self._port} can't be reached: {reason}") from None
        return transport

    async def _ask(self, transport: asyncio.Transport) -> bool:
        """Whether an answer came, and not the end of the connection."""
        if transport.is_closing():
            return False
        self._answer = asyncio.get_running_loop().create_future()
        transport.write(self._question)
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._is_closed:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._tell(bool(data))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's name)
        self._transport = None
        self._tell(False)

    def _tell(self, is_answered: bool) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(is_answered)
