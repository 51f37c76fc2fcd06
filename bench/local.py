"""The agent in local mode with a real Envoy: start, restart, memory, a changed file, orphans. Pairs with `alone`."""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.alone import start_once
from bench.probing import cpu_seconds, resident_mib, runs, status_of, until, until_answered
from tests.support.agents import AgentProcess
from tests.support.ports import free_port
from tests.support.proc_tree import proc_tree

ORPHANS = 3000
FORK_ORPHANS = """
import os, sys
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
"""
SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: bench}}
spec:
  hosts: [bench.example.com]
  ports: [{{number: {port}, name: http, protocol: HTTP, targetPort: {target}}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1}}]
"""


@contextmanager
def running(
    binary: Path, *prefix: str, documents: Callable[[Path], None] = lambda _: None
) -> Iterator[tuple[AgentProcess, float]]:
    """An agent on a directory that `documents` fills, and the moment of its exec."""
    with tempfile.TemporaryDirectory() as directory:
        agent = AgentProcess(Path(directory), binary)
        agent.write_mesh(interceptionMode="NONE")
        agent.config_dir.mkdir()
        documents(agent.config_dir)
        began = time.monotonic()
        agent.start(*prefix)
        try:
            yield agent, began
            agent.stop()
        finally:
            agent.kill()


def start_and_restart(binary: Path) -> dict[str, float]:
    """Seconds: exec to Envoy's own exec, exec to 200 on 15021, kill -9 of Envoy to 200 again."""
    with running(binary) as (agent, began):
        spawned = until(lambda: runs(agent.process.pid, binary)) - began
        ready = until_answered(agent.ports.ready) - began
        until(lambda: agent.lines("Envoy proxy is ready") != [])
        envoy = agent.envoys()[0]
        killed = time.monotonic()
        os.kill(envoy, signal.SIGKILL)
        until(lambda: not runs(agent.pid, binary) or agent.envoys() != [envoy])
        restarted = until_answered(agent.ports.ready) - killed
    return {"spawned": spawned, "ready": ready, "restarted": restarted}


def starts(binary: Path, rounds: int) -> dict[str, float]:
    """Medians over `rounds`, Envoy alone and the agent in turn so that both see the same machine."""
    alone, ours = [], []
    for _ in range(rounds):
        alone.append(start_once(binary))
        ours.append(start_and_restart(binary))
    envoy = statistics.median(alone)
    figures = {name: statistics.median(each[name] for each in ours) for name in ours[0]}
    ratios = {
        f"{name}_ratio": statistics.median(each[name] / one for each, one in zip(ours, alone, strict=True))
        for name in ("ready", "restarted")
    }
    return {"envoy_alone": envoy, **figures, **ratios}


def memory_and_change(binary: Path) -> dict[str, float]:
    """MiB of the agent at rest, with a service, and after a scrape; seconds until a new file is live in Envoy."""
    with running(binary) as (agent, _):
        until_answered(agent.ports.ready)
        until(lambda: agent.lines("Envoy proxy is ready") != [])
        time.sleep(1)  # let what starts after the first ready start
        figures = {"rest_mib": resident_mib(agent.pid)}
        first, port = (free_port() for _ in range(2))
        target = agent.ports.status  # /healthz/ready of the agent itself is the application
        (agent.config_dir / "first.yaml").write_text(
            SERVICE.format(port=first, target=target).replace("bench", "first")
        )
        until(lambda: status_of(first, "first.example.com") == 200)
        began = time.monotonic()
        draft = agent.config_dir / ".draft"
        draft.write_text(SERVICE.format(port=port, target=target))
        draft.rename(agent.config_dir / "bench.yaml")
        until(lambda: status_of(port, "bench.example.com") == 200)
        figures["change_live"] = time.monotonic() - began
        figures["with_services_mib"] = resident_mib(agent.pid)
        agent.fetch("/metrics")
        agent.fetch("/metrics")
        figures["after_scrape_mib"] = resident_mib(agent.pid)
    return figures


def orphans(binary: Path) -> dict[str, float]:
    """The agent as PID 1 of a pid namespace (needs root): CPU seconds for ORPHANS orphans, zombies left."""
    with running(binary, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child") as (agent, _):
        until_answered(agent.ports.ready)
        until(lambda: agent.lines("Envoy proxy is ready") != [])
        agent.fetch("/metrics")
        before, count = cpu_seconds(agent.pid), agent.metric("istio_agent_reaped_orphans_total")
        enter = ["nsenter", "--target", str(agent.pid), "--pid", "--mount"]
        subprocess.run([*enter, sys.executable, "-IS", "-c", FORK_ORPHANS, str(ORPHANS)], check=True)
        until(lambda: not [each for each in proc_tree(agent.process.pid) if each.is_zombie])
        used = cpu_seconds(agent.pid) - before
        reaped = agent.metric("istio_agent_reaped_orphans_total") - count
    return {"orphans_cpu": used, "orphans_reaped": reaped, "orphans_left": ORPHANS - reaped}
