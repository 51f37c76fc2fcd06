"""What the agent knows of itself, as JSON for whoever debugs it; loopback only, which `server` sees to.

What is told is the supervisor's, behind `Facts`; the shapes are documented in docs/status.md.
"""

import json
from collections.abc import Mapping
from typing import Any, Protocol

from aiohttp import web

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Facts(Protocol):
    """Plain data, ready for JSON, without secrets."""

    async def status(self) -> Mapping[str, Any]:
        """Everything on one screen; asks Envoy, with a deadline of its own."""

    def certs(self) -> Mapping[str, Any] | None:
        """The certificates, their renewal and what went wrong; None where this proxy has no identity."""

    def xds(self) -> Mapping[str, Any] | None:
        """The streams between Envoy and istiod; None where there is no istiod."""

    def name_table(self) -> Mapping[str, Any] | None:
        """istiod's names, as protobuf's JSON; None where they are not asked for, or have not come."""

    def shutdown(self) -> Mapping[str, Any]:
        """The plan of the shutdown and its steps so far."""


class DebugHandlers:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    async def status(self, _request: web.BaseRequest) -> web.StreamResponse:
        return _json(await self._facts.status())

    async def certs(self, _request: web.BaseRequest) -> web.StreamResponse:
        found = self._facts.certs()
        return _json(found) if found is not None else _json({"certificates": []}, status=404)

    async def xds(self, _request: web.BaseRequest) -> web.StreamResponse:
        found = self._facts.xds()
        return _json(found) if found is not None else _json({"streams": []}, status=404)

    async def shutdown(self, _request: web.BaseRequest) -> web.StreamResponse:
        return _json(self._facts.shutdown())

    async def name_table(self, _request: web.BaseRequest) -> web.StreamResponse:
        """404 as in Istio where names are not asked for, or have not come."""
        found = self._facts.name_table()
        return _json(found) if found is not None else _json({}, status=404)


def _json(facts: Mapping[str, Any], status: int = 200) -> web.Response:
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return web.Response(
        status=status, body=text.encode(errors="replace"), content_type="application/json", headers=_HEADERS
    )
