"""One pod: a place, an application, and an agent with its Envoy, documents, identity and access log.

A pod in a namespace runs as Istio's containers do (Envoy as uid 1337, Istio's ports); one on this machine's loopback
as we do, on free ports. Called by stage, which makes pods, and by the story, which does things to them.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pilot_agent.demo import access_log
from pilot_agent.demo.http_request import Answer, parse_answer, request
from pilot_agent.demo.network import Address, Host, Namespace
from pilot_agent.demo.process import AGENT, Process, User, is_open_to_others, variables
from pilot_agent.demo.spec import Ports, Spec
from pilot_agent.errors import DemoError
from pilot_agent.interception.counters import CountedChain, counters
from pilot_agent.interception.execute import Commands

PROXY_USER = 1337
LIMIT_S = 20.0
PAUSE_S = 0.005
RULES = ("-p", "15001", "-z", "15006", "-u", "1337", "-g", "1337", "-i", "*", "-x", "", "-b", "*")
SPARED = ("-d", "15090,15021,15020")


class Pod:
    """`place` and `addresses` are given, `directory` is its own and there already, with the CA's copy in `ca`."""

    def __init__(
        self, spec: Spec, place: Namespace | Host, addresses: Sequence[Address], ports: Ports, directory: Path
    ) -> None:
        self.spec, self.place, self.addresses, self.ports = spec, place, tuple(addresses), ports
        self.mode = spec.mode
        self.directory, self.documents = directory, directory / "mesh"
        self.access_log_path, self.application_log_path = directory / "access.log", directory / "application.log"
        self.documents.mkdir()
        self._write_labels()
        self._agent = self._process("agent", [])
        self._application = self._process("application", [])
        self.proxy_config: dict[str, object] = {}

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def address(self) -> str:
        return self.addresses[0].ip

    @property
    def is_isolated(self) -> bool:
        """In a namespace, with rules that capture its traffic."""
        return isinstance(self.place, Namespace)

    # documents and settings

    def write(self, name: str, text: str) -> None:
        """A document of its configDir, there as a whole or not at all."""
        publish(self.documents / name, text)

    def remove(self, name: str) -> None:
        (self.documents / name).unlink(missing_ok=True)

    def write_settings(self, **fields: object) -> None:
        """The mesh file: what the pod's spec says, and these fields of ProxyConfig from now on."""
        self.proxy_config |= fields
        config = {
            "configPath": str(self.directory / "proxy"),
            "statusPort": self.ports.status,
            "proxyAdminPort": self.ports.admin,
            "interceptionMode": self.mode,
            "concurrency": 1,
            "drainDuration": "2s",
            **self.spec.proxy_config,
            **self.proxy_config,
        }
        document = {
            "proxyListenPort": self.ports.outbound,
            "proxyInboundListenPort": self.ports.inbound,
            "accessLogFile": str(self.access_log_path),
            **self.spec.mesh_config,
            "defaultConfig": config,
        }
        publish(self.directory / "mesh.yaml", json.dumps(document, indent=2))

    def _write_labels(self) -> None:
        """As the downward API has them."""
        file = self.directory / "etc" / "istio" / "pod" / "labels"
        file.parent.mkdir(parents=True)
        file.write_text("".join(f'{key}="{value}"\n' for key, value in self.spec.labels.items()))

    # processes

    @property
    def user(self) -> User | None:
        """Who agent and Envoy are: the user the rules let pass.

        With TPROXY that is the group: Envoy's connection to the application comes from the client's address, and rule 2
        would send it back to Envoy if it were uid 1337's. Root with one capability, as in Istio.
        """
        if not self.is_isolated:
            return None
        reading = () if is_open_to_others() else ("dac_read_search",)
        if self.mode == "TPROXY":
            return User(0, PROXY_USER, ("net_admin", *reading))
        return User(PROXY_USER, PROXY_USER, reading)

    def _process(self, name: str, argv: Sequence[str], user: User | None = None) -> Process:
        return Process(argv, self.place, user, self.directory, self.directory / f"{name}.log")

    def start_application(self) -> None:
        if self.spec.application:
            host = "127.0.0.1" if not self.is_isolated else "::" if self._has_v6 else "0.0.0.0"  # noqa: S104 - a pod's own
            argv = [sys.executable, "-m", "pilot_agent.demo.httpbin", "--host", host, "--name", f"{self.name}-0"]
            argv += ["--port", str(self.spec.application), "--log", str(self.application_log_path)]
            self._application = self._process("application.output", argv)
            self._application.start(variables())

    @property
    def _has_v6(self) -> bool:
        return any(address.is_v6 for address in self.addresses)

    def start_agent(self) -> None:
        """Start it; `until_ready` waits for it."""
        self.write_settings()
        user = self.user
        if user is not None:
            self._give_to(user)
        argv = [*AGENT, "proxy", "--configDir", "mesh", "--meshConfig", "mesh.yaml", "--caDir", "ca"]
        self._agent = self._process("agent", argv, user)
        environment = {
            "POD_NAME": f"{self.name}-0",
            "POD_NAMESPACE": self.spec.namespace,
            "SERVICE_ACCOUNT": self.spec.service_account,
            "INSTANCE_IP": self.address,
            "ENVOY_STATUS_PORT": str(self.ports.ready),
            "ENVOY_PROMETHEUS_PORT": str(self.ports.prometheus),
            "CLOUD_PLATFORM": "none",
            "ISTIO_DUAL_STACK": str(len(self.addresses) > 1).lower(),
            **self.spec.variables,
        }
        self._agent.start(variables(**environment))

    def _give_to(self, user: User) -> None:
        for path in (self.directory, *self.directory.rglob("*")):
            os.chown(path, user.uid, user.gid)

    @property
    def rule_flags(self) -> list[str]:
        """Of istio-iptables: those of Istio's injector, and whose namespace."""
        families = ["--dual-stack"] if len(self.addresses) > 1 else []
        return ["--network-namespace", self.place.name, "-m", self.mode, *RULES, *SPARED, *families]

    def begin_capture(self) -> "subprocess.Popen[str]":
        """Make the rules of `mode`, from whatever rules are there; `finish_capture` waits for it."""
        argv = [*AGENT, "istio-iptables", *self.rule_flags]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=variables(), start_new_session=True)

    def finish_capture(self, running: "subprocess.Popen[str]") -> None:
        """Raises DemoError when the rules could not be made."""
        with running:
            _, complaints = running.communicate(timeout=LIMIT_S)
        if running.returncode != 0:
            raise DemoError(f"{self.name}: {complaints.strip()}")

    def until_ready(self) -> None:
        """Application and agent. Raises DemoError with the reason why not."""
        self.until("ready", lambda: self.is_application_up() and self.is_ready())

    def is_application_up(self) -> bool:
        return not self.spec.application or self.get("/metrics", self.spec.application).status == 200

    def is_ready(self) -> bool:
        return self.get("/healthz/ready", self.ports.ready).status == 200

    def readiness(self) -> str:
        """The reason in one line; "" when it is ready."""
        answer = self.get("/healthz/ready", self.ports.status)
        return "" if answer.status == 200 else answer.body.strip()

    def until(self, what: str, is_so: Callable[[], bool], within: float = LIMIT_S) -> float:
        """Milliseconds until it is so. Raises DemoError when it takes too long, or a process has ended."""
        began = time.monotonic()
        while not is_so():
            self._agent.check(f"{self.name}: the agent")
            self._application.check(f"{self.name}: the application")
            if time.monotonic() - began > within:
                raise DemoError(f"{self.name}: {what}: not within {within:g} s\n{self._agent.tail()}")
            time.sleep(PAUSE_S)
        return (time.monotonic() - began) * 1000

    @property
    def agent(self) -> Process:
        return self._agent

    @property
    def envoys(self) -> list[int]:
        """Pids: one, and two during a hot restart."""
        return [pid for pid in self._agent.children() if _command_of(pid).endswith("envoy")]

    def stop_agent(self) -> int:
        """Its exit code."""
        self._agent.signal(signal.SIGTERM)
        return self._agent.wait(LIMIT_S)

    def begin_stop(self) -> None:
        self._agent.signal(signal.SIGCONT)
        self._agent.signal(signal.SIGTERM)
        self._application.signal(signal.SIGTERM)

    def finish_stop(self, seconds: float) -> list[str]:
        """What did not end as it should have: a fault of the agent's, or of ours that interrupted its start."""
        code = self._agent.wait(seconds)
        self._application.wait(seconds)
        left = [str(path) for path in (self.directory / "proxy").rglob("*")]
        return [f"{self.name}'s agent ended with {code}"] * (code != 0) + [f"{self.name}'s agent left {left}"] * bool(
            left
        )

    # questions

    def get(self, path: str, port: int, method: str = "GET") -> Answer:
        """One request to a port of its loopback."""
        return self.place.call(lambda: request(self.loopback, port, path, method))

    @property
    def loopback(self) -> str:
        return "::1" if self.addresses and self.addresses[0].is_v6 else "127.0.0.1"

    def admin(self, path: str) -> Any:
        """JSON of Envoy's admin interface. Raises DemoError."""
        answer = self.get(path, self.ports.admin)
        if answer.status != 200:
            raise DemoError(f"{self.name}: Envoy's admin interface answered {path} with {answer.status} {answer.body}")
        return json.loads(answer.body)

    def curl(self, url: str, *options: str, user: User | None = None) -> Answer:
        """What a process of the pod gets from curl, as root or as `user`; without curl, from Python's own client."""
        command = (*_client(), *options, url)
        argv = self.place.wrapped(user.wrapped(command) if user is not None and self.is_isolated else command)
        done = subprocess.run(
            argv, capture_output=True, encoding="utf-8", errors="replace", check=False, env=variables(), timeout=30
        )
        return parse_answer(done.stdout) if done.returncode == 0 else Answer(0, done.stderr.strip())

    def counters(self) -> tuple[CountedChain, ...]:
        """Of the rules in its namespace."""
        return self.place.call(lambda: counters(Commands()))

    def access_log(self) -> list[access_log.AccessLogLine]:
        return access_log.read(self.access_log_path)

    def application_log(self) -> list[dict[str, Any]]:
        """Requests as its application saw them: path, source, destination, status, headers."""
        try:
            lines = self.application_log_path.read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]


def _client() -> tuple[str, ...]:
    program = shutil.which("curl")
    return (program, "-sS", "-i", "-m", "15") if program else (sys.executable, "-m", "pilot_agent.demo.fetch")


def publish(path: Path, text: str) -> None:
    """Readable by whoever the agent is, and there as a whole or not at all."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _command_of(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return ""
