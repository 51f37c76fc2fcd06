"""Which ends of a stream to istiod belong to life: Istio's TestIsExpectedGRPCError, and our own words."""

from pathlib import Path

import grpc
import pytest

from pilot_agent.http2.status import Code, Status
from pilot_agent.xds.endings import is_expected
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS
from tests.support.fake_istiod import FakeIstiod
from tests.support.stalling import Stalling
from tests.unit.xds.proxied import Proxied

CODE = Code


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
def test_the_ends_that_are_expected(code: Code, details: str, expected: bool) -> None:
    assert is_expected(Status(code, details)) is expected


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
            assert code is grpc.StatusCode.UNAVAILABLE and "Socket closed" in details
            eventually(lambda: proxied.account.istiod_ends == {"cancelled": 1})
            assert proxied.account.problem == f"istiod {network.address} ended the stream: UNAVAILABLE: {details}"
            assert not [line for line in proxied.log.lines if line.startswith("warn")]
        finally:
            proxied.stop()
