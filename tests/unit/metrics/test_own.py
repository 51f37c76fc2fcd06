import re

from pilot_agent.metrics.account import ScrapeAccount, SourceAccount
from pilot_agent.metrics.own import AgentFacts, EnvoyExit, OwnMetrics


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
