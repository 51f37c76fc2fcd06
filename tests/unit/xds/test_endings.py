"""Which ends of a stream to istiod belong to life: Istio's TestIsExpectedGRPCError, and gRPC for Python's words."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from pilot_agent.xds.endings import Ending, is_expected
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS
from tests.support.fake_istiod import FakeIstiod
from tests.support.stalling import Stalling
from tests.unit.xds.proxied import Proxied

CODE = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        (CODE.OK, "", True),
        (CODE.CANCELLED, "context canceled", True),
        (CODE.DEADLINE_EXCEEDED, "deadline exceeded", True),
        (CODE.UNAVAILABLE, "client disconnected", True),
        (CODE.UNAVAILABLE, "error reading from server: EOF", True),
        (CODE.UNAVAILABLE, "transport is closing", True),
        (CODE.UNAVAILABLE, "Socket closed", True),
        (CODE.UNAVAILABLE, "error reading from server: read tcp: connection reset by peer", False),
        (CODE.UNAVAILABLE, "other", False),
        (CODE.UNAUTHENTICATED, "transport is closing", False),
        (CODE.INTERNAL, "stream terminated by RST_STREAM with error code: NO_ERROR", True),
        (CODE.UNAVAILABLE, "closing transport due to: received prior goaway: code: NO_ERROR", True),
        (CODE.UNAVAILABLE, "GOAWAY received; Error code: 0; Debug Text: max_age", True),
        (CODE.UNAVAILABLE, "GOAWAY received; Error code: 11; Debug Text: too_many_pings", False),
        (CODE.INTERNAL, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR", False),
        (CODE.UNKNOWN, "", False),
    ],
)
def test_the_ends_that_are_expected(code: grpc.StatusCode, details: str, expected: bool) -> None:
    assert is_expected(code, details) is expected


def test_a_connection_that_istiod_closes_is_told_as_expected_and_still_a_reason(
    tmp_path: Path, istiod: FakeIstiod
) -> None:
    with Stalling(int(istiod.address.rpartition(":")[2])) as network:
        proxied = Proxied(tmp_path, network.address)
        try:
            client = proxied.stream()
            client.ask(CDS)
            client.next()
            network.cut()
            code, details = client.ended()
            assert code is CODE.UNAVAILABLE and "Socket closed" in details
            eventually(lambda: proxied.account.istiod_ends == {"cancelled": 1})
            assert proxied.account.problem == f"istiod {network.address} ended the stream: UNAVAILABLE: {details}"
            assert not [line for line in proxied.log.lines if line.startswith("warn")]
        finally:
            proxied.stop()


class Call:
    """As gRPC's: each status takes the place of the one before, and tells everybody again."""

    def __init__(self) -> None:
        self._status = (CODE.UNKNOWN, "")
        self._told: list[Callable[[Any], None]] = []

    def add_done_callback(self, tell: Callable[[Any], None]) -> None:
        self._told.append(tell)

    def set(self, code: grpc.StatusCode, details: str) -> None:
        self._status = (code, details)
        for tell in self._told:
            tell(self)

    async def code(self) -> grpc.StatusCode:
        return self._status[0]

    async def details(self) -> str:
        return self._status[1]


OF_A_WRITE = (CODE.INTERNAL, "Internal error from Core")
OF_ISTIOD = (CODE.PERMISSION_DENIED, "not with us")


@pytest.mark.parametrize("statuses", [[OF_A_WRITE, OF_ISTIOD], [OF_ISTIOD, OF_A_WRITE], [OF_ISTIOD]])
def test_what_a_write_says_never_stands_for_what_istiod_said(statuses: list[tuple[grpc.StatusCode, str]]) -> None:
    async def status() -> tuple[grpc.StatusCode, str]:
        call = Call()
        ending = Ending(call)
        call.set(*statuses[0])
        asked = asyncio.create_task(ending.status())
        await asyncio.sleep(0)
        for each in statuses[1:]:
            call.set(*each)
        return await asked

    assert asyncio.run(status()) == OF_ISTIOD


def test_what_a_write_says_stands_when_nothing_else_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilot_agent.xds.endings.STATUS_WITHIN_S", 0.01)

    async def status() -> tuple[grpc.StatusCode, str]:
        call = Call()
        ending = Ending(call)
        call.set(*OF_A_WRITE)
        return await ending.status()

    assert asyncio.run(status()) == OF_A_WRITE
