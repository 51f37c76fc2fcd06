"""Intercepted traffic in network namespaces of the test's own: what an application connects to goes through Envoy.

The rules are the least that Istio's own do: everything but what Envoy's group sends goes to virtualOutbound, everything
that comes in for the application's port to virtualInbound.
"""

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.support.agents import AgentProcess
from tests.support.applications import Application, application
from tests.support.envoy_binary import envoy_binary
from tests.support.envoy_views import listeners, stats
from tests.support.namespaces import Namespace, connect, missing, namespace
from tests.unit.mesh.declared import service_entry

MakeAgent = Callable[..., AgentProcess]

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

HERE, THERE, VIP = "10.77.0.1", "10.77.0.2", "10.96.0.10"
ENVOYS_GROUP = "1337"
AS_ENVOYS_GROUP = ("setpriv", "--regid", ENVOYS_GROUP, "--clear-groups")


class Pod(NamedTuple):
    """The namespace the agent runs in, another one beside it, and an application in each."""

    agent: AgentProcess
    here: Namespace
    there: Namespace
    here_app: Application
    there_app: Application

    def ask(self, url: str, host: str = "") -> str:
        """As the application would: a plain connection, from inside, of a group that is not Envoy's."""
        return self.here.call(lambda: answer(url, host))

    def stats(self, pattern: str) -> dict[str, int]:
        return self.here.call(lambda: stats(self.agent, pattern))


def answer(url: str, host: str) -> str:
    request = urllib.request.Request(url, headers={"host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as found:
            return str(found.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return str(error.code)


@pytest.fixture
def pod(agent: MakeAgent) -> Iterator[Pod]:
    with ExitStack() as stack:
        here, there = (stack.enter_context(namespace(role)) for role in ("pod", "peer"))
        connect(here, f"{HERE}/24", there, f"{THERE}/24")
        here.run("ip", "route", "add", "default", "via", THERE)
        apps = [
            stack.enter_context(application(name, *where.prefix, host="0.0.0.0"))
            for name, where in (("here", here), ("there", there))
        ]
        running = agent(binary=envoy_binary())
        stack.callback(running.kill)  # before the namespaces go
        running.write_mesh(proxyStatsMatcher={"inclusionPrefixes": ["listener.", "cluster.", "tcp."]})
        running.config_dir.mkdir()
        entry = service_entry("app", port=80, addresses=(VIP,), endpoint=THERE, target=apps[1].port)
        (running.config_dir / "app.yaml").write_text(entry)
        redirect(here, running)
        running.start(*here.prefix, *AS_ENVOYS_GROUP)
        here.call(running.until_ready)
        yield Pod(running, here, there, *apps)
        assert running.stop() == 0
        assert running.left_behind() == []


def redirect(where: Namespace, running: AgentProcess) -> None:
    def rule(chain: str, *words: str) -> None:
        where.run("iptables", "-w", "-t", "nat", "-A", chain, "-p", "tcp", *words)

    rule("OUTPUT", "-m", "owner", "--gid-owner", ENVOYS_GROUP, "-j", "RETURN")
    rule("OUTPUT", "-d", "127.0.0.0/8", "-j", "RETURN")
    rule("OUTPUT", "-j", "REDIRECT", "--to-ports", str(running.ports.outbound))
    rule("PREROUTING", "-d", HERE, "-j", "REDIRECT", "--to-ports", str(running.ports.inbound))


def test_a_virtual_address_leads_through_its_listener_to_the_endpoint(pod: Pod) -> None:
    assert "0.0.0.0_80" in pod.here.call(lambda: listeners(pod.agent))
    assert pod.ask(f"http://{VIP}/") == "there"
    assert pod.ask(f"http://{VIP}/peer") == HERE, "Envoy connects, from the pod's own address"
    assert pod.stats("listener.0.0.0.0_80.downstream_cx_total")["listener.0.0.0.0_80.downstream_cx_total"] == 2
    cluster = "cluster.outbound|80||app.example.com;.upstream_rq_total"
    assert pod.stats("upstream_rq_total")[cluster] == 2
    assert pod.ask("http://10.96.0.99/", host="app.example.com") == "there", "the host decides, whatever the address"


def test_an_unknown_destination_passes_through(pod: Pod) -> None:
    url = f"http://{THERE}:{pod.there_app.port}/"
    assert pod.ask(url) == "there"
    assert pod.stats("PassthroughCluster.*upstream_cx_total") == {"cluster.PassthroughCluster;.upstream_cx_total": 1}


def test_inbound_traffic_reaches_the_application_from_127_0_0_6(pod: Pod) -> None:
    url = f"http://{HERE}:{pod.here_app.port}/"
    assert pod.there.call(lambda: answer(url, "")) == "here"
    assert pod.there.call(lambda: answer(f"{url}peer", "")) == "127.0.0.6"
    counted = pod.stats("PassthroughCluster.*upstream_rq_total")
    assert counted["cluster.InboundPassthroughClusterIpv4;.upstream_rq_total"] == 2


def test_a_connection_to_envoys_own_port_goes_nowhere(pod: Pod) -> None:
    for port in (pod.agent.ports.outbound, pod.agent.ports.inbound):
        with pytest.raises(OSError):
            pod.ask(f"http://127.0.0.1:{port}/")
    assert pod.ask(f"http://{VIP}/") == "there"
