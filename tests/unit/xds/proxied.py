"""The ADS proxy in an event loop of its own thread, to an istiod that the test starts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pilot_agent.clock import SystemClock
from pilot_agent.uds.listener import Listener
from pilot_agent.values import HostPort
from pilot_agent.xds.account import XdsAccount
from pilot_agent.xds.intercept import PROXY_CONFIG, Handler
from pilot_agent.xds.options import IstiodOptions, XdsOptions
from pilot_agent.xds.proxy import AdsProxy
from pilot_agent.xds.server import XdsServer
from pilot_agent.xds.upstream import Upstream
from tests.support.ads_client import AdsClient, AdsStream
from tests.support.looped import Looped
from tests.support.recorded_log import RecordedLog

Result = TypeVar("Result")


class Proxied:
    """Runs from its creation until `stop`. Without `handlers` it takes roots, into `bundles`."""

    def __init__(
        self,
        directory: Path,
        *addresses: str,
        largest_request: int = 4194304,
        handlers: Mapping[str, Handler] | None = None,
    ) -> None:
        self.path = directory / "XDS"
        self.account, self.log = XdsAccount(), RecordedLog()
        self.bundles: list[bytes] = []
        istiods = tuple(IstiodOptions(HostPort.parse(each), True, "istiod", None, None, "c1", ()) for each in addresses)
        self.options = XdsOptions(istiods, 30, 10, largest_request, 1000, takes_proxy_config=True)
        upstream = Upstream(lambda: self.options, None, self.log.scope, SystemClock())
        if handlers is None:
            handlers = {PROXY_CONFIG: self.bundles.append}
        self.proxy = AdsProxy(upstream, handlers, self.account, self.log.scope, SystemClock())
        self._listener = Listener(self.path, "xDS")
        self._looped = Looped(XdsServer(self._listener, self.proxy, lambda: self.options, self.log.scope).run)
        self._clients: list[AdsClient] = []

    def do(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the proxy's loop."""
        return self._looped.do(work)

    def report(self, *, is_healthy: bool, message: str = "") -> None:
        self.do(lambda: self.proxy.report(is_healthy, message))

    def client(self) -> AdsClient:
        """On a connection of its own."""
        self._clients.append(AdsClient(self.path))
        return self._clients[-1]

    def stream(self, *, is_delta: bool = False) -> AdsStream:
        """On a connection of its own, as Envoy's are."""
        return self.client().stream(is_delta=is_delta)

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        self._looped.stop()
        self._listener.close()
