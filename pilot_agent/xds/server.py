"""Where Envoy asks for its configuration: gRPC on `<configPath>/XDS`, a socket that listens since before Envoy."""

import asyncio
from collections.abc import Callable

from pilot_agent.http2.connection import Config
from pilot_agent.http2.server import Handler, Server
from pilot_agent.log import Scope
from pilot_agent.uds.listener import Listener
from pilot_agent.xds.options import XdsOptions
from pilot_agent.xds.proxy import AdsProxy
from pilot_agent.xds.upstream import DELTA, SERVICE, SOTW


class XdsServer:
    """`run` serves until it is cancelled; it may be run again."""

    def __init__(self, listener: Listener, proxy: AdsProxy, options: Callable[[], XdsOptions], log: Scope) -> None:
        self._listener, self._proxy, self._options, self._log = listener, proxy, options, log

    async def run(self) -> None:
        options = self._options()
        largest = options.largest_request if options.largest_request >= 0 else None
        interval, timeout = options.keepalive
        config = Config(
            # The proxy holds Envoy to the limit, and says which request it was; what is over twice the limit is not
            # even read.
            largest_message=2 * largest if largest is not None else None,
            most_streams=options.most_streams,
            keepalive_interval=interval,
            keepalive_timeout=timeout,
            turn=self._proxy.turn,
        )
        server = Server(self._handlers(largest), config)
        await server.start(self._listener.socket)
        self._log.info(f"xDS proxy listens on {self._listener.path}")
        try:
            await asyncio.Event().wait()
        finally:
            await server.close(0)  # no stream of ADS ends by itself
            await self._proxy.close()

    def _handlers(self, largest: int | None) -> dict[str, Handler]:
        return {
            SERVICE + SOTW: lambda stream: self._proxy.serve(stream, is_delta=False, largest_request=largest),
            SERVICE + DELTA: lambda stream: self._proxy.serve(stream, is_delta=True, largest_request=largest),
        }
