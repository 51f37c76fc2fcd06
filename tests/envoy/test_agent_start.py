"""The agent with a real Envoy from start to stop: ready through Envoy, three sources in one scrape, nothing left."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.agents import AgentProcess
from tests.support.applications import Application, application
from tests.support.envoy_binary import envoy_binary
from tests.support.envoy_views import chain_clusters, clusters, listeners, live_listener
from tests.support.eventually import eventually

MakeAgent = Callable[..., AgentProcess]


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as running:
        yield running


def annotations(*apps: Application, path: str = "/metrics") -> dict[str, str]:
    targets = [{"port": str(app.port), "path": path} for app in apps]
    return {"ISTIO_PROMETHEUS_ANNOTATIONS": json.dumps({"scrape": "true", "targets": targets})}


def test_ready_through_envoy_and_three_sources_in_one_scrape(agent: MakeAgent, app: Application) -> None:
    running = agent(binary=envoy_binary(), env=annotations(app)).start().until_ready()
    eventually(lambda: running.fetch("/healthz/ready", port=running.ports.ready)[0] == 200)
    eventually(lambda: "app_requests_total 7" in running.fetch("/metrics")[1])
    status, body = running.fetch("/metrics")
    assert status == 200
    samples = [line.partition(" ")[0] for line in body.splitlines() if not line.startswith("#")]
    assert "istio_agent_ready" in samples
    assert any(name.startswith("envoy_server_live") for name in samples)
    assert "app_requests_total" in samples
    assert running.fetch("/stats/prometheus")[1].count("\napp_requests_total 7\n") == 1
    assert running.stop() == 0
    assert running.left_behind() == [] and running.errors == ""


def test_an_empty_directory_gives_the_virtual_listeners_on_the_configured_ports(agent: MakeAgent) -> None:
    running = agent(binary=envoy_binary()).start().until_ready()
    ports = running.ports
    assert listeners(running) == {
        "virtualOutbound": ports.outbound,
        "virtualInbound": ports.inbound,
        f"0.0.0.0_{ports.ready}": ports.ready,
        f"0.0.0.0_{ports.prometheus}": ports.prometheus,
    }
    local = {"BlackHoleCluster", "PassthroughCluster", "InboundPassthroughClusterIpv4"}
    assert clusters(running) == local | {"agent", "prometheus_stats"}
    outbound = live_listener(running, "virtualOutbound")
    assert outbound["use_original_dst"] is True
    assert chain_clusters(outbound) == {
        "virtualOutbound-blackhole": "BlackHoleCluster",
        "virtualOutbound-catchall-tcp": "PassthroughCluster",
    }
    inbound = live_listener(running, "virtualInbound")
    assert chain_clusters(inbound) == {
        "virtualInbound-blackhole": "BlackHoleCluster",
        "virtualInbound": "InboundPassthroughClusterIpv4",
    }
    assert inbound["listener_filters"][0]["name"] == "envoy.filters.listener.original_dst"
    assert running.stop() == 0


def test_ten_overlapping_scrapes_that_accept_anything(agent: MakeAgent, app: Application) -> None:
    running = agent(binary=envoy_binary(), env=annotations(app, path="/metrics/held")).start().until_ready()
    with ThreadPoolExecutor(10) as scrapers:
        answers = [scrapers.submit(running.fetch, "/metrics", timeout=30, Accept="*/*") for _ in range(10)]
        try:
            eventually(lambda: app.ask("/waiting") == "10")
        finally:
            app.ask("/release")
        for answer in answers:
            status, body = answer.result()
            assert status == 200
            assert all(name in body for name in ("istio_agent_ready", "envoy_server_live", "app_requests_total 7"))
    assert running.stop() == 0


def test_a_slow_application_does_not_cost_envoys_metrics(agent: MakeAgent, app: Application) -> None:
    running = agent(binary=envoy_binary(), env=annotations(app, path="/metrics/never")).start().until_ready()
    headers: dict[str, Any] = {"X-Prometheus-Scrape-Timeout-Seconds": "1"}
    status, body = running.fetch("/metrics", timeout=30, **headers)
    assert status == 200
    assert "envoy_server_live" in body and "istio_agent_ready 1" in body
    assert "app_requests_total" not in body
    assert 'istio_agent_scrape_failures_total{type="application"} 1.0' in body
    assert "istio_agent_scrape_source_up" in body
    assert running.stop() == 0


def test_two_agents_on_one_machine_do_not_disturb_each_other(agent: MakeAgent) -> None:
    one, other = (agent(binary=envoy_binary()).start() for _ in range(2))
    one.until_ready()
    other.until_ready()
    untouched = other.envoys()
    answers: list[int] = []
    is_over = threading.Event()

    def ask_the_other() -> None:
        while not is_over.is_set():
            answers.append(other.fetch("/healthz/ready", port=other.ports.ready)[0])

    asking = threading.Thread(target=ask_the_other)
    asking.start()
    try:
        for generation in (1, 2):
            one.write_mesh(concurrency=generation)
            eventually(lambda wanted=generation: len(one.lines("has taken over")) == wanted, within=15)  # type: ignore[misc]
    finally:
        is_over.set()
        asking.join()
    assert answers and set(answers) == {200}
    assert other.envoys() == untouched
    assert one.stop() == 0
    assert other.is_ready(), "the end of one takes away its own shared memory only"
    other.write_mesh(concurrency=1)
    eventually(lambda: other.lines("has taken over"), within=15)
    assert other.stop() == 0
