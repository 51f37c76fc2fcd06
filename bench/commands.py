"""What a start costs before Envoy runs, and the small commands, each beside the interpreter doing nothing much."""

import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.agents import PROJECT

AGENT = (sys.executable, "-m", "pilot_agent.commands.main")
BARE = (sys.executable, "-c", "pass")
BASELINE = (sys.executable, "-c", "import jinja2, yaml, msgspec")
STAND_IN = """#!/bin/sh
# Stands where Envoy would: writes down what its parent has used of the CPU until here, in nanoseconds.
cat /proc/$PPID/task/*/schedstat > "{record}"
"""


def cpu_of(argv: Sequence[str], environment: dict[str, str], directory: Path) -> float:
    """Seconds of CPU of one run."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
        before = Path.cwd()
        os.chdir(directory)
        try:
            pid = os.posix_spawn(argv[0], list(argv), environment, file_actions=actions)
        finally:
            os.chdir(before)
        usage = os.wait4(pid, 0)[2]
    finally:
        os.close(null)
    return usage.ru_utime + usage.ru_stime


def cpu_to_bootstrap(environment: dict[str, str], directory: Path) -> float:
    """Seconds of CPU from exec to the spawn of Envoy, with its bootstrap written; mesh mode, as in a pod."""
    record, stand_in = directory / "record", directory / "envoy"
    stand_in.write_text(STAND_IN.format(record=record))
    stand_in.chmod(0o755)
    config = json.dumps({"binaryPath": str(stand_in), "configPath": str(directory / "run")})
    pod = {"PROXY_CONFIG": config, "POD_NAME": "web-0", "POD_NAMESPACE": "shop"}
    cpu_of((*AGENT, "proxy", "sidecar", "--onEnvoyExit=exit"), environment | pod, directory)
    return sum(int(line.split()[0]) for line in record.read_text().splitlines()) / 10**9


def first_probe(environment: dict[str, str]) -> float:
    """Seconds from exec of `wait` to its first connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/healthz/ready"
        began = time.monotonic()
        pid = os.posix_spawn(
            AGENT[0],
            [*AGENT, "wait", "--timeoutSeconds=0", f"--url={url}"],
            environment,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
        )
        connection, _ = server.accept()
        took = time.monotonic() - began
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        connection.close()
        os.waitpid(pid, 0)
    return took


def run(rounds: int) -> dict[str, float]:
    """Medians over `rounds` of all of them in turn."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}
    found: dict[str, list[float]] = {name: [] for name in ("bare", "imports", "version", "bootstrap", "first_probe")}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for _ in range(rounds):
            found["bare"].append(cpu_of(BARE, environment, directory))
            found["imports"].append(cpu_of(BASELINE, environment, directory))
            found["version"].append(cpu_of((*AGENT, "version"), environment, directory))
            found["bootstrap"].append(cpu_to_bootstrap(environment, directory))
            found["first_probe"].append(first_probe(environment))
    middle = {name: statistics.median(values) for name, values in found.items()}
    return {
        "bare_interpreter_cpu": middle["bare"],
        "baseline_imports_cpu": middle["imports"],
        "version_cpu": middle["version"],
        "version_ratio": _ratio(found["version"], found["bare"]),
        "bootstrap_cpu": middle["bootstrap"],
        "bootstrap_ratio": _ratio(found["bootstrap"], found["imports"]),
        "wait_first_probe": middle["first_probe"],
    }


def _ratio(ours: list[float], baseline: list[float]) -> float:
    return statistics.median(mine / theirs for mine, theirs in zip(ours, baseline, strict=True))
