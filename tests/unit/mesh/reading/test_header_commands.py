"""Envoy's commands in headers, each verdict as Envoy 1.40 gave it."""

import pytest

from pilot_agent.mesh.reading.header_commands import complaint

TAKEN = [
    "", "plain", "100%%", "%%%START_TIME%", "%START_TIME(%Y-%m)%", "%START_TIME%%REQ(a)%", "%REQ(:path?x-a):5%",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%DYNAMIC_METADATA(a:b):5%", "%FILTER_STATE(a:PLAIN)%", "x%HOSTNAME%y",
]  # fmt: skip
REFUSED = [
    "%", "a%", "%%%", "%START_TIME%%", "%FOO%", "%REQ%", "%REQ()%", "%REQ(a?b?c)%", "%REQ(a b)%", "%REQ(a):%",
    "%req(a)%", "%PROTOCOL:5%", "%PROTOCOL(a)%", "%START_TIME:5%", "%FILTER_STATE(a:FOO)%", "%UPSTREAM_METADATA(a):5%",
    "%A(%",
]  # fmt: skip


@pytest.mark.parametrize("value", TAKEN)
def test_what_envoy_takes(value: str) -> None:
    assert complaint(value) == ""


@pytest.mark.parametrize("value", REFUSED)
def test_what_envoy_refuses(value: str) -> None:
    assert "%" in complaint(value)
