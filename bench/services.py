"""A mesh of a thousand services in local mode: from exec, from a change of all of it, and from one changed endpoint.

`live` is when Envoy's admin interface shows it, or a request through it is answered.
"""

import json
import statistics
import time
import urllib.request
from pathlib import Path

from bench.local import running
from bench.probing import resident_mib, status_of, until, until_answered
from tests.support.agents import AgentProcess
from tests.support.ports import free_port

SERVICES, ENDPOINTS = 1_000, 5
SERVICE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: s{number}, namespace: bench}}
spec:
  hosts: [s{number}.bench.svc.cluster.local]
  ports:
  - {{number: {port}, name: http, protocol: HTTP}}
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints:
{endpoints}
"""


def run(binary: Path, rounds: int) -> dict[str, float]:
    """Medians in seconds, and the agent's resident memory in MiB: all services in one file, and a file for each."""
    figures: dict[str, float] = {}
    for name, is_one_file in (("one_file", True), ("files", False)):
        found = [_once(binary, is_one_file=is_one_file) for _ in range(max(3, rounds // 3))]
        figures |= {f"services_{name}_{what}": statistics.median(each[what] for each in found) for what in found[0]}
    return figures


def _once(binary: Path, *, is_one_file: bool) -> dict[str, float]:
    port = free_port()
    with running(binary, documents=lambda directory: _write(directory, port, is_one_file=is_one_file)) as (
        agent,
        began,
    ):
        until_answered(agent.ports.ready)
        ready = time.monotonic() - began
        until(lambda: _clusters(agent) >= SERVICES)
        live = time.monotonic() - began
        until(lambda: agent.lines("Envoy proxy is ready") != [])
        # One endpoint of the last service becomes one that answers: the agent's own status port.
        changed = time.monotonic()
        _write(agent.config_dir, port, is_one_file=is_one_file, target=agent.ports.status)
        host = f"s{SERVICES - 1}.bench.svc.cluster.local"
        until(lambda: status_of(port, host) == 200)
        return {
            "ready": ready,
            "live": live,
            "one_endpoint_live": time.monotonic() - changed,
            "mib": resident_mib(agent.pid),
        }


def _clusters(agent: AgentProcess) -> int:
    with urllib.request.urlopen(
        f"http://127.0.0.1:{agent.ports.admin}/stats?filter=cluster_manager.active_clusters&format=json"
    ) as answer:
        stats = json.load(answer)["stats"]
    return max((int(each["value"]) for each in stats if "value" in each), default=0)


def _write(directory: Path, port: int, *, is_one_file: bool, target: int = 0) -> None:
    """Each file there as a whole or not at all; what would not differ is not written."""
    texts = [_service(number, port, target if number == SERVICES - 1 else 0) for number in range(SERVICES)]
    files = {"all.yaml": "---\n".join(texts)} if is_one_file else {f"s{n}.yaml": text for n, text in enumerate(texts)}
    for name, text in files.items():
        path = directory / name
        if not path.exists() or path.read_text() != text:
            draft = directory / f".{name}"
            draft.write_text(text)
            draft.rename(path)


def _service(number: int, port: int, target: int) -> str:
    addresses = [f"  - {{address: 10.{number // 250}.{number % 250}.{last + 1}}}" for last in range(ENDPOINTS)]
    if target:
        addresses = [f"  - {{address: 127.0.0.1, ports: {{http: {target}}}}}"]
    return SERVICE.format(number=number, port=port, endpoints="\n".join(addresses))
