"""The xDS proxy under the event loop: istiod, Envoy, and what the agent itself asks for, wired together."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from pilot_agent.identity.certificate import stamp
from pilot_agent.identity.tokens import Tokens
from pilot_agent.metrics.own import Values
from pilot_agent.supervise.desired import Desired
from pilot_agent.supervise.parts import Parts
from pilot_agent.supervise.prepare import Prepared
from pilot_agent.supervise.roots import IstiodRoots
from pilot_agent.supervise.stock import Ask, StockEnvoy
from pilot_agent.uds.listener import Listener
from pilot_agent.xds.account import StreamState, XdsAccount
from pilot_agent.xds.options import XdsOptions, work_out_xds

if TYPE_CHECKING:
    from pilot_agent.xds.intercept import Handler
    from pilot_agent.xds.proxy import AdsProxy

ENDS = ("cancelled", "error")
EXTENSION_CONFIG = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
WASM = b".wasm.v3.Wasm"
MOST_TOLD_MODULES = 1000
"""Somebody who sends a new place each time does not fill the memory."""


class Xds:
    """Made under the event loop. `set_trust_bundle` takes the roots that istiod sends (PROXY_CONFIG_XDS_AGENT).

    `take_names` takes its name tables; None where no DNS proxy is wanted, and then none is asked for.
    """

    def __init__(
        self,
        prepared: Prepared,
        listener: Listener,
        desired: Callable[[], Desired],
        tokens: Tokens | None,
        set_trust_bundle: Callable[[list[str]], None],
        ask: Ask,
        take_names: Callable[[Mapping[str, Mapping[str, Any]]], None] | None,
    ) -> None:
        self._prepared, self._listener, self._desired = prepared, listener, desired
        self._tokens, self._set_trust_bundle, self._take_names = tokens, set_trust_bundle, take_names
        self.account = XdsAccount()
        self._log = prepared.log.scope("xdsproxy")
        self._stock = StockEnvoy(desired, ask, prepared.inputs.answers.build, self.account, self._log)
        self._proxy: AdsProxy | None = None
        self.roots = IstiodRoots(self._options, self._log)
        self._health: tuple[bool, str] | None = None
        self._told_modules: set[str] = set()

    def start(self, parts: Parts) -> None:
        parts.start("xDS proxy", self._serve)
        parts.start("istiod's roots", self.roots.run)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._import)
        from pilot_agent.xds.intercept import NAME_TABLE, PROXY_CONFIG
        from pilot_agent.xds.messages import ca_certificates, name_table
        from pilot_agent.xds.proxy import AdsProxy, as_it_came
        from pilot_agent.xds.server import XdsServer
        from pilot_agent.xds.upstream import Upstream

        log = self._log
        handlers: dict[str, Handler] = {}  # asked for in this order
        if (take := self._take_names) is not None:
            handlers[NAME_TABLE] = lambda resource: take(name_table(resource))
        if self._options().takes_proxy_config:
            handlers[PROXY_CONFIG] = lambda resource: self._set_trust_bundle(ca_certificates(resource))
        assert self._prepared.identity is not None and self._prepared.identity.crypto is not None  # a mesh has one
        clock, crypto = self._prepared.clock, self._prepared.identity.crypto
        ciphers = self._prepared.desired.launch.variables.get("GRPC_SSL_CIPHER_SUITES")
        upstream = Upstream(self._options, self._tokens, log, clock, crypto, ciphers)
        has_envoy = self._prepared.desired.settings.has_envoy
        pass_on = self._pass_on if has_envoy else as_it_came
        self._proxy = AdsProxy(upstream, handlers, self.account, log, clock, pass_on, is_one_per_process=has_envoy)
        if self._health is not None:
            self._proxy.report(*self._health)
        await XdsServer(self._listener, self._proxy, self._options, log).run()

    def _pass_on(self, type_url: str, response: bytes, is_delta: bool) -> Awaitable[bytes] | None:
        """What Envoy gets of a response that is its own (`xds.proxy.Filter`)."""
        if type_url == EXTENSION_CONFIG and WASM in response:
            self._warn_of_modules(bytes(response), is_delta=is_delta)
        if not self._stock.is_suspect(type_url, response):
            return None
        return self._stock.pass_on(type_url, bytes(response), is_delta)

    def _warn_of_modules(self, response: bytes, *, is_delta: bool) -> None:
        from pilot_agent.xds.wasm import unfetchable

        for module in unfetchable(response, is_delta=is_delta):
            if module.place in self._told_modules or len(self._told_modules) >= MOST_TOLD_MODULES:
                continue
            self._told_modules.add(module.place)
            self._log.warn(
                f"extension {module.resource}: Envoy can't fetch the Wasm module {module.place} by itself, and this "
                "version of the agent does not do it for Envoy: the filter will not work"
            )

    def _import(self) -> None:
        """In a thread, so that probes are answered meanwhile."""
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
            "left_out": dict(account.left_out),
            "refused": {
                _short(kind): {"times": times, "now": account.refused.get(kind)}
                for kind, times in account.refusals.items()
            },
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
            "xds_left_out_total": account.left_out,
        }


def _described(stream: StreamState) -> dict[str, Any]:
    return {
        "envoy_pid": stream.process,
        "kind": "delta" if stream.is_delta else "sotw",
        "istiod": stream.istiod or None,
        "is_connected": stream.is_connected,
        "since": stamp(stream.began),
        "types": {
            _short(type_url): {
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


def _short(type_url: str) -> str:
    return type_url.removeprefix("type.googleapis.com/")
