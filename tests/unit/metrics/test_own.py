import re

from pilot_agent.metrics.account import ScrapeAccount, SourceAccount
from pilot_agent.metrics.catalogue import METRICS
from pilot_agent.metrics.own import AgentFacts, EnvoyExit, Histogram, OwnMetrics


def rendered(facts: AgentFacts, account: ScrapeAccount | None = None) -> str:
    return OwnMetrics(lambda: facts, account or ScrapeAccount()).render().decode()


def samples(text: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_counts_are_there_from_the_start() -> None:
    text = rendered(AgentFacts(envoy_restarts={"crash": 0, "hung": 0}))
    found = {name: value for name, value in samples(text).items() if name.startswith("istio_agent_")}
    assert found == {
        "istio_agent_scrapes_total": 0,
        'istio_agent_scrape_failures_total{type="envoy"}': 0,
        'istio_agent_scrape_failures_total{type="application"}': 0,
        'istio_agent_scrape_failures_total{type="agent"}': 0,
        "istio_agent_scrapes_in_flight": 0,
        "istio_agent_scrapes_refused_total": 0,
        "istio_agent_ready": 0,
        "istio_agent_envoy_epoch": 0,
        'istio_agent_envoy_restarts_total{reason="crash"}': 0,
        'istio_agent_envoy_restarts_total{reason="hung"}': 0,
        "istio_agent_envoy_hung_checks_total": 0,
        "istio_agent_reaped_orphans_total": 0,
        'istio_agent_config_reloads_total{result="accepted"}': 0,
        'istio_agent_config_reloads_total{result="refused"}': 0,
    }


def test_facts_become_samples() -> None:
    facts = AgentFacts(
        is_ready=True,
        startup_seconds=0.25,
        start_phase_seconds={"spawned": 0.125},
        envoy_epoch=2,
        envoy_restarts={"crash": 3},
        envoy_last_exit=EnvoyExit(137, "SIGKILL", "crash"),
        envoy_hung_checks=4,
        reaped_orphans=5,
        broken_files=('/etc/"a".yaml',),
        config_reloads_accepted=6,
        config_reloads_refused=7,
    )
    sources = [SourceAccount("Envoy", "envoy", failures=8), *(SourceAccount("x", "application", 1) for _ in range(2))]
    found = samples(rendered(facts, ScrapeAccount(9, 10, sources)))
    for name, value in {
        "istio_agent_ready": 1,
        "istio_agent_startup_duration_seconds": 0.25,
        'istio_agent_start_phase_seconds{phase="spawned"}': 0.125,
        "istio_agent_envoy_epoch": 2,
        'istio_agent_envoy_restarts_total{reason="crash"}': 3,
        'istio_agent_envoy_last_exit_info{code="137",reason="crash",signal="SIGKILL"}': 1,
        "istio_agent_envoy_last_exit_code": 137,
        "istio_agent_envoy_hung_checks_total": 4,
        "istio_agent_reaped_orphans_total": 5,
        'istio_agent_config_errors{file="/etc/\\"a\\".yaml"}': 1,
        'istio_agent_config_reloads_total{result="accepted"}': 6,
        'istio_agent_config_reloads_total{result="refused"}': 7,
        "istio_agent_scrapes_total": 9,
        'istio_agent_scrape_failures_total{type="agent"}': 10,
        'istio_agent_scrape_failures_total{type="envoy"}': 8,
        'istio_agent_scrape_failures_total{type="application"}': 2,
    }.items():
        assert found.get(name, found.get(_sorted_otherwise(name))) == value, name


def _sorted_otherwise(name: str) -> str:
    """The labels of an info in the order in which they were declared."""
    return re.sub(r'\{code="(\d+)",reason="(\w+)",signal="(\w+)"\}', r'{code="\1",signal="\3",reason="\2"}', name)


def test_the_process_and_python_are_described_without_a_prefix() -> None:
    found = samples(rendered(AgentFacts()))
    assert found["process_resident_memory_bytes"] > 0
    assert found["process_open_fds"] > 0
    assert any(name.startswith("python_info{") for name in found)


def test_every_family_is_described_once() -> None:
    text = rendered(AgentFacts())
    names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(names) == len(set(names))
    assert text.endswith("\n")
    assert "# EOF" not in text


CSR_COUNTERS = "num_outgoing_requests num_failed_outgoing_requests num_outgoing_retries outgoing_latency".split()

ALL = AgentFacts(
    startup_seconds=1.0,
    start_phase_seconds={"ready": 1.0},
    envoy_restarts={"crash": 1},
    envoy_last_exit=EnvoyExit(137, "SIGKILL", "crash"),
    broken_files=("a.yaml",),
    identity={
        **{name: {"csr": 1} for name in CSR_COUNTERS},
        "cert_expiry_seconds": {"default": 3600.0},
        "cert_not_after_timestamp_seconds": {"default": 2e9},
        "cert_renewals_total": 1,
        "cert_failures_total": {"ca_timeout": 1},
        "cert_file_changes_total": 1,
        "cert_files_checked_seconds": 0.5,
        "token_expiry_seconds": 60,
        "num_file_watcher_failures_total": 0,
        "num_file_secret_failures_total": 0,
        "sds_streams": 2,
        "sds_pushes_total": 3,
        "pilot_xds_recv_max": 100,
        "pilot_total_xds_rejects": 0,
        "pilot_xds_expired_nonce": {"Secret": 1},
        "pilot_xds_write_timeout": 0,
        "pilot_total_xds_internal_errors": 0,
        "pilot_xds_send_time": Histogram((0.01, 0.1), (1, 2, 3), 1.5),
    },
    xds={
        "xds_proxy_requests": 1,
        "xds_proxy_responses": 2,
        "istiod_connection_failures": 3,
        "istiod_connection_terminations": {"error": 4},
        "envoy_connection_terminations": {"cancelled": 5},
        "xds_left_out_total": {"telemetry": 6},
    },
)


def test_the_table_and_the_families_are_the_same() -> None:
    sources = [SourceAccount("Envoy", "envoy", scrapes=1, last_error="timed out", label="envoy")]
    text = rendered(ALL, ScrapeAccount(sources=sources))
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)", text, re.MULTILINE))
    assert kinds == {entry.name: entry.kind for entry in METRICS if entry.is_used}
    for entry in METRICS:
        if entry.is_used and entry.kind != "histogram":
            labels = re.search(rf"^{entry.name}(?:\{{(.*)\}})? ", text, re.MULTILINE)
            assert labels is not None, entry.name
            assert sorted(re.findall(r'(\w+)="', labels[1] or "")) == sorted(entry.labels), entry.name
    assert len({entry.name for entry in METRICS}) == len(METRICS)


