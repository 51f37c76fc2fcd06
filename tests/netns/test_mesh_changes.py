"""What is changed in the documents of a running mesh: mTLS modes, routes under load, and everything that can be wrong.

Pods, rules, Envoys and documents as in test_mesh; nothing is restarted from the first test to the last.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from pilot_agent.demo.http_request import Answer
from pilot_agent.demo.load import Load
from pilot_agent.demo.network import missing_for_namespaces
from pilot_agent.demo.pod import Pod
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.mesh_stage import HTTP, OTHER, STRAY, TCP, MeshStage, mesh_stage, within
from tests.support.speech import Reply, ask_http, ask_tcp

pytestmark = pytest.mark.skipif(missing_for_namespaces() is not None, reason=str(missing_for_namespaces()))


@pytest.fixture(scope="module")
def stage() -> Iterator[MeshStage]:
    envoy_binary()
    with mesh_stage("IPv4") as made:
        envoys = [pod.envoys for pod in made.pods.values()]
        yield made
        assert [pod.envoys for pod in made.pods.values()] == envoys


def from_sleep(stage: MeshStage) -> Reply:
    return within(stage.sleep, ask_http, stage.vips[0], 8000, "httpbin:8000")


def in_plain_text(stage: MeshStage, port: int = HTTP) -> Reply:
    """From outside the mesh, to the pod's own address."""
    return within(stage.outside, ask_http, stage.httpbin.address, port)


def is_mutual(reply: Reply) -> bool:
    return "URI=spiffe://cluster.local/ns/demo/sa/sleep" in reply.get("headers", {}).get("x-forwarded-client-cert", "")


def everywhere(mode: str, ports: str = "") -> str:
    return f"""\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: httpbin, namespace: demo}}
spec:
  selector: {{matchLabels: {{app: httpbin}}}}
  mtls: {{mode: {mode}}}
{ports}
"""


@pytest.fixture
def policy(stage: MeshStage) -> Iterator[Callable[[str], None]]:
    """Writes a document to both pods; afterwards it is gone, and plain text passes again."""
    yield lambda text: stage.write("policy.yaml", text)
    stage.remove("policy.yaml")
    eventually(lambda: is_mutual(from_sleep(stage)) and "error" not in in_plain_text(stage))


def test_strict_refuses_plain_text_and_goes_on_with_mutual_tls(stage: MeshStage, policy: Callable[[str], None]) -> None:
    """On a port of a service and on one that nobody declared, HTTP and TCP."""
    assert [in_plain_text(stage, port)["name"] for port in (HTTP, STRAY)] == ["httpbin-v1", "httpbin-v1"]
    assert is_mutual(from_sleep(stage))  # PERMISSIVE: both
    policy(everywhere("STRICT"))
    eventually(lambda: "error" in in_plain_text(stage))
    httpbin = stage.httpbin
    assert "reset" in in_plain_text(stage)["error"].lower()
    assert "error" in in_plain_text(stage, STRAY)
    assert "error" in within(stage.outside, partial(ask_tcp, is_first=True), httpbin.address, TCP, "hello")
    assert "error" in within(stage.sleep, ask_http, httpbin.address, STRAY)  # sleep can't know that it could
    assert is_mutual(from_sleep(stage))
    assert within(stage.sleep, ask_tcp, stage.vips[0], 9002, "hello")["said"] == "hello"
    itself = within(httpbin, ask_http, stage.vips[0], 8000, "httpbin:8000")
    assert "sa/httpbin" in itself["headers"]["x-forwarded-client-cert"]


def test_a_port_of_its_own_mode(stage: MeshStage, policy: Callable[[str], None]) -> None:
    policy(everywhere("STRICT", f"  portLevelMtls: {{{HTTP}: {{mode: PERMISSIVE}}}}"))
    eventually(lambda: "error" in in_plain_text(stage, STRAY))
    assert in_plain_text(stage)["name"] == "httpbin-v1"
    assert is_mutual(from_sleep(stage))


