"""What makes a ProxyConfig unusable: each fault by field, value and source, and all of them at once."""

from typing import Any

import pytest

from pilot_agent.errors import EXIT_SETTINGS, SettingsError
from tests.unit.settings.told import told

INTRODUCTION = "failed to get proxy config: "


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"configPath": ""}, "configPath (from PROXY_CONFIG) is empty"),
        ({"binaryPath": ""}, "binaryPath (from PROXY_CONFIG) is empty"),
        ({"statusPort": 0}, "statusPort (from PROXY_CONFIG): 0 is not a port: ports go from 1 to 65535"),
        ({"statusPort": 65536}, "statusPort (from PROXY_CONFIG): 65536 is not a port: ports go from 1 to 65535"),
        ({"proxyAdminPort": -1}, "proxyAdminPort (from PROXY_CONFIG): -1 is not a port: ports go from 1 to 65535"),
        ({"drainDuration": "0s"}, "drainDuration (from PROXY_CONFIG): 0s must be at least 1s and whole seconds"),
        ({"drainDuration": "1500ms"}, "drainDuration (from PROXY_CONFIG): 1.5s must be at least 1s and whole seconds"),
        ({"drainDuration": "-5s"}, "drainDuration (from PROXY_CONFIG): -5s must be at least 1s and whole seconds"),
        (
            {"discoveryAddress": "istiod"},
            "discoveryAddress (from PROXY_CONFIG): 'istiod' is not an address: write host:port",
        ),
        (
            {"discoveryAddress": "istiod:0"},
            "discoveryAddress (from PROXY_CONFIG): 0 is not a port: ports go from 1 to 65535",
        ),
        (
            {"discoveryAddress": "::1:15012"},
            "discoveryAddress (from PROXY_CONFIG): '::1:15012' is ambiguous: "
            "put an IPv6 address in brackets, as in [::1]:15012",
        ),
        (
            {"statsdUdpAddress": "statsd:x"},
            "statsdUdpAddress (from PROXY_CONFIG): 'x' is not a port number",
        ),
        (
            {"zipkinAddress": ":9411"},
            "zipkinAddress (from PROXY_CONFIG): ':9411' is not an address: write host:port",
        ),
    ],
)
def test_a_fault_names_field_source_and_value(config: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingsError) as refused:
        told(config)
    assert str(refused.value) == INTRODUCTION + fault
    assert refused.value.exit_code == EXIT_SETTINGS


def test_no_name_for_the_cluster_at_all() -> None:
    with pytest.raises(SettingsError) as refused:
        told({"serviceCluster": ""}, service_cluster="")
    assert str(refused.value) == (
        INTRODUCTION + "serviceCluster (from PROXY_CONFIG) is empty: give a name, or set tracingServiceName"
    )


def test_all_faults_come_in_one_error() -> None:
    with pytest.raises(SettingsError) as refused:
        told({"configPath": "", "statusPort": 0, "drainDuration": "1ms", "zipkinAddress": "z"})
    faults = str(refused.value).removeprefix(INTRODUCTION).split("; ")
    assert [fault.split(" ")[0] for fault in faults] == ["configPath", "statusPort", "drainDuration", "zipkinAddress"]


@pytest.mark.parametrize(
    "config",
    [
        {"statusPort": 1, "proxyAdminPort": 65535},
        {"drainDuration": "1s"},
        {"terminationDrainDuration": "0s"},
        {"terminationDrainDuration": "1ms"},
        {"discoveryAddress": "[fd00::1]:15012"},
        {"zipkinAddress": "$(HOST_IP):9411", "statsdUdpAddress": ""},
        {"serviceCluster": "", "tracingServiceName": "CANONICAL_NAME_ONLY"},
        {"concurrency": -1},
    ],
)
def test_what_is_no_fault(config: dict[str, Any]) -> None:
    values = told(config).proxy_config.values
    assert {name: str(values[name]) for name in config if name != "serviceCluster"} == {
        name: str(value).replace("1ms", "0.001s") for name, value in config.items() if name != "serviceCluster"
    }
