"""The xDS proxy under the event loop: istiod, Envoy, and what the agent itself asks for, wired together."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pilot_agent.identity.certificate import stamp
from pilot_agent.identity.tokens import Tokens
from pilot_agent.metrics.own import Values
from pilot_agent.supervise.desired import Desired
from pilot_agent.supervise.grpc_setup import set_up_grpc
from pilot_agent.supervise.parts import Parts
from pilot_agent.supervise.prepare import Prepared
from pilot_agent.uds.listener import Listener
from pilot_agent.xds.account import StreamState, XdsAccount
from pilot_agent.xds.options import XdsOptions, work_out_xds

if TYPE_CHECKING:
    from pilot_agent.xds.proxy import AdsProxy

ENDS = ("cancelled", "error")
PROXY_CONFIG = "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig"


class Xds:
    """Made under the event loop. `set_trust_bundle` takes the roots that istiod sends (PROXY_CONFIG_XDS_AGENT)."""

    def __init__(
        self,
        prepared: Prepared,
        listener: Listener,
        desired: Callable[[], Desired],
        tokens: Tokens | None,
        set_trust_bundle: Callable[[list[str]], None],
    ) -> None:
        self._prepared, self._listener, self._desired = prepared, listener, desired
        self._tokens, self._set_trust_bundle = tokens, set_trust_bundle
        self.account = XdsAccount()
        self._proxy: AdsProxy | None = None
        self._health: tuple[bool, str] | None = None

    def start(self, parts: Parts) -> None:
        parts.start("xDS proxy", self._serve)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._import)
        from pilot_agent.xds.messages import ca_certificates
        from pilot_agent.xds.proxy import AdsProxy
        from pilot_agent.xds.server import XdsServer
        from pilot_agent.xds.upstream import Upstream

        log = self._prepared.log.scope("xdsproxy")
        handlers = {}
        if self._options().takes_proxy_config:
            handlers[PROXY_CONFIG] = lambda resource: self._set_trust_bundle(ca_certificates(resource))
        assert self._prepared.identity is not None and self._prepared.identity.crypto is not None  # a mesh has one
        crypto = self._prepared.identity.crypto
        upstream = Upstream(self._options, self._tokens, log, self._prepared.clock, crypto)
        self._proxy = AdsProxy(upstream, handlers, self.account, log, self._prepared.clock)
        if self._health is not None:
            self._proxy.report(*self._health)
        await XdsServer(self._listener, self._proxy, self._options, log).run()

    def _import(self) -> None:
        """In a thread, so that probes are answered meanwhile."""
        set_up_grpc(self._prepared.desired.launch.variables)
        import pilot_agent.xds.server  # noqa: F401

    def _options(self) -> XdsOptions:
        return work_out_xds(self._desired().settings)

    def report(self, healthy: bool, message: str) -> None:
        """The workload's health (`status.workload_health.HealthReports`)."""
        self._health = (healthy, message)
        if self._proxy is not None:
            self._proxy.report(healthy, message)

    # What others ask

    def problem(self) -> str | None:
        """Why there is no configuration from istiod; None while it answers."""
        return self.account.problem

    def described(self) -> Mapping[str, Any]:
        """The answer of /debug/xds."""
        account = self.account
        return {
            "streams": [_described(each) for each in account.streams],
            "problem": account.problem,
            "last_contact": stamp(account.last_contact) if account.last_contact is not None else None,
            "ended": list(account.past),
            "dropped": dict(account.dropped),
        }

    def facts(self) -> Mapping[str, Values]:
        """For the metrics, by their names without prefix."""
        account = self.account
        return {
            "xds_proxy_requests": account.requests,
            "xds_proxy_responses": account.responses,
            "istiod_connection_failures": account.connection_failures,
            "istiod_connection_terminations": dict.fromkeys(ENDS, 0) | account.istiod_ends,
            "envoy_connection_terminations": dict.fromkeys(ENDS, 0) | account.envoy_ends,
        }


def _described(stream: StreamState) -> dict[str, Any]:
    return {
        "envoy_pid": stream.process,
        "kind": "delta" if stream.is_delta else "sotw",
        "istiod": stream.istiod or None,
        "is_connected": stream.is_connected,
        "since": stamp(stream.began),
        "types": {
            type_url.removeprefix("type.googleapis.com/"): {
                "version": each.version,
                "nonce": each.nonce,
                "answered_nonce": each.answered_nonce,
                "nack": each.nack,
                "resources": each.resources,
                "requests": each.requests,
                "responses": each.responses,
                "bytes": each.bytes,
            }
            for type_url, each in stream.types.items()
        },
    }