def test_disable_speaks_plain_text_alone(stage: MeshStage, policy: Callable[[str], None]) -> None:
    policy(everywhere("DISABLE"))
    eventually(lambda: not accepts_mutual_tls(stage.httpbin))
    eventually(lambda: from_sleep(stage)["status"] == 200 and not is_mutual(from_sleep(stage)))
    for pod in (stage.sleep, stage.httpbin):
        assert pod.is_ready()
    assert in_plain_text(stage)["name"] == "httpbin-v1"
    assert in_plain_text(stage, STRAY)["name"] == "httpbin-v1"
    assert within(stage.sleep, ask_tcp, stage.vips[0], 9002, "hello")["said"] == "hello"


def accepts_mutual_tls(pod: Pod) -> bool:
    """Without that its Envoy waits for no first word of a client, so that a server can speak first in plain text."""
    dump = pod.admin("/config_dump?resource=dynamic_listeners&name_regex=virtualInbound")
    return any("DownstreamTlsContext" in json.dumps(each["active_state"]) for each in dump["configs"])


# routes and subsets

SECOND = "httpbin-second"


def weights(first: int, second: int) -> str:
    return f"""\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: httpbin, namespace: demo}}
spec:
  hosts: [httpbin]
  http:
  - name: shared
    match: [{{port: 8000}}]
    route:
    - {{destination: {{host: httpbin, subset: v1, port: {{number: 8000}}}}, weight: {first}}}
    - {{destination: {{host: httpbin, subset: v2, port: {{number: 8000}}}}, weight: {second}}}
"""


def balanced(policy: str) -> str:
    return f"""\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: fresh, namespace: demo}}
spec:
  host: httpbin
  trafficPolicy: {{loadBalancer: {{simple: {policy}}}}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
"""


def test_routes_change_under_load_and_no_request_fails(stage: MeshStage) -> None:
    """A workload comes, the routes move to it and back, clusters change, the workload goes."""
    sleep = stage.sleep
    services = (sleep.documents / "services.yaml").read_text()
    before, _, _ = services.rpartition("---\n")

    def served_by(name: str) -> bool:
        return bool(from_sleep(stage).get("name") == name)

    def ask() -> Answer:
        reply = ask_http(stage.vips[0], 8000, "httpbin:8000")
        return Answer(reply.get("status", 0), reply.get("name", ""))

    def request_more(load: Load) -> None:
        wanted = load.requests + 30
        eventually(lambda: load.requests >= wanted)

    with stage.observing() as seen, Load(sleep.place.call, ask) as load:
        request_more(load)
        stage.write("second.yaml", stage.workload(SECOND, stage.httpbin.address, "v2", OTHER))
        eventually(lambda: served_by("httpbin-v2"))
        for first, second in ((100, 0), (0, 100), (50, 50), (0, 100)):
            stage.write("routes.yaml", weights(first, second))
            request_more(load)
        eventually(lambda: served_by("httpbin-v2") and served_by("httpbin-v2") and served_by("httpbin-v2"))
        shared = [line.upstream_cluster for line in seen.new(sleep) if line.route_name == "shared"]
        assert set(shared) == {f"outbound|8000|{subset}|httpbin.demo.svc.cluster.local" for subset in ("v1", "v2")}
        for policy in ("ROUND_ROBIN", "RANDOM"):
            stage.write("services.yaml", f"{before}---\n{balanced(policy)}")
            request_more(load)
        for name in ("routes.yaml", "second.yaml"):
            sleep.remove(name)
        eventually(lambda: all(served_by("httpbin-v1") for _ in range(5)))
        for name in ("routes.yaml", "second.yaml"):
            stage.httpbin.remove(name)  # behind its clients: their kept connections would find its cluster gone
        stage.write("services.yaml", services)
        request_more(load)
    assert (load.failed, [line.text for line in seen.new(sleep) if line.response_code != "200"]) == ({}, [])


# what is wrong

