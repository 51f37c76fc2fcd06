"""Kubelet's rewritten probes through a real agent to a real application."""

import json
import socket
from collections.abc import Callable

from tests.support.agents import AgentProcess
from tests.support.applications import application
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.ports import free_port

MakeAgent = Callable[..., AgentProcess]


def test_probes_reach_the_application_and_what_is_not_configured_is_told(agent: MakeAgent) -> None:
    with application("web") as app:
        probers = {
            "/app-health/web/readyz": {"httpGet": {"path": "/peer", "port": app.port}, "timeoutSeconds": 2},
            "/app-health/web/livez": {"tcpSocket": {"port": app.port}},
            "/app-health/web/startupz": {"tcpSocket": {"port": free_port()}},
            "/app-lifecycle/web/prestopz": {"httpGet": {"path": "bye", "port": app.port}},
        }
        env = {"ISTIO_KUBE_APP_PROBERS": json.dumps(probers), "REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION": "true"}
        running = agent(binary=envoy_binary(), env=env).start().until_ready()
        assert running.fetch("/app-health/web/readyz") == (200, "127.0.0.6"), "from where traffic rules let it pass"
        assert running.fetch("/app-health/web/readyz?x=1")[0] == 200
        assert running.fetch("/app-health/web/livez") == (200, "")
        assert running.fetch("/app-health/web/startupz") == (500, "")
        assert running.fetch("/app-lifecycle/web/prestopz") == (200, "web")
        status, text = running.fetch("/app-health/other/readyz")
        assert status == 400
        assert "/app-health/other/readyz" in text
        warnings = running.lines("timeoutSeconds")
        assert len(warnings) == 2, "a lifecycle handler never has a time limit"
        assert running.stop() == 0


def test_a_mistake_in_the_variable_ends_the_start(agent: MakeAgent) -> None:
    text = '{"/app-health/web/readyz": {"httpGet": {"port": "http"}}}'
    running = agent(binary=envoy_binary(), env={"ISTIO_KUBE_APP_PROBERS": text}).start()
    assert running.wait() == 255
    assert "ISTIO_KUBE_APP_PROBERS" in running.errors
    assert "/app-health/web/readyz" in running.errors
    assert len(running.errors.splitlines()) == 1
    assert running.left_behind() == []


def test_the_health_of_a_virtual_machines_workload_is_told_in_the_log(agent: MakeAgent) -> None:
    port = free_port()
    running = agent(binary=envoy_binary())
    running.write_mesh(readinessProbe={"periodSeconds": 1, "tcpSocket": {"host": "127.0.0.1", "port": port}})
    running.start().until_ready()
    eventually(lambda: running.lines("the workload is unhealthy: "))
    with socket.create_server(("127.0.0.1", port)):
        eventually(lambda: running.lines("the workload is healthy"))
    assert running.is_ready(), "the proxy is; its workload is another matter"
    assert running.stop() == 0


def test_a_readiness_probe_of_nothing_ends_the_start(agent: MakeAgent) -> None:
    running = agent(binary=envoy_binary())
    running.write_mesh(readinessProbe={"periodSeconds": 1})
    running.start()
    assert running.wait() == 255
    assert "readinessProbe" in running.errors
    assert len(running.errors.splitlines()) == 1
