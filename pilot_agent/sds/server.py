"""The SDS server: names as streams of secrets, on a socket that has been listening since before Envoy was spawned.

Importing this module imports grpc: `supervise` does it while Envoy boots.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from pilot_agent.discovery import DELTA_REQUEST, DELTA_RESPONSE, REQUEST, RESPONSE
from pilot_agent.log import Scope
from pilot_agent.protobuf import Message
from pilot_agent.sds.account import SdsAccount
from pilot_agent.sds.resources import Provider
from pilot_agent.sds.stream import DeltaStream, Read, SotwStream, Stream
from pilot_agent.sds.watch import Names
from pilot_agent.uds.grpc_server import serve_behind
from pilot_agent.uds.listener import Listener

if TYPE_CHECKING:
    from pilot_agent.sds.stream import Context

SERVICE = "envoy.service.secret.v3.SecretDiscoveryService"
MOST_STREAMS = 100_000


class SdsServer:
    """`run` serves `names` on `listener` until it is cancelled; it may be run again."""

    def __init__(
        self,
        listener: Listener,
        names: Names,
        provider: Callable[[], Provider | None],
        account: SdsAccount,
        log: Scope,
    ) -> None:
        self._listener, self._names, self._provider = listener, names, provider
        self._account, self._log = account, log
        self._responses = 0

    async def run(self) -> None:
        """Raises RuntimeError, OSError or SettingsError when gRPC can't have a socket of its own there."""
        arguments = (("grpc.max_concurrent_streams", MOST_STREAMS),)
        await serve_behind(self._listener, self._handlers(), arguments, self._log, "SDS server")

    def _handlers(self) -> Any:
        def method(make: type[Stream], request: Message, response: Message) -> Any:
            async def serve(_requests: Any, context: "Context") -> None:
                await self._serve(make, context)

            return grpc.stream_stream_rpc_method_handler(serve, lambda data: Read(request, data), response.encode)

        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "StreamSecrets": method(SotwStream, REQUEST, RESPONSE),
                "DeltaSecrets": method(DeltaStream, DELTA_REQUEST, DELTA_RESPONSE),
            },
        )

    async def _serve(self, make: type[Stream], context: "Context") -> None:
        stream = make(context, self._names, self._provider, self._next_version, self._account, self._log)
        try:
            await stream.run()
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:  # noqa: BLE001 - a bug in one stream ends that stream, with a word about it
            self._account.internal_errors += 1
            self._log.error(f"an SDS stream failed: {error!r}")
            await context.abort(grpc.StatusCode.INTERNAL, "the SDS server failed; its log says why")

    def _next_version(self) -> str:
        """Time of day and a counter, as Istio's agent has it: for people, nothing compares it."""
        self._responses += 1
        return f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}/{self._responses}"
