"""Tracers, metrics and access-log services: whose address, which certificates, what is only a warning."""

from typing import Any

import pytest

from pilot_agent.errors import SettingsError
from tests.unit.bootstrap.documents import built, context, node_of, rendered
from tests.unit.settings.told import told

SDS = {
    "api_config_source": {
        "api_type": "GRPC",
        "set_node_on_first_message_only": True,
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
    },
    "resource_api_version": "V3",
}


def cluster(document: Any, name: str) -> Any:
    return next((each for each in document["static_resources"]["clusters"] if each["name"] == name), None)


def socket(tls: dict[str, Any], **settings: Any) -> Any:
    """The TLS context of a metrics service with these tlsSettings."""
    found = cluster(
        rendered({"envoyMetricsService": {"address": "m:1", "tlsSettings": tls}}, **settings), "envoy_metrics_service"
    )
    transport = found.get("transport_socket")
    return transport and transport["typed_config"]


def warnings_of(config: dict[str, Any], **settings: Any) -> tuple[str, ...]:
    said = told(config, **settings)
    return built(said, node_of(said)).warnings


def test_a_service_without_an_address_is_none() -> None:
    assert cluster(rendered({"envoyMetricsService": {}}), "envoy_metrics_service") is None


@pytest.mark.parametrize("name", ["zipkin", "datadog"])
@pytest.mark.parametrize(
    ("host_ip", "host"), [("10.1.1.1", "10.1.1.1"), ("fd00::7", "fd00::7"), ("[fd00::7]", "fd00::7")]
)
def test_the_hosts_address_stands_for_its_name(name: str, host_ip: str, host: str) -> None:
    found = context({"tracing": {name: {"address": "$(HOST_IP):9411"}}}, env={"HOST_IP": host_ip})
    assert found[name] == {"host": host, "port": 9411}


def test_without_the_variable_it_stays_and_a_warning_says_so() -> None:
    config = {"tracing": {"zipkin": {"address": "$(HOST_IP):9411"}}}
    assert context(config)["zipkin"] == {"host": "$(HOST_IP)", "port": 9411}
    assert any("needs the variable HOST_IP" in warning for warning in warnings_of(config))


def test_brackets_of_an_ipv6_address_are_dropped() -> None:
    found = cluster(rendered({"tracing": {"zipkin": {"address": "[fd00::1]:9411"}}}), "zipkin")
    where = found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    assert where == {"protocol": "TCP", "address": "fd00::1", "port_value": 9411}


def test_disabled_tls_is_no_tls() -> None:
    assert socket({"mode": "DISABLE", "caCertificates": "/ca"}) is None


def test_simple_tls_checks_the_server_by_a_root_over_sds() -> None:
    found = socket({"mode": "SIMPLE", "caCertificates": "/ca.pem", "subjectAltNames": ["a", "b"], "sni": "s"})
    assert found["sni"] == "s"
    assert found["common_tls_context"] == {
        "alpn_protocols": ["h2"],
        "combined_validation_context": {
            "default_validation_context": {"match_subject_alt_names": [{"exact": "a"}, {"exact": "b"}]},
            "validation_context_sds_secret_config": {"name": "file-root:/ca.pem", "sds_config": SDS},
        },
    }


def test_without_a_root_nothing_is_verified_and_a_warning_says_so() -> None:
    tls = {"mode": "SIMPLE", "subjectAltNames": ["a"]}
    assert socket(tls)["common_tls_context"] == {"alpn_protocols": ["h2"]}
    config = {"envoyMetricsService": {"address": "m:1", "tlsSettings": tls}}
    assert any("is not verified" in warning for warning in warnings_of(config))


def test_mutual_tls_shows_a_certificate_over_sds() -> None:
    tls = {"mode": "MUTUAL", "clientCertificate": "/c", "privateKey": "/k", "caCertificates": "/r"}
    found = socket(tls)["common_tls_context"]
    assert found["tls_certificate_sds_secret_configs"] == [{"name": "file-cert:/c~/k", "sds_config": SDS}]
    assert found["combined_validation_context"]["validation_context_sds_secret_config"]["name"] == "file-root:/r"


