"""/debug/status, /debug/shutdown and /debug/ndsz over HTTP: JSON, never stored, for this machine only."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from pilot_agent.clock import SystemClock
from pilot_agent.status.port import StatusServer
from pilot_agent.status.readiness import Readiness
from pilot_agent.status.sockets import bind
from tests.support.http import Answer, fetch
from tests.support.recorded_log import RecordedLog
from tests.unit.status.served import Asked, Blocks
from tests.unit.status.test_server import LOCAL_ONLY, WRONG_METHOD, own_address


class Told:
    def __init__(self, status: Mapping[str, Any] | None = None, *, has_names: bool = True) -> None:
        self._has_names = has_names
        self._status = status or {"ready": True, "reason": None, "errors": ["caf\u00e9 \udc80"]}

    async def status(self) -> Mapping[str, Any]:
        return self._status

    def certs(self) -> Mapping[str, Any] | None:
        return {"certificates": [{"name": "default", "spiffe_id": "spiffe://a/ns/b/sa/c"}]}

    def xds(self) -> Mapping[str, Any] | None:
        return {"streams": []}

    def name_table(self) -> Mapping[str, Any] | None:
        return {"table": {"a.example.com": {"ips": ["10.0.0.1"]}}} if self._has_names else None

    def shutdown(self) -> Mapping[str, Any]:
        return {"state": "not stopping"}


def asked(path: str, method: str = "GET", host: str = "127.0.0.1", facts: Told | None = None) -> Answer:
    async def run() -> Answer:
        sock, log = bind(0), RecordedLog()
        port = sock.getsockname()[1]
        readiness = Readiness([], log.scope, SystemClock())
        server = StatusServer(sock, readiness, Blocks(), Asked(), log.scope, SystemClock(), facts=facts or Told())
        await server.start()
        try:
            return await fetch(port, path, method, host=host)
        finally:
            await server.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/debug/status", 200, {"ready": True, "reason": None, "errors": ["caf\u00e9 ?"]}),
        ("/debug/status?x=1", 200, {"ready": True, "reason": None, "errors": ["caf\u00e9 ?"]}),
        ("/debug/shutdown", 200, {"state": "not stopping"}),
        ("/debug/certs", 200, {"certificates": [{"name": "default", "spiffe_id": "spiffe://a/ns/b/sa/c"}]}),
        ("/debug/xds", 200, {"streams": []}),
        ("/debug/ndsz", 200, {"table": {"a.example.com": {"ips": ["10.0.0.1"]}}}),
    ],
)
def test_facts_are_json_that_nobody_stores(path: str, status: int, body: dict[str, Any]) -> None:
    answer = asked(path)
    assert (answer.status, json.loads(answer.body)) == (status, body)
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_without_a_name_table_the_answer_is_istios() -> None:
    answer = asked("/debug/ndsz", facts=Told(has_names=False))
    assert (answer.status, json.loads(answer.body)) == (404, {})


@pytest.mark.parametrize("path", ["/debug/status", "/debug/shutdown", "/debug/certs", "/debug/xds"])
def test_facts_are_for_this_machine_and_for_get(path: str) -> None:
    answer = asked(path, "POST")
    assert (answer.status, answer.body) == WRONG_METHOD
    if (address := own_address()) is not None:
        answer = asked(path, host=address)
        assert (answer.status, answer.body) == LOCAL_ONLY
