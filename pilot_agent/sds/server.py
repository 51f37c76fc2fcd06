"""The SDS server: gRPC behind a socket that has been listening since before Envoy was spawned.

gRPC can't adopt a listening socket, so it serves a private one beside it, and a relay passes connections on. Importing
this module imports grpc and Envoy's generated code: `supervise` does it while Envoy boots.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from pilot_agent.log import Scope
from pilot_agent.sds.account import SdsAccount
from pilot_agent.sds.packing import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from pilot_agent.sds.resources import Provider
from pilot_agent.sds.stream import DeltaStream, SotwStream, Stream
from pilot_agent.sds.watch import Names
from pilot_agent.uds.listener import Listener, behind, check_length
from pilot_agent.uds.relay import Relay

if TYPE_CHECKING:
    from pilot_agent.sds.stream import Context

SERVICE = "envoy.service.secret.v3.SecretDiscoveryService"
MOST_STREAMS = 100_000
LAST_WORDS_S = 0.5


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
        self._relay = Relay(listener, log)
        self._responses = 0

    async def run(self) -> None:
        """Raises RuntimeError, OSError or SettingsError when gRPC can't have a socket of its own there."""
        private = behind(self._listener.path, os.getpid())
        check_length(private, "SDS")
        server = grpc.aio.server(options=[("grpc.max_concurrent_streams", MOST_STREAMS)])
        server.add_generic_rpc_handlers((self._handlers(),))
        private.unlink(missing_ok=True)  # gRPC refuses what is no socket
        with _umask(0o177):
            server.add_insecure_port(f"unix:{private}")
        try:
            await server.start()
            await self._relay.start(private)
            self._log.info(f"SDS server listens on {self._listener.path}")
            await asyncio.Event().wait()
        finally:
            await self._relay.stop()
            await server.stop(LAST_WORDS_S)  # the connections are cut: it only waits for the streams to notice
            await _settle()
            private.unlink(missing_ok=True)

    def _handlers(self) -> Any:
        def method(make: type[Stream], request: Any, response: Any) -> Any:
            async def serve(_requests: Any, context: "Context") -> None:
                await self._serve(make, context)

            return grpc.stream_stream_rpc_method_handler(serve, request.FromString, response.SerializeToString)

        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "StreamSecrets": method(SotwStream, DiscoveryRequest, DiscoveryResponse),
                "DeltaSecrets": method(DeltaStream, DeltaDiscoveryRequest, DeltaDiscoveryResponse),
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


async def _settle() -> None:
    """gRPC's own tasks end a little after its server has stopped; cut off by the end of the loop, they would complain
    in the log."""
    tasks = [each for each in asyncio.all_tasks() if type(each.get_coro()).__module__.startswith("_cython")]
    if tasks:
        await asyncio.wait(tasks, timeout=LAST_WORDS_S)


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    """gRPC makes its socket by the umask: nobody but us may connect to it past the relay."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
