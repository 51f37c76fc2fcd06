"""A stage of the demo with more on it: `sleep` and `httpbin` in the mesh, `outside` without an agent, many services.

Applications in every tongue of `speaker`, documents for all of them, and `observing`, which tells what one conversation
left behind: the rules it moved, the lines of the access logs.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pilot_agent.demo.access_log import AccessLogLine
from pilot_agent.demo.network import Address, Namespace, join_all, set_up
from pilot_agent.demo.pod import RULES, SPARED, Pod
from pilot_agent.demo.process import AGENT, Process, variables
from pilot_agent.demo.spec import Spec
from pilot_agent.demo.stage import Stage
from pilot_agent.interception.counters import CountedChain, moved
from tests.support.authority import Authority
from tests.support.confidential import found_in
from tests.support.eventually import eventually

Result = TypeVar("Result")

HTTP, HTTP2, GRPC, TCP, MINE, OTHER, STRAY = 80, 8080, 9090, 9000, 8002, 8085, 7070
"""Ports of httpbin's applications. MINE is the headless service's, OTHER its second version, STRAY nobody's."""
TLS = 443
SECURE, WILD = "secure.example.org", "*.example.com"
BACKGROUND = 4
"""The rule that agents move now and then by themselves: they ask their Envoy, as the proxy's user, through lo."""

# The access log within a moment; and nobody waits for the idle connections of an Envoy that is to end.
_QUICK = {"fileFlushInterval": "0.05s", "terminationDrainDuration": "1s"}
VIPS = {"IPv4": "10.96.0.10", "IPv6": "fd00:10:96::10"}
ELSEWHERE = {"IPv4": "203.0.113.9", "IPv6": "2001:db8::9"}
"""Addresses that nobody has."""

SERVICES = """\
apiVersion: v1
kind: Service
metadata: {{name: httpbin, namespace: demo}}
spec:
  clusterIPs: {vips}
  selector: {{app: httpbin}}
  ports:
  - {{name: http, port: 8000, targetPort: {http}}}
  - {{name: http2, port: 8001, targetPort: {http2}}}
  - {{name: grpc, port: 9001, targetPort: {grpc}}}
  - {{name: tcp, port: 9002, targetPort: {tcp}}}
---
apiVersion: v1
kind: Service
metadata: {{name: headless, namespace: demo}}
spec:
  clusterIP: None
  selector: {{app: httpbin}}
  ports:
  - {{name: http-mine, port: {mine}}}
  - {{name: tcp, port: {tcp}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: fresh, namespace: demo}}
spec:
  host: httpbin
  trafficPolicy:
    connectionPool: {{http: {{maxRequestsPerConnection: 1}}}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
"""

WORKLOAD = """\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: demo}}
spec:
  address: '{address}'
  ports: {{http: {http}, http2: {http2}, grpc: {grpc}, tcp: {tcp}}}
  labels: {{app: httpbin, version: {version}, security.istio.io/tlsMode: istio}}
  serviceAccount: httpbin
"""

OUTSIDE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: wild, namespace: demo}}
spec:
  hosts: ['{wild}']
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: NONE
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: secure, namespace: demo}}
spec:
  hosts: [{secure}]
  ports: [{{number: 443, name: tls, protocol: TLS}}]
  resolution: STATIC
  endpoints: [{{address: '{address}'}}]
"""


class Outside(NamedTuple):
    """A host that the mesh does not know: its traffic is nobody's but its own."""

    place: Namespace
    addresses: tuple[Address, ...]

    @property
    def address(self) -> str:
        return self.addresses[0].ip


