"""What Envoy adds to a request: the same request directly, through one Envoy and through two, with REDIRECT and TPROXY.

Two pods in network namespaces, one kept connection, a server that answers at once. The kinds take turns, so that all of
them see the same machine. Needs root.
"""

import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.probing import until
from pilot_agent.demo.pod import Pod
from pilot_agent.demo.spec import Spec
from pilot_agent.demo.stage import Stage

PORT, SERVICE_PORT, ADDRESS = 8080, 8000, "10.96.0.10"
TURNS, REQUESTS = 8, 400
REQUEST = b"GET / HTTP/1.1\r\nHost: app:8000\r\n\r\n"
SERVER = """
import socket, sys, threading
def serve(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while b"\\r\\n\\r\\n" in connection.recv(65536):
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
DOCUMENTS = """\
apiVersion: v1
kind: Service
metadata: {{name: app, namespace: demo}}
spec:
  clusterIP: {vip}
  ports: [{{name: http, port: {port}, targetPort: {target}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: app-1, namespace: demo, labels: {{kubernetes.io/service-name: app}}}}
addressType: IPv4
ports: [{{name: http, port: {target}}}]
endpoints: [{{addresses: [{address}]}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: app, namespace: demo}}
spec: {{address: {address}, serviceAccount: app, ports: {{http: {target}}}}}
"""


def run() -> dict[str, float]:
    """Microseconds at the 50th and 99th percentile by kind of way, and what the way adds to a direct request."""
    figures: dict[str, float] = {}
    times = _measure()
    for kind, each in times.items():
        cuts = statistics.quantiles(each, n=100)
        figures |= {f"hops_{kind}_p50_us": cuts[49] * 1e6, f"hops_{kind}_p99_us": cuts[98] * 1e6}
    for kind in times.keys() - {"direct"}:
        for cut in ("p50_us", "p99_us"):
            figures[f"hops_{kind}_adds_{cut}"] = figures[f"hops_{kind}_{cut}"] - figures[f"hops_direct_{cut}"]
    return dict(sorted(figures.items()))


def _measure() -> dict[str, list[float]]:
    """Both modes at once: REDIRECT and TPROXY take turns as well."""
    times: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o711)
        ways: dict[str, tuple[Pod, str, int]] = {}
        for mode in ("REDIRECT", "TPROXY"):
            ways |= _ways(mode, stack.enter_context(Stage(directory / mode)), stack)
        for _ in range(TURNS):
            for kind, (pod, address, port) in ways.items():
                times.setdefault(kind, []).extend(pod.place.call(partial(_timed, address, port)))
    return times


def _ways(mode: str, stage: Stage, stack: contextlib.ExitStack) -> dict[str, tuple[Pod, str, int]]:
    client, app, near, far = (stage.pod(Spec(name, mode=mode)) for name in ("client", "app", "near", "far"))
    stage.write("app.yaml", DOCUMENTS.format(vip=ADDRESS, port=SERVICE_PORT, target=PORT, address=app.address))
    stage.start()
    for pod in (near, far):
        _spare(pod)  # nothing of theirs meets their Envoys
    for pod in (app, far):
        stack.enter_context(_serving(pod))
    return {
        "direct": (near, far.address, PORT),
        f"{mode.lower()}_one_envoy": (near, app.address, PORT),
        f"{mode.lower()}_two_envoys": (client, ADDRESS, SERVICE_PORT),
    }


def _spare(pod: Pod) -> None:
    """Take the rules of the pod away."""
    argv = [sys.executable, "-m", "pilot_agent.commands.main", "istio-iptables", "--cleanup-only"]
    subprocess.run([*argv, "--network-namespace", pod.place.name], check=True, capture_output=True)


@contextlib.contextmanager
def _serving(pod: Pod) -> Iterator[None]:
    with subprocess.Popen(pod.place.wrapped([sys.executable, "-c", SERVER, str(PORT)])) as server:
        try:
            until(lambda: pod.place.call(lambda: _is_up("127.0.0.1")))
            yield
        finally:
            server.kill()


def _is_up(address: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, PORT), timeout=1):
        return True
    return False


def _timed(address: str, port: int) -> list[float]:
    """Seconds of each request on one connection; the first tenth (TLS, connections of Envoy's own) is left out."""
    times = []
    with socket.create_connection((address, port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(REQUESTS):
            began = time.perf_counter()
            connection.sendall(REQUEST)
            answer = b""
            while not answer.endswith(b"ok"):
                answer += connection.recv(65536)
            times.append(time.perf_counter() - began)
    return times[REQUESTS // 10 :]