NOT_YAML = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: broken, namespace: demo
spec: {}
"""
UNKNOWN_KIND = """\
apiVersion: networking.istio.io/v1
kind: EnvoyFilter
metadata: {name: broken, namespace: demo}
"""
TAKEN = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: broken, namespace: demo}
spec:
  hosts: [broken.example.net]
  addresses: [10.96.0.10]
  ports:
  - number: 9002
    name: tcp
    protocol: TCP
  resolution: STATIC
  endpoints: [{address: 10.244.0.12}]
"""
NOWHERE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: broken, namespace: demo}
spec:
  hosts: [broken.example.net]
  http:
  - route:
    - destination: {host: nowhere.example.net}
"""
CIRCLE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: broken, namespace: demo}
spec:
  hosts: [broken.example.net]
  http:
  - delegate: {name: one, namespace: demo}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one, namespace: demo}
spec:
  http:
  - delegate: {name: other, namespace: demo}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: other, namespace: demo}
spec:
  http:
  - delegate: {name: one, namespace: demo}
"""


def refusals(pod: Pod) -> str:
    verbose = pod.get("/healthz/ready?verbose", pod.ports.status).body
    return "\n".join(line for line in verbose.splitlines() if line.startswith("local configuration refused: "))


def logged(pod: Pod) -> list[str]:
    return [line for line in pod.agent.log.read_text().splitlines() if "broken.yaml" in line]


def assert_serving(stage: MeshStage) -> None:
    assert stage.sleep.is_ready()
    assert from_sleep(stage)["status"] == 200
    assert within(stage.sleep, ask_tcp, stage.vips[0], 9002, "hello")["said"] == "hello"
    assert within(stage.sleep, ask_http, stage.outside.address, 80, "a.example.com")["name"] == "outside"


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        pytest.param(NOT_YAML, "broken.yaml:4", "not YAML", id="not-yaml"),
        pytest.param(TAKEN, "broken.yaml:8: spec.ports[0].number", "belongs to", id="taken"),
        pytest.param(CIRCLE, "broken.yaml:14: spec.http[0].delegate", "can't have one of its own", id="circle"),
        pytest.param("# long\n" * 1_600_000, "broken.yaml", "is larger than 10 MiB", id="large"),
    ],
)
def test_a_file_that_can_not_be_used(stage: MeshStage, text: str, where: str, reason: str) -> None:
    sleep = stage.sleep
    sleep.write("broken.yaml", text)
    try:
        eventually(lambda: "broken.yaml" in refusals(sleep))
        assert refusals(sleep).startswith(f"local configuration refused: {where}: ")
        assert reason in refusals(sleep)
        assert_serving(stage)
    finally:
        sleep.remove("broken.yaml")
    eventually(lambda: not refusals(sleep))


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        pytest.param(UNKNOWN_KIND, "line=2 field=kind", "is not supported here and has no effect", id="unknown-kind"),
        pytest.param(
            NOWHERE,
            "line=8 field=spec.http[0].route[0].destination.host",
            "is no service of this mesh: requests sent there get 503",
            id="nowhere",
        ),
    ],
)
def test_a_document_without_effect(stage: MeshStage, text: str, place: str, reason: str) -> None:
    """It is a warning in the agent's log; the rest of its file would serve."""
    sleep = stage.sleep
    known = len(logged(sleep))
    sleep.write("broken.yaml", text)
    try:
        (line,) = eventually(lambda: logged(sleep)[known:])
        assert reason in line
        assert line.endswith(f"file=broken.yaml {place}")
        assert refusals(sleep) == ""
        assert_serving(stage)
    finally:
        sleep.remove("broken.yaml")


def test_the_directory_goes_and_comes_back(stage: MeshStage) -> None:
    """Without it everything goes on; when it is there again what is in it counts, and changes are seen as before."""
    sleep = stage.sleep
    aside = sleep.directory / "aside"
    sleep.documents.rename(aside)
    eventually(lambda: "mesh: can't be read: No such file or directory" in refusals(sleep))
    assert_serving(stage)
    shutil.copytree(aside, sleep.documents)
    eventually(lambda: not refusals(sleep))
    assert_serving(stage)
    sleep.write("broken.yaml", NOT_YAML)
    eventually(lambda: "broken.yaml:4" in refusals(sleep))
    sleep.remove("broken.yaml")
    eventually(lambda: not refusals(sleep))
    shutil.rmtree(aside)