def test_node_metadata_overrides_the_files() -> None:
    env = {f"ISTIO_META_TLS_CLIENT_{name}": f"/m/{name}" for name in ("CERT_CHAIN", "KEY", "ROOT_CERT")}
    tls = {"mode": "MUTUAL", "clientCertificate": "/c", "privateKey": "/k", "caCertificates": "/r"}
    found = socket(tls, env=env)["common_tls_context"]
    assert found["tls_certificate_sds_secret_configs"][0]["name"] == "file-cert:/m/CERT_CHAIN~/m/KEY"
    validation = found["combined_validation_context"]["validation_context_sds_secret_config"]
    assert validation["name"] == "file-root:/m/ROOT_CERT"


def test_istio_mutual_uses_the_workloads_own_certificate() -> None:
    found = socket({"mode": "ISTIO_MUTUAL", "subjectAltNames": ["spiffe://x"]})
    waited = {**SDS, "initial_fetch_timeout": "0s"}
    assert found["sni"] == "envoy_metrics_service"
    assert found["common_tls_context"] == {
        "alpn_protocols": ["istio", "h2"],
        "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": waited}],
        "combined_validation_context": {
            "default_validation_context": {"match_subject_alt_names": [{"exact": "spiffe://x"}]},
            "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": waited},
        },
    }


@pytest.mark.parametrize(("name", "alpn"), [("zipkin", []), ("datadog", []), ("lightstep", ["istio", "h2"])])
def test_only_lightstep_is_called_over_http2(name: str, alpn: list[str]) -> None:
    tracer = {"address": "t:1", **({"accessToken": "x"} if name == "lightstep" else {})}
    found = context({"tracing": {name: tracer, "tlsSettings": {"mode": "ISTIO_MUTUAL"}}})["tracing_tls"]
    assert (found["sni"], found["alpn"]) == ("tracer", alpn)


def test_in_local_mode_envoy_reads_the_files_itself() -> None:
    tls = {"mode": "MUTUAL", "clientCertificate": "/c", "privateKey": "/k", "caCertificates": "/r"}
    found = socket(tls, config_dir="mesh")["common_tls_context"]
    assert found == {
        "alpn_protocols": ["h2"],
        "tls_certificates": [{"certificate_chain": {"filename": "/c"}, "private_key": {"filename": "/k"}}],
        "validation_context": {"trusted_ca": {"filename": "/r"}},
    }


def test_local_mode_has_no_certificate_of_the_mesh() -> None:
    with pytest.raises(SettingsError, match=r"envoyMetricsService\.tlsSettings\.mode: ISTIO_MUTUAL.*use MUTUAL"):
        socket({"mode": "ISTIO_MUTUAL"}, config_dir="mesh")


@pytest.mark.parametrize(
    ("keepalive", "shown"),
    [
        (
            {"probes": 3, "time": "10s", "interval": "1m"},
            {"keepalive_probes": 3, "keepalive_time": 10, "keepalive_interval": 60},
        ),
        ({"probes": 0, "time": "0s"}, None),
        ({"time": "7s"}, {"keepalive_time": 7}),
    ],
)
def test_keepalive_fields_above_zero(keepalive: dict[str, Any], shown: dict[str, int] | None) -> None:
    document = rendered({"envoyAccessLogService": {"address": "a:1", "tcpKeepalive": keepalive}})
    options = cluster(document, "envoy_accesslog_service").get("upstream_connection_options")
    assert options == (None if shown is None else {"tcp_keepalive": shown})


def test_a_metrics_service_and_statsd_are_sinks_in_that_order() -> None:
    both = {"envoyMetricsService": {"address": "m:1"}, "statsdUdpAddress": "10.0.0.1:8125"}
    assert [sink["name"].rpartition(".")[2] for sink in rendered(both)["stats_sinks"]] == ["metrics_service", "statsd"]
    assert len(rendered({"envoyMetricsService": {"address": "m:1"}})["stats_sinks"]) == 1
    assert len(rendered({"statsdUdpAddress": "10.0.0.1:8125"})["stats_sinks"]) == 1
    assert "stats_sinks" not in rendered()
