"""Where Envoy asks for its configuration: gRPC on `<configPath>/XDS`, behind a socket that listens since before Envoy.

Messages come in and go out as bytes. Importing this module imports grpc: `supervise` does it while Envoy boots.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from pilot_agent.log import Scope
from pilot_agent.uds.grpc_server import serve_behind
from pilot_agent.uds.listener import Listener
from pilot_agent.xds.options import XdsOptions
from pilot_agent.xds.proxy import AdsProxy
from pilot_agent.xds.upstream import DELTA, SERVICE, SOTW

if TYPE_CHECKING:
    from pilot_agent.xds.proxy import Context


LARGEST_LIMIT = 2**31 - 1
"""What gRPC's settings can hold; a negative setting means no limit."""


class XdsServer:
    """`run` serves until it is cancelled; it may be run again."""

    def __init__(self, listener: Listener, proxy: AdsProxy, options: Callable[[], XdsOptions], log: Scope) -> None:
        self._listener, self._proxy, self._options, self._log = listener, proxy, options, log

    async def run(self) -> None:
        """Raises RuntimeError, OSError or SettingsError when gRPC can't have a socket of its own there."""
        options = self._options()
        largest = options.largest_request if options.largest_request >= 0 else LARGEST_LIMIT
        arguments = (
            # The proxy holds Envoy to the limit: gRPC would cut the stream and tell the agent nothing. What is over
            # twice the limit gRPC does not even read.
            ("grpc.max_receive_message_length", min(2 * largest, LARGEST_LIMIT)),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", options.most_streams),
            *options.keepalive,
            ("grpc.http2.min_ping_interval_without_data_ms", 15_000),
        )
        await serve_behind(self._listener, self._handlers(largest), arguments, self._log, "xDS proxy")

    def _handlers(self, largest_request: int) -> Any:
        def method(*, is_delta: bool) -> Any:
            async def serve(_requests: Any, context: "Context") -> None:
                await self._proxy.serve(context, is_delta=is_delta, largest_request=largest_request)

            return grpc.stream_stream_rpc_method_handler(serve)

        service = SERVICE.strip("/")
        return grpc.method_handlers_generic_handler(
            service, {SOTW: method(is_delta=False), DELTA: method(is_delta=True)}
        )
