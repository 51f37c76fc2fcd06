"""Reading Envoy's answers for the facts of /debug/status."""

import os
from typing import Any

import pytest

from pilot_agent.supervise.facts import address_of, requests_in, resident


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ({"socket_address": {"address": "0.0.0.0", "port_value": 15006}}, "0.0.0.0:15006"),
        ({"socket_address": {"address": "::", "port_value": 15006}}, "[::]:15006"),
        ({"pipe": {"path": "/run/envoy.sock"}}, "/run/envoy.sock"),
        ({"envoy_internal_address": {"server_listener_name": "inbound"}}, "internal"),
        ({}, "internal"),
    ],
)
def test_addresses_as_people_write_them(address: dict[str, Any], text: str) -> None:
    assert address_of(address) == text


def test_requests_are_those_of_the_application() -> None:
    stats = (
        "http.inbound_0.0.0.0_8080;.downstream_rq_total: 3\n"
        "http.outbound_a.example.com;.downstream_rq_total: 4\n"
        "http.admin.downstream_rq_total: 100\n"
        "http.agent.downstream_rq_total: 100\n"
        "http.stats.downstream_rq_total: 100\n"
        "http.secure_stats.downstream_rq_total: 100\n"
        "listener.0.0.0.0_8080.downstream_cx_active: 100\n"
        "http.outbound_a.example.com;.downstream_rq_total: No recorded values\n"
    )
    assert requests_in(stats) == 7
    assert requests_in("") == 0


def test_the_memory_of_a_process_that_is_gone_is_not_known() -> None:
    assert (resident(None) or 0) > 1024 * 1024
    assert (resident(os.getppid()) or 0) > 0
    assert resident(2**22 + 1) is None
