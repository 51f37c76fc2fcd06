"""The agent as a real process: started in a directory of its own, on ports of its own, with its log at hand."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.support.confidential import found_in
from tests.support.eventually import eventually
from tests.support.ports import free_ports
from tests.support.proc_tree import proc_tree

PROJECT = Path(__file__).resolve().parent.parent.parent
COMMAND = (sys.executable, "-m", "pilot_agent.commands.main", "proxy")


class Ports(NamedTuple):
    status: int
    admin: int
    ready: int
    prometheus: int
    outbound: int
    inbound: int


class AgentProcess:
    """One run of `pilot-agent proxy` in local mode. `start` it, `stop` it; `log` is all it wrote."""

    def __init__(self, directory: Path, binary: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.directory, self.binary, self.flags = directory, binary, flags
        self.ports = Ports(*free_ports(len(Ports._fields)))
        self.is_local = True
        """Local mode, with the documents of `config_dir`; else mesh mode."""
        self.host = "127.0.0.1"
        """Where `fetch` asks; "[::1]" in a namespace with IPv6 only."""
        self.config_dir = directory / "mesh"
        self.mesh_file = directory / "mesh.yaml"
        self.config_path = directory / "run" / "proxy"
        self.proxy_config: dict[str, object] = {}
        self.env = {
            "ENVOY_STATUS_PORT": str(self.ports.ready),
            "ENVOY_PROMETHEUS_PORT": str(self.ports.prometheus),
            "PYTHONPATH": str(PROJECT),
            **(env or {}),
        }
        self.log_file = directory / "agent.log"
        self.error_file = directory / "agent.err"
        self.answers: deque[str] = deque(maxlen=1000)
        """What it answered to `fetch`."""
        self._popen: subprocess.Popen[bytes] | None = None

    def write_mesh(self, **proxy_config: object) -> None:
        """Write the mesh file: ports and paths of this run, and these ProxyConfig fields."""
        self.proxy_config |= proxy_config
        fields = {
            # Relative in a mesh: the path of a Unix socket below it must be short.
            "configPath": str(self.config_path) if self.is_local else os.path.relpath(self.config_path, self.directory),
            "binaryPath": str(self.binary),
            "proxyAdminPort": self.ports.admin,
            "statusPort": self.ports.status,
            "drainDuration": "1s",
            **self.proxy_config,
        }
        document = {
            "proxyListenPort": self.ports.outbound,
            "proxyInboundListenPort": self.ports.inbound,
            "defaultConfig": {name: value for name, value in fields.items() if value is not None},
        }
        draft = self.mesh_file.with_suffix(".draft")
        draft.write_text(json.dumps(document))
        draft.replace(self.mesh_file)

    def start(self, *prefix: str, role: str = "sidecar", command: Sequence[str] = COMMAND) -> "AgentProcess":
        """Start it, behind the command `prefix` if given; returns at once."""
        if not self.mesh_file.exists():
            self.write_mesh()
        self.config_dir.mkdir(exist_ok=True)
        mode = ["--configDir", "mesh"] if self.is_local else []
        argv = [*prefix, *command, role, *mode, "--meshConfig", "mesh.yaml", *self.flags]
        with self.log_file.open("ab") as log, self.error_file.open("ab") as errors:
            self._popen = subprocess.Popen(
                argv, cwd=self.directory, env={**os.environ, **self.env}, stdout=log, stderr=errors
            )
        return self

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._popen is not None
        return self._popen

    @property
    def pid(self) -> int:
        """Of the agent itself, also behind a prefix such as unshare."""
        own = [each.pid for each in proc_tree(self.process.pid) if "pilot_agent.commands.main" in each.command]
        is_prefixed = "pilot_agent.commands.main" not in " ".join(psutil.Process(self.process.pid).cmdline()[:4])
        return own[0] if is_prefixed and own else self.process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def errors(self) -> str:
        return self.error_file.read_text(errors="replace")

    def lines(self, text: str) -> list[str]:
        return [line for line in self.log.splitlines() if text in line]

    def envoys(self) -> list[int]:
        """Pids of the Envoys that run as children of the agent; not of those that only check a bootstrap."""
        return [
            each.pid
            for each in proc_tree(self.pid)
            if each.parent == self.pid and str(self.binary) in each.command and " --mode " not in each.command
        ]

    def fetch(
        self, path: str, *, port: int | None = None, method: str = "GET", timeout: float = 10, **headers: str
    ) -> tuple[int, str]:
        """Status and body from the status port (or another); OSError when there is no answer."""
        url = f"http://{self.host}:{port or self.ports.status}{path}"
        request = urllib.request.Request(url, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, self._noted(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, self._noted(error.read().decode())

    def _noted(self, answer: str) -> str:
        self.answers.append(answer)
        return answer

    def told_secrets(self) -> list[str]:
        """Keys and tokens of the tests in what it and its Envoy wrote and answered: there should be none."""
        outputs = [self.log, self.errors if self.error_file.exists() else "", *self.answers]
        return sorted({name for output in outputs for name in found_in(output)})

    def is_ready(self) -> bool:
        try:
            return self.fetch("/healthz/ready")[0] == 200
        except OSError:
            return False

    def until_ready(self, within: float = 15.0) -> "AgentProcess":
        def ready_or_dead() -> bool:
            return self.is_ready() or self.process.poll() is not None

        eventually(ready_or_dead, within)
        assert self.process.poll() is None, f"the agent ended with {self.process.returncode}:\n{self.errors}{self.log}"
        return self

    def metric(self, name: str) -> float:
        """The value of one sample, named with its labels; KeyError when it is not there."""
        body = self.fetch("/metrics")[1]
        samples = dict(line.rsplit(" ", 1) for line in body.splitlines() if line and not line.startswith("#"))
        return float(samples[name])

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, within: float = 15.0) -> int:
        """Its exit code, -n for signal n."""
        return self.process.wait(within)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it and all it started, whatever state it is in."""
        if self._popen is None or self._popen.poll() is not None:
            return
        for each in reversed(proc_tree(self._popen.pid)):
            try:
                os.kill(each.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._popen.kill()
        self._popen.wait()

    def left_behind(self) -> list[str]:
        """Files the agent should have taken away again."""
        return [str(path) for path in (self.directory / "run").rglob("*")]