class MeshStage(Stage):
    """`mode` is how httpbin's traffic is captured."""

    def __init__(self, directory: Path, families: tuple[str, ...], mode: str) -> None:
        super().__init__(directory, families=families)
        self._speakers: list[Process] = []
        self._mode = mode

    def set_out(self) -> None:
        """Pods, applications and documents; returns when everything is ready."""
        self.authority = Authority("the outside's own")
        self.sleep = self.pod(Spec("sleep", labels={"app": "sleep"}, proxy_config=_QUICK))
        labels = {"app": "httpbin", "version": "v1", "security.istio.io/tlsMode": "istio"}
        self.httpbin = self.pod(Spec("httpbin", labels=labels, mode=self._mode, proxy_config=_QUICK))
        self.outside = Outside(self._namespace("outside"), tuple(self._addresses(len(self.pods))))
        self.vips = [VIPS[family] for family in self.families]
        self.write("services.yaml", self._services())
        workloads = [
            self.workload(f"httpbin-{number}", address.ip) for number, address in enumerate(self.httpbin.addresses)
        ]
        self.write("workloads.yaml", "---\n".join(workloads))
        self.write("outside.yaml", OUTSIDE.format(wild=WILD, secure=SECURE, address=self.outside.address))
        self.start()
        for each in self._speakers:
            eventually(lambda each=each: "ready" in each.log.read_text(), within=20)  # type: ignore[misc]

    def _services(self) -> str:
        return SERVICES.format(vips=self.vips, http=HTTP, http2=HTTP2, grpc=GRPC, tcp=TCP, mine=MINE)

    @staticmethod
    def workload(name: str, address: str, version: str = "v1", http: int = HTTP) -> str:
        return WORKLOAD.format(name=name, address=address, version=version, http=http, http2=HTTP2, grpc=GRPC, tcp=TCP)

    def _connect(self) -> None:
        everybody: list[tuple[Namespace, tuple[Address, ...]]] = [(self.outside.place, self.outside.addresses)]
        for pod in self.pods.values():
            assert isinstance(pod.place, Namespace)
            everybody.append((pod.place, pod.addresses))
        join_all(self._namespace("switch"), [place for place, _ in everybody])
        for place, addresses in everybody:
            place.set_hosts(self._names)
            set_up(place, addresses)
        self._speak()

    def _speak(self) -> None:
        host = "::" if "IPv6" in self.families else "0.0.0.0"
        pem = self.directory / "outside.pem"
        pair = self.authority.pair(SECURE)
        pem.write_text(pair.key + pair.chain)
        ports = [f"http:{HTTP}", f"http:{MINE}", f"http:{STRAY}", f"h2c:{HTTP2}", f"grpc:{GRPC}", f"tcp:{TCP}"]
        for name, place, speeches in (
            ("httpbin-v1", self.httpbin.place, ports),
            ("httpbin-v2", self.httpbin.place, [f"http:{OTHER}"]),
            ("outside", self.outside.place, [f"http:{HTTP}", f"tcp:{TCP}", f"tls:{TLS}"]),
        ):
            argv = [sys.executable, "-m", "tests.support.speaker", host, name, *speeches, "--pem", str(pem)]
            speaker = Process(argv, place, None, self.directory, self.directory / f"{name}.log")
            self._speakers.append(speaker)
            speaker.start(variables())

    def close(self) -> None:
        for each in self._speakers:
            if each.is_running:
                each.wait(0)
        super().close()

    def observing(self) -> "Observation":
        return Observation([self.sleep, self.httpbin])


class Observation:
    """What happens in the pods while it is a context, and in their access logs until somebody asks."""

    def __init__(self, pods: Iterable[Pod]) -> None:
        self._pods = {pod.name: pod for pod in pods}
        self._moved: dict[str, set[int]] = {}

    def __enter__(self) -> "Observation":
        self._before = self._counters()
        self._began = datetime.now(UTC).isoformat(timespec="milliseconds")[:-6]
        return self

    def __exit__(self, *_: object) -> None:
        after = self._counters()
        for name in self._pods:
            found = moved(self._before[name], after[name])
            self._moved[name] = {each.number for each in found if each.chain == "ISTIO_OUTPUT"}

    def _counters(self) -> Mapping[str, tuple[CountedChain, ...]]:
        return {name: pod.counters() for name, pod in self._pods.items()}

    def moved(self, pod: Pod, *wanted: int) -> bool:
        """Exactly these rules of ISTIO_OUTPUT have matched, but for the one that agents move by themselves."""
        found = self._moved[pod.name]
        assert found - {BACKGROUND} == set(wanted) - {BACKGROUND}, (pod.name, found)
        return found >= set(wanted)

    def line(self, pod: Pod, cluster: str) -> AccessLogLine:
        """The only new line of the pod's access log for this cluster; a TCP connection has one when it ends."""
        (line,) = self.lines(pod, cluster, 1)
        return line

    def lines(self, pod: Pod, cluster: str, count: int) -> list[AccessLogLine]:
        def found() -> list[AccessLogLine]:
            lines = [each for each in self.new(pod) if each.upstream_cluster == cluster]
            assert len(lines) == count, [each.text for each in self.new(pod)]
            return lines

        return eventually(found)

    def new(self, pod: Pod) -> list[AccessLogLine]:
        """All lines there are of what began since; by their time, for a line of before may be written yet."""
        return [each for each in pod.access_log() if each.text[1:] >= self._began]


def within(pod: Pod | Outside, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call it in the pod's network."""
    return pod.place.call(lambda: function(*arguments))


def interception_status(pod: Pod) -> "subprocess.CompletedProcess[str]":
    """`istio-iptables status` with the flags that the pod's rules were made with."""
    argv = [*AGENT, "istio-iptables", "status", "--network-namespace", pod.place.name, "-m", pod.mode, *RULES, *SPARED]
    if len(pod.addresses) > 1:
        argv.append("--dual-stack")
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=variables(), timeout=30)


@contextmanager
def mesh_stage(*families: str, mode: str = "REDIRECT") -> Iterator[MeshStage]:
    """Nothing of it is left behind, and nothing secret in what its agents and Envoys have logged."""
    directory = Path(tempfile.mkdtemp(prefix="pilot-agent-mesh-")) / "stage"
    stage = MeshStage(directory, families or ("IPv4",), mode)
    try:
        with stage:
            stage.set_out()
            yield stage
            told = [
                f"{path.name}: {secret}" for path in directory.glob("*/*.log") for secret in found_in(path.read_text())
            ]
    finally:
        directory.parent.rmdir()
    assert stage.leftovers() == []
    assert told == []