def test_sources_are_told_apart() -> None:
    sources = [
        SourceAccount("Envoy", "envoy", label="envoy", scrapes=3, seconds=0.5, bytes=10),
        SourceAccount("app", "application", 2, "timed out", "timed out " * 100, label="application:1/m", scrapes=2),
        SourceAccount("new", "application", label="application:2/m"),
    ]
    found = samples(rendered(AgentFacts(), ScrapeAccount(sources=sources)))
    assert found['istio_agent_scrape_source_up{source="envoy"}'] == 1
    assert found['istio_agent_scrape_source_up{source="application:1/m"}'] == 0
    assert 'istio_agent_scrape_source_up{source="application:2/m"}' not in found, "neither up nor down yet"
    assert found['istio_agent_scrape_source_duration_seconds{source="envoy"}'] == 0.5
    assert found['istio_agent_scrape_source_bytes{source="envoy"}'] == 10
    assert found['istio_agent_scrape_source_failures_total{source="application:1/m"}'] == 2
    errors = [name for name in found if "last_error_info" in name]
    assert len(errors) == 1 and len(errors[0]) < 300


def test_istios_names_of_counters_get_nothing_behind_them() -> None:
    text = rendered(ALL)
    assert "# TYPE istio_agent_num_outgoing_requests counter\n" in text
    assert 'istio_agent_num_outgoing_requests{request_type="csr"} 1.0\n' in text
    assert "istio_agent_pilot_total_xds_rejects 0.0\n" in text


def test_a_histogram_adds_up() -> None:
    found = samples(rendered(ALL))
    name = "istio_agent_pilot_xds_send_time"
    assert [found[f'{name}_bucket{{le="{bound}"}}'] for bound in ("0.01", "0.1", "+Inf")] == [1, 3, 6]
    assert (found[f"{name}_count"], found[f"{name}_sum"]) == (6, 1.5)


def test_in_openmetrics_a_counter_without_total_is_of_an_unknown_type() -> None:
    text = OwnMetrics(lambda: ALL, ScrapeAccount()).render_facts(is_openmetrics=True).decode()
    assert "# TYPE istio_agent_num_outgoing_requests unknown\n" in text
