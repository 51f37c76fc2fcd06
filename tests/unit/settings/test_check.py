"""What makes a ProxyConfig unusable: each fault by field, value and source, and all of them at once."""

from typing import Any

import pytest

from pilot_agent.errors import EXIT_SETTINGS, SettingsError
from tests.unit.settings.told import told

INTRODUCTION = "failed to get proxy config: "


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"configPath": ""}, "configPath (from PROXY_CONFIG) is empty: give a directory, or leave it out"),
        (
            {"binaryPath": ""},
            "binaryPath (from PROXY_CONFIG) is empty: give Envoy's binary, or leave it out",
        ),
        ({"statusPort": 0}, "statusPort (from PROXY_CONFIG): 0 is not a port: ports go from 1 to 65535"),
        ({"statusPort": 65536}, "statusPort (from PROXY_CONFIG): 65536 is not a port: ports go from 1 to 65535"),
        ({"proxyAdminPort": -1}, "proxyAdminPort (from PROXY_CONFIG): -1 is not a port: ports go from 1 to 65535"),
        ({"drainDuration": "0s"}, "drainDuration (from PROXY_CONFIG): 0s must be at least 1s and whole seconds"),
        ({"drainDuration": "1500ms"}, "drainDuration (from PROXY_CONFIG): 1.5s must be at least 1s and whole seconds"),
        ({"drainDuration": "-5s"}, "drainDuration (from PROXY_CONFIG): -5s must be at least 1s and whole seconds"),
        (
            {"discoveryAddress": ""},
            "discoveryAddress (from PROXY_CONFIG) is empty: give istiod's host:port, or leave it out",
        ),
        (
            {"fileFlushInterval": "-1s"},
            "fileFlushInterval (from PROXY_CONFIG): -1s is negative: give 1s, say",
        ),
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


METRICS = {"address": "m:1"}


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (
            {"discoveryAddress": "not_a host:15012"},
            "discoveryAddress (from PROXY_CONFIG): 'not_a host:15012': 'not_a host' is neither an IP address nor a DNS",
        ),
        (
            {"discoveryAddress": "[fd00::zz]:1"},
            "discoveryAddress (from PROXY_CONFIG): '[fd00::zz]:1': 'fd00::zz' is",
        ),
        (
            {"discoveryAddress": "$(HOST_IP):1"},
            "discoveryAddress (from PROXY_CONFIG): '$(HOST_IP):1': '$(HOST_IP)' is nei",
        ),
        (
            {"statsdUdpAddress": "$(HOST_IP):1"},
            "statsdUdpAddress (from PROXY_CONFIG): '$(HOST_IP):1': '$(HOST_IP)' is nei",
        ),
        (
            {"envoyMetricsService": {"address": "m"}},
            "envoyMetricsService.address (from PROXY_CONFIG): 'm' is not an addr",
        ),
        (
            {"envoyAccessLogService": {"address": "m:0"}},
            "envoyAccessLogService.address (from PROXY_CONFIG): 0 is not a port",
        ),
        ({"tracing": {"zipkin": {}}}, "tracing.zipkin.address (from PROXY_CONFIG) is empty: give the collector's host"),
        (
            {"tracing": {"datadog": {"address": "d:x"}}},
            "tracing.datadog.address (from PROXY_CONFIG): 'x' is not a port",
        ),
        (
            {"tracing": {"lightstep": {"address": "$(HOST_IP):1", "accessToken": "t"}}},
            "tracing.lightstep.address (from PROXY_CONFIG): '$(HOST_IP):1': '$(HOST_IP)' is neither",
        ),
        (
            {"tracing": {"lightstep": {"address": "l:1"}}},
            "tracing.lightstep.accessToken (from PROXY_CONFIG) is empty: Lightstep takes no spans without one",
        ),
        (
            {"tracing": {"tlsSettings": {"mode": "MUTUAL", "privateKey": "/k"}}},
            "tracing.tlsSettings.clientCertificate (from PROXY_CONFIG) is empty: mode MUTUAL shows a certificate",
        ),
        (
            {"envoyMetricsService": {**METRICS, "tlsSettings": {"mode": "MUTUAL", "clientCertificate": "/c"}}},
            "envoyMetricsService.tlsSettings.privateKey (from PROXY_CONFIG) is empty: mode MUTUAL",
        ),
        (
            {"tracing": {"tlsSettings": {"insecureSkipVerify": True, "caCertificates": "/ca"}}},
            "tracing.tlsSettings.caCertificates (from PROXY_CONFIG): '/ca' contradicts insecureSkipVerify",
        ),
        (
            {
                "envoyAccessLogService": {
                    **METRICS,
                    "tlsSettings": {"insecureSkipVerify": True, "subjectAltNames": ["a"]},
                }
            },
            "envoyAccessLogService.tlsSettings.subjectAltNames (from PROXY_CONFIG): ['a'] contradicts",
        ),
        (
            {"privateKeyProvider": {"cryptomb": {}}},
            "privateKeyProvider.cryptomb.pollDelay (from PROXY_CONFIG) is empty or not above 0",
        ),
        (
            {"privateKeyProvider": {"qat": {"pollDelay": "0s"}}},
            "privateKeyProvider.qat.pollDelay (from PROXY_CONFIG) is empty or not above 0: give a delay such as 10ms",
        ),
        (
            {"connectionSettings": {"globalDownstreamConnectionLimit": 0}},
            "connectionSettings.globalDownstreamConnectionLimit (from PROXY_CONFIG): 0 is too small: the least is 1",
        ),
        (
            {"connectionSettings": {"http2InitialStreamWindowSize": 65534}},
            "connectionSettings.http2InitialStreamWindowSize (from PROXY_CONFIG): 65534 is too small: the least is 65",
        ),
        (
            {"connectionSettings": {"httpIdleTimeout": "-1s"}},
            "connectionSettings.httpIdleTimeout (from PROXY_CONFIG): -1s is negative",
        ),
    ],
)
def test_a_nested_fault_names_its_whole_path(config: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingsError) as refused:
        told(config)
    assert str(refused.value).startswith(INTRODUCTION + fault)
    assert "; " not in str(refused.value).removeprefix(INTRODUCTION), "one fault, told once"


@pytest.mark.parametrize("name", ["zipkin", "datadog"])
def test_the_hosts_own_address_may_be_a_tracer_s(name: str) -> None:
    told({"tracing": {name: {"address": "$(HOST_IP):9411"}}})


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
