"""What becomes of each response of istiod: passed on, read by the agent, or dropped; and what the agent asks for.

The table is reference security-xds.md, section 5.5, the order of the agent's own requests 5.4. One per stream: a
stream's state begins anew with it. Pure but for what the handlers do.
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import NamedTuple

from pilot_agent.log import Scope
from pilot_agent.xds.messages import request
from pilot_agent.xds.wire import (
    DELTA_RESPONSE,
    SOTW_RESPONSE,
    Envelope,
    any_of_resource,
    resources_of,
    value_of_any,
)

_GOOGLE = "type.googleapis.com/"
LISTENER = f"{_GOOGLE}envoy.config.listener.v3.Listener"
NAME_TABLE = f"{_GOOGLE}istio.networking.nds.v1.NameTable"
PROXY_CONFIG = f"{_GOOGLE}istio.mesh.v1alpha1.ProxyConfig"
HEALTH = f"{_GOOGLE}istio.v1.HealthInformation"
WORKLOAD = f"{_GOOGLE}istio.workload.Workload"
ENVOY = f"{_GOOGLE}envoy."

Handler = Callable[[bytes], None]
"""Takes the first resource of a response. Raises ValueError for one that can't be used: that is a NACK."""


class Health(NamedTuple):
    """What istiod is told of the workload; `message` says why it is not healthy."""

    is_healthy: bool
    message: str = ""


class Fate(Enum):
    FORWARDED = auto()
    CONSUMED = auto()
    DROPPED = auto()


class Interception:
    """`handlers` by type, in the order in which the agent asks for them; `health` is the last report, if any."""

    def __init__(
        self, handlers: Mapping[str, Handler], health: Callable[[], Health | None], log: Scope, *, is_delta: bool
    ) -> None:
        self._handlers, self._health, self._log, self._is_delta = handlers, health, log, is_delta
        self.has_asked_for_listeners = False

    def own_requests(self, type_url: str) -> list[bytes]:
        """What the agent asks for itself, right behind Envoy's first request for listeners of the stream."""
        if type_url != LISTENER or self.has_asked_for_listeners:
            return []
        self.has_asked_for_listeners = True
        found = [request(each, is_delta=self._is_delta) for each in self._handlers]
        health = self._health()
        return [*found, self.health_request(health)] if health is not None else found

    def health_request(self, health: Health) -> bytes:
        return request(HEALTH, is_delta=self._is_delta, error=None if health.is_healthy else health.message)

    def take(self, response: bytes, around: Envelope) -> tuple[Fate, bytes | None]:
        """What becomes of it, and what istiod is answered by the agent, if anything."""
        handler = self._handlers.get(around.type_url)
        if handler is not None:
            return Fate.CONSUMED, self._consume(handler, response, around)
        if around.type_url.startswith(ENVOY) or around.type_url == WORKLOAD:
            return Fate.FORWARDED, None
        return Fate.DROPPED, None

    def _consume(self, handler: Handler, response: bytes, around: Envelope) -> bytes | None:
        """None for a response without a resource: Istio's agent neither uses nor acknowledges one."""
        error = None
        try:
            first = next(resources_of(response, DELTA_RESPONSE if self._is_delta else SOTW_RESPONSE), None)
            if first is None:
                return None
            handler(bytes(value_of_any(any_of_resource(first) if self._is_delta else first)))
        except Exception as problem:  # noqa: BLE001  (whatever fails in a part of the agent must not end Envoy's stream)
            error = str(problem) if isinstance(problem, ValueError) else repr(problem)
            self._log.warn(f"{around.type_url} of istiod can't be used, the one before stays: {error}")
        return request(
            around.type_url, is_delta=self._is_delta, nonce=around.nonce, version=around.version, error=error
        )
