"""`make demo`: the agent's main job on a real Envoy, in half a minute, unprivileged, with no cluster.

Starts the agent in a temporary directory on free ports, does to it what happens to a sidecar in its life, and says what
it saw. Everything it started or wrote is gone at the end, also after Ctrl-C. Exit code 1 when a step did not happen.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAMES = ("statusPort", "proxyAdminPort", "ready", "prometheus", "outbound", "inbound", "application", "service")
LIMIT_S = 30.0
SERVICE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: hello
spec:
  hosts: [hello.example.com]
  ports: [{{number: {service}, name: http, protocol: HTTP, targetPort: {application}}}]
  resolution: {resolution}
  endpoints: [{{address: 127.0.0.1}}]
"""


class StepFailed(Exception):
    """What the demo wanted to show did not happen."""


def say(text: str) -> None:
    print(text, flush=True)


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    held = [socket.socket() for _ in names]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(names, held, strict=True)}
    finally:
        for each in held:
            each.close()


def get(port: int, path: str, host: str = "localhost", method: str = "GET") -> tuple[int, str]:
    """Status and body; status 0 when nobody answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def until(what: str, is_so: Callable[[], bool]) -> float:
    """Milliseconds until it is so. Raises StepFailed."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > LIMIT_S:
            raise StepFailed(f"{what}: not within {LIMIT_S:g} s")
        time.sleep(0.002)
    return (time.monotonic() - began) * 1000


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Demo:
    """One agent and one application in `directory`; the methods are the steps, in order."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = free_ports(NAMES)
        self.mesh = directory / "mesh"
        self.log = directory / "agent.log"
        self.mesh.mkdir()
        self.write_settings(concurrency=1)

    def write_settings(self, **fields: object) -> None:
        config = {
            "configPath": str(self.directory / "proxy"),
            "statusPort": self.ports["statusPort"],
            "proxyAdminPort": self.ports["proxyAdminPort"],
            "interceptionMode": "NONE",  # no iptables here: service listeners open their own ports on loopback
            "drainDuration": "2s",
            **fields,
        }
        document = {
            "proxyListenPort": self.ports["outbound"],
            "proxyInboundListenPort": self.ports["inbound"],
            "defaultConfig": config,
        }
        self.publish(self.directory / "mesh.json", json.dumps(document))

    @staticmethod
    def publish(path: Path, text: str) -> None:
        draft = path.with_name(f".{path.name}")
        draft.write_text(text)
        draft.replace(path)

    @contextmanager
    def running(self) -> Iterator[tuple["subprocess.Popen[bytes]", float]]:
        """The application and the agent, ended on the way out whatever happens; with the moment of the agent's exec."""
        application = [sys.executable, "-m", "examples.application", str(self.ports["application"])]
        target = {"scrape": "true", "port": str(self.ports["application"]), "path": "/metrics"}
        env = os.environ | {
            "ENVOY_STATUS_PORT": str(self.ports["ready"]),
            "ENVOY_PROMETHEUS_PORT": str(self.ports["prometheus"]),
            "ISTIO_PROMETHEUS_ANNOTATIONS": json.dumps(target),
        }
        command = [sys.executable, "-m", "pilot_agent.commands.main", "proxy"]
        command += ["--configDir", str(self.mesh), "--meshConfig", str(self.directory / "mesh.json")]
        with self.log.open("wb") as log, subprocess.Popen(application, start_new_session=True) as app:
            until("the application", lambda: get(self.ports["application"], "/metrics")[0] == 200)
            began = time.monotonic()
            with subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True) as agent:
                try:
                    yield agent, began
                finally:
                    agent.terminate()
                    agent.wait()
                    app.terminate()

    def start(self, began: float) -> None:
        until("ready", lambda: get(self.ports["ready"], "/healthz/ready")[0] == 200)
        say(f"1. ready {(time.monotonic() - began) * 1000:.0f} ms after exec: Envoy's readiness port answers 200")

    def scrape(self) -> None:
        _, body = get(self.ports["statusPort"], "/metrics")
        counts = {
            name: sum(line.startswith(prefix) for line in body.splitlines())
            for name, prefix in (("agent", "istio_agent_"), ("Envoy", "envoy_"), ("application", "demo_"))
        }
        if not all(counts.values()):
            raise StepFailed(f"a source is missing in the merged metrics: {counts}")
        shares = ", ".join(f"{count} samples of {name}" for name, count in counts.items())
        say(f"2. one scrape, three sources: {shares}")

    def kill_envoy(self, agent: int) -> None:
        envoy = children(agent)[0]
        os.kill(envoy, signal.SIGKILL)
        began = time.monotonic()
        reasons = set()

        def is_back() -> bool:
            status, body = get(self.ports["statusPort"], "/healthz/ready")
            if status == 503:
                reasons.add(body.strip().split(" (pid")[0])
            return envoy not in children(agent) and get(self.ports["ready"], "/healthz/ready")[0] == 200

        until("Envoy back", is_back)
        say(f"3. killed Envoy (pid {envoy}) with -9: back after {(time.monotonic() - began) * 1000:.0f} ms")
        for reason in sorted(reasons):
            say(f"   readiness said meanwhile: {reason}")

    def hello(self) -> tuple[int, str]:
        return get(self.ports["service"], "/", host="hello.example.com")

    def add_service(self) -> None:
        self.publish(self.mesh / "hello.yaml", SERVICE.format(resolution="STATIC", **self.ports))
        took = until("the new service", lambda: self.hello()[0] == 200)
        say(f"4. wrote a ServiceEntry: live in Envoy {took:.0f} ms later")
        say(f"   a request through it got: {self.hello()[1].strip()}")

    def break_service(self) -> None:
        self.publish(self.mesh / "hello.yaml", SERVICE.format(resolution="STATICC", **self.ports))

        def refusal() -> list[str]:
            report = get(self.ports["statusPort"], "/healthz/ready?verbose")[1]
            return [line for line in report.splitlines() if "hello.yaml" in line]

        until("the refusal", lambda: refusal() != [])
        if self.hello()[0] != 200:
            raise StepFailed("the last good version does not serve any more")
        say(f"5. broke that file: {refusal()[0]}")
        say(f"   its last good version still serves: {self.hello()[1].strip()}")

    def change_settings(self) -> None:
        """A planned change: Envoy is replaced under load by a hot restart."""
        results: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                results.append(self.hello()[0])

        clients = [threading.Thread(target=ask) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            self.write_settings(concurrency=2)
            name = 'istio_agent_envoy_restarts_total{reason="hot-restart"} 1'
            took = until("the hot restart", lambda: name in get(self.ports["statusPort"], "/metrics")[1])
        finally:
            stop.set()
            for client in clients:
                client.join()
        failed = sum(status != 200 for status in results)
        if failed:
            raise StepFailed(f"{failed} of {len(results)} requests failed during the hot restart")
        say(f"6. changed the settings: hot restart in {took:.0f} ms, {len(results)} requests meanwhile, none failed")

    def stop(self, agent: "subprocess.Popen[bytes]") -> None:
        agent.send_signal(signal.SIGINT)
        took = until("the end", lambda: agent.poll() is not None)
        left = [str(path) for path in (self.directory / "proxy").rglob("*")]
        if agent.returncode != 0 or left:
            raise StepFailed(f"exit code {agent.returncode}, left behind: {left}")
        say(f"7. Ctrl-C: drained and stopped in {took:.0f} ms with exit code 0, and left nothing behind")


def main() -> int:
    say("pilot-agent runs a real Envoy with an application beside it. What happens to a sidecar in its life:")
    # The finally blocks below must run for a `kill` as they do for Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with tempfile.TemporaryDirectory(prefix="pilot-agent-demo-") as directory:
        demo = Demo(Path(directory))
        try:
            with demo.running() as (agent, began):
                demo.start(began)
                demo.scrape()
                demo.kill_envoy(agent.pid)
                demo.add_service()
                demo.break_service()
                demo.change_settings()
                demo.stop(agent)
        except StepFailed as failure:
            print(f"the demo failed: {failure}\nthe agent's log:\n{demo.log.read_text()}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            with suppress(OSError):
                say("interrupted: everything that was started is stopped")
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
