"""The stream to istiod: a new connection for each of Envoy's, to the first address that answers."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from pilot_agent.clock import Clock
from pilot_agent.errors import IdentityError
from pilot_agent.identity.channel import metadata, open_channel, read_credentials
from pilot_agent.identity.crypto import IN_PROCESS, Crypto
from pilot_agent.identity.tokens import Tokens
from pilot_agent.log import Scope
from pilot_agent.xds.endings import Ending
from pilot_agent.xds.options import IstiodOptions, XdsOptions

SERVICE = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
SOTW, DELTA = "StreamAggregatedResources", "DeltaAggregatedResources"
CONNECT_S = 5.0
"""For one address: gRPC alone would wait 20 s for a handshake that nobody answers."""


class Unreachable(Exception):
    """No istiod could be connected to; the text says why, for each address."""


class Opened(NamedTuple):
    """A call under way, what it ended with once it has, and the channel that ends with it."""

    call: Any
    ending: Ending
    channel: "grpc.aio.Channel"
    istiod: str


class Upstream:
    """Opens calls. `options` is asked anew each time, files and token are read anew."""

    def __init__(
        self,
        options: Callable[[], XdsOptions],
        tokens: Tokens | None,
        log: Scope,
        clock: Clock,
        crypto: Crypto = IN_PROCESS,
    ) -> None:
        self._options, self._tokens, self._log, self._clock = options, tokens, log, clock
        self._crypto = crypto

    async def open(self, *, is_delta: bool) -> Opened:
        """Raises Unreachable when no address could be connected to."""
        options = self._options()
        problems = []
        for istiod in options.istiods:
            try:
                return await self._open(options, istiod, is_delta=is_delta)
            except (IdentityError, Unreachable) as error:
                problems.append(f"istiod {istiod.address}: {error}")
        raise Unreachable("; ".join(problems))

    async def _open(self, options: XdsOptions, istiod: IstiodOptions, *, is_delta: bool) -> Opened:
        loop = asyncio.get_running_loop()
        credentials = await loop.run_in_executor(
            None, lambda: read_credentials(istiod, self._log, self._clock, self._crypto)
        )
        token = await loop.run_in_executor(None, self._tokens.read) if self._tokens is not None else ""
        channel = open_channel(
            istiod,
            credentials,
            (
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                *options.keepalive,
                ("grpc.http2.max_pings_without_data", 0),
            ),
        )
        try:
            await self._connect(channel)
            method: Any = channel.stream_stream(SERVICE + (DELTA if is_delta else SOTW))
            call = method(metadata=metadata(istiod, token))
            return Opened(call, Ending(call), channel, str(istiod.address))
        except BaseException:
            with contextlib.suppress(Exception):
                await channel.close()
            raise

    async def _connect(self, channel: "grpc.aio.Channel") -> None:
        """Wait until the channel is connected, or has failed once: its own next try is not waited for."""
        state = channel.get_state(try_to_connect=True)
        try:
            async with asyncio.timeout(CONNECT_S):
                while state is not grpc.ChannelConnectivity.READY:
                    if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                        raise Unreachable(await self._why(channel))
                    await channel.wait_for_state_change(state)
                    state = channel.get_state()
        except TimeoutError:
            raise Unreachable(f"no connection within {CONNECT_S:g} s") from None

    async def _why(self, channel: "grpc.aio.Channel") -> str:
        """gRPC tells the reason of a failed connection only to a call that fails by it."""
        probe: Any = channel.unary_unary("/connection.Probe/Reason")
        try:
            await probe(b"", timeout=1.0)
        except grpc.aio.AioRpcError as error:
            return " ".join((error.details() or error.code().name).split())[:500]
        return "the connection failed"
