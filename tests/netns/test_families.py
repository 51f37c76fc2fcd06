"""Address families with a real Envoy: a pod that has IPv6 only, one that has both, in namespaces of the test's own."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest

from tests.support.agents import AgentProcess
from tests.support.applications import Application, application
from tests.support.envoy_binary import envoy_binary
from tests.support.envoy_views import stats, view
from tests.support.namespaces import Namespace, add_address, connect, missing, namespace
from tests.unit.mesh.declared import service_entry

MakeAgent = Callable[..., AgentProcess]

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

V4, V6 = ("10.78.0.1", "10.78.0.2"), ("fd00:78::1", "fd00:78::2")
VIP = "fd00:96::10"
AS_ENVOYS_GROUP = ("setpriv", "--regid", "1337", "--clear-groups")


class Pod(NamedTuple):
    agent: AgentProcess
    here: Namespace
    there: Namespace
    there_app: Application

    def ask(self, url: str) -> str:
        def fetch() -> str:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())

        return self.here.call(fetch)

    def fetch(self, path: str, port: int, host: str) -> tuple[int, str]:
        def ask() -> tuple[int, str]:
            self.agent.host = host
            return self.agent.fetch(path, port=port)

        return self.here.call(ask)

    def bound(self, port: int) -> set[str]:
        """Local addresses on which `port` is listened on."""
        lines = self.here.run("ss", "-ltnH").splitlines()
        found = {line.split()[3].rpartition(":") for line in lines}
        return {address for address, _, number in found if int(number) == port}

    def bootstrap(self) -> Any:
        return json.loads((self.agent.config_path / "envoy-rev.json").read_text())


@contextmanager
def pod(make: MakeAgent, families: tuple[tuple[str, str], ...], host: str, **env: str) -> Iterator[Pod]:
    """A pod with the addresses `families` and a peer; an application listens at the peer's IPv6 address."""
    with ExitStack() as stack:
        here, there = (stack.enter_context(namespace(role)) for role in ("pod", "peer"))
        ends = [tuple(f"{end}/{64 if ':' in end else 24}" for end in family) for family in families]
        connect(here, ends[0][0], there, ends[0][1])
        for near, far in ends[1:]:
            add_address(here, near)
            add_address(there, far)
        here.run("ip", "-6", "route", "add", "default", "via", V6[1])
        app = stack.enter_context(application("there", *there.prefix, host="::"))
        running = make(binary=envoy_binary(), env={"POD_NAME": "p", "POD_NAMESPACE": "n", **env})
        stack.callback(running.kill)  # before the namespaces go
        running.host = host
        running.write_mesh(proxyStatsMatcher={"inclusionPrefixes": ["listener.", "cluster."]})
        running.config_dir.mkdir()
        entry = service_entry("app", port=80, addresses=(f'"{VIP}"',), endpoint=f'"{V6[1]}"', target=app.port)
        (running.config_dir / "app.yaml").write_text(entry)
        running.start(*here.prefix, *AS_ENVOYS_GROUP)
        here.call(running.until_ready)
        yield Pod(running, here, there, app)
        assert running.stop() == 0
        assert running.left_behind() == []


@pytest.fixture
def v6_pod(agent: MakeAgent) -> Iterator[Pod]:
    with pod(agent, (V6,), "[::1]") as made:
        yield made


def redirect(pod: Pod) -> None:
    """Everything but what Envoy's group sends goes to virtualOutbound."""
    for words in (
        ("-m", "owner", "--gid-owner", "1337", "-j", "RETURN"),
        ("-d", "::1/128", "-j", "RETURN"),
        ("-j", "REDIRECT", "--to-ports", str(pod.agent.ports.outbound)),
    ):
        pod.here.run("ip6tables", "-w", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", *words)


def test_a_pod_with_ipv6_only(v6_pod: Pod) -> None:
    ports = v6_pod.agent.ports
    assert v6_pod.bootstrap()["node"]["id"] == f"sidecar~{V6[0]}~p.n~n.svc.cluster.local"
    assert v6_pod.bound(ports.admin) == {"[::1]"}
    for port in (ports.ready, ports.prometheus, ports.outbound, ports.inbound):
        assert v6_pod.bound(port) == {"[::]"}, port
    assert v6_pod.fetch("/healthz/ready", ports.ready, "[::1]")[0] == 200
    status, merged = v6_pod.fetch("/stats/prometheus", ports.status, "[::1]")
    assert status == 200
    assert "envoy_server_live" in merged
    assert "istio_agent_" in merged


def test_ipv6_traffic_leads_through_envoy_to_the_endpoint(v6_pod: Pod) -> None:
    redirect(v6_pod)
    assert v6_pod.ask(f"http://[{VIP}]/") == "there"
    assert v6_pod.ask(f"http://[{VIP}]/peer").removeprefix("::ffff:") == V6[0]
    cluster = "cluster.outbound|80||app.example.com;.upstream_rq_total"
    assert v6_pod.here.call(lambda: stats(v6_pod.agent, "upstream_rq_total"))[cluster] == 2
    url = f"http://[{V6[1]}]:{v6_pod.there_app.port}/"
    assert v6_pod.ask(url) == "there", "an unknown destination passes through"


@pytest.mark.parametrize("families", [(V4, V6), (V6, V4)], ids=["IPv4 first", "IPv6 first"])
def test_dual_stack_answers_on_both_families(agent: MakeAgent, families: tuple[tuple[str, str], ...]) -> None:
    first = families[0][0]
    host = "[::1]" if ":" in first else "127.0.0.1"
    with pod(agent, families, host, INSTANCE_IP=first, ISTIO_DUAL_STACK="true") as made:
        ports = made.agent.ports
        assert made.bootstrap()["node"]["id"].split("~")[1] == first
        for each in ("127.0.0.1", "[::1]"):
            assert made.fetch("/healthz/ready", ports.ready, each)[0] == 200, each
            assert "envoy_server_live" in made.fetch("/stats/prometheus", ports.prometheus, each)[1], each
            assert made.fetch("/healthz/ready", ports.status, each)[0] == 200, each
        made.agent.host = host
        assert made.bound(ports.admin) == {host}
        assert '"version"' in made.here.call(lambda: view(made.agent, "/server_info"))


def test_without_dual_stack_a_pod_with_both_speaks_ipv4(agent: MakeAgent) -> None:
    with pod(agent, (V6, V4), "127.0.0.1", INSTANCE_IP=V6[0]) as made:
        ports = made.agent.ports
        assert made.bootstrap()["node"]["id"].split("~")[1] == V6[0]
        assert made.bound(ports.admin) == {"127.0.0.1"}
        assert made.bound(ports.ready) == {"0.0.0.0"}
