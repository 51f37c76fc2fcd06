"""The stage of the demo for other tests: more pods than two, both address families, rules that capture each of them."""

from pathlib import Path

import pytest

from pilot_agent.demo.hops import split
from pilot_agent.demo.network import Namespace
from pilot_agent.demo.passage import follow
from pilot_agent.demo.spec import Spec
from pilot_agent.demo.stage import Stage
from tests.support.envoy_binary import envoy_binary
from tests.support.namespaces import missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

CLUSTER_IPS = {"IPv4": "10.96.0.20", "IPv6": "fd00:10:96::20"}
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {{name: shop, namespace: demo}}
spec:
  clusterIP: "{ip}"
  selector: {{app: shop}}
  ports: [{{name: http, port: 8000, targetPort: 80}}]
"""
WORKLOAD = """\
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: demo}}
spec:
  address: "{address}"
  labels: {{app: shop, security.istio.io/tlsMode: istio}}
  serviceAccount: {name}
"""


@pytest.mark.parametrize("families", [("IPv6",), ("IPv4", "IPv6")])
def test_three_pods_of_a_family_speak_mtls_through_what_captures_them(
    tmp_path: Path, families: tuple[str, ...]
) -> None:
    envoy_binary()
    with Stage(tmp_path / "stage", families=families) as stage:
        client = stage.pod(Spec("client", labels={"app": "client"}))
        shops = [stage.pod(Spec(name, labels={"app": "shop"}, application=80)) for name in ("shop-a", "shop-b")]
        workloads = (WORKLOAD.format(name=shop.name, address=shop.address) for shop in shops)
        stage.write("shop.yaml", SERVICE.format(ip=CLUSTER_IPS[families[0]]) + "".join(workloads))
        stage.resolve("shop", CLUSTER_IPS[families[0]])
        stage.start()
        answers = {client.curl("http://shop:8000/hostname").body.strip() for _ in range(20)}
        assert answers == {"shop-a-0", "shop-b-0"}
        assert len(client.access_log()) <= 20
        seen = [note for shop in shops for note in shop.application_log()]
        assert all("URI=spiffe://cluster.local/ns/demo/sa/client" in str(note["headers"]) for note in seen)
        assert len(seen) == 20
        assert {note["source"].rpartition(":")[0] for note in seen} <= {"127.0.0.6", "[::6]"}
    assert stage.faults == []
    assert stage.leftovers() == []


def test_a_pod_that_asks_itself_goes_through_its_own_envoy(tmp_path: Path) -> None:
    """Rule 2: Envoy's connection to its own pod comes back to it as inbound."""
    envoy_binary()
    with Stage(tmp_path / "stage") as stage:
        shop = stage.pod(
            Spec("shop", labels={"app": "shop"}, application=80, proxy_config={"fileFlushInterval": "0.02s"})
        )
        stage.write("shop.yaml", SERVICE.format(ip="10.96.0.20") + WORKLOAD.format(name="shop", address=shop.address))
        stage.resolve("shop", "10.96.0.20")
        stage.start()
        passage = follow(shop, shop, lambda: shop.curl("http://shop:8000/hostname"))
        own = [(each.chain, each.number, each.target) for each in split(passage.client_moved)[1]]
        assert ("ISTIO_OUTPUT", 2, "ISTIO_IN_REDIRECT") in own
        assert ("ISTIO_OUTPUT", 1, "RETURN") in own
        assert passage.forwarded_certificate["URI"] == "spiffe://cluster.local/ns/demo/sa/shop"


def test_without_the_first_rule_a_request_goes_round_in_circles(tmp_path: Path) -> None:
    """Why 127.0.0.6: what Envoy sends to its own pod comes back by rule 2, unless rule 1 knows its source."""
    envoy_binary()
    with Stage(tmp_path / "stage") as stage:
        client = stage.pod(Spec("client", labels={"app": "client"}))
        shop = stage.pod(Spec("shop", labels={"app": "shop"}, application=80))
        stage.start()
        assert client.curl(f"http://{shop.address}/hostname").body == "shop-0\n"
        assert isinstance(shop.place, Namespace)
        shop.place.run("iptables", "-t", "nat", "-D", "ISTIO_OUTPUT", "1")
        shop.place.run("iptables", "-t", "nat", "-Z")
        # Not the connection to the application that is open already: Envoy keeps one for each way in.
        answer = client.curl(f"http://{shop.address}:81/hostname", "-m", "1")
        assert answer.status == 0
        circles = [rule for chain in shop.counters() if chain.name == "ISTIO_OUTPUT" for rule in chain.rules]
        assert circles[0].leads_to == "ISTIO_IN_REDIRECT"
        assert circles[0].counted is not None
        assert circles[0].counted.packets > 50
