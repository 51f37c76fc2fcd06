"""The stage: a CA, pods and the network between them, made in one directory and taken away whole.

    with Stage(directory) as stage:
        sleep, httpbin = stage.pod(Spec("sleep")), stage.pod(Spec("httpbin", application=80))
        stage.resolve("httpbin", "10.96.0.10")
        stage.write("httpbin.yaml", TEXT)
        stage.start()
        sleep.curl("http://httpbin:8000/hostname")

As root each pod is a network namespace with rules that capture its traffic; `is_isolated=False` puts all of them on
this machine's loopback. What a demo that was killed left behind is `clear_leftovers`' to take away.
"""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from pilot_agent.demo.network import (
    Address,
    Host,
    Namespace,
    delete,
    join,
    join_all,
    name_of,
    orphaned,
    processes_in,
    set_up,
)
from pilot_agent.demo.pod import Pod, Ports, Spec
from pilot_agent.demo.process import AGENT, variables
from pilot_agent.errors import DemoError

STOP_WITHIN_S = 8.0
DIRECTORY_PREFIX = "pilot-agent-demo-"
PAIR = 2
V4_NETWORK, V6_NETWORK = "10.244.0", "fd00:10:244:"
FIRST_HOST = 10

_numbers = itertools.count()


class Stage:
    """`families` of every pod, the first being the one that counts: ("IPv4",), ("IPv6",), or both."""

    def __init__(
        self, directory: Path, *, is_isolated: bool = True, families: tuple[str, ...] = ("IPv4",), ca_ttl: str = "24h"
    ) -> None:
        self.directory, self.is_isolated, self.families = directory, is_isolated, families
        self.pods: dict[str, Pod] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._namespaces: list[Namespace] = []
        self._number = next(_numbers)
        self._ca_ttl = ca_ttl
        self._ca = directory / "ca"
        self._is_captured = False

    def __enter__(self) -> "Stage":
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)  # Envoy's user passes through
        _run([*AGENT, "ca", "init", "--directory", str(self._ca), "--ttl", self._ca_ttl])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # before start

    def pod(self, spec: Spec) -> Pod:
        """A pod with its addresses; nothing of it runs before `start`."""
        directory = self.directory / spec.name
        directory.mkdir()
        shutil.copytree(self._ca, directory / "ca")
        if self.is_isolated:
            place: Namespace | Host = self._namespace(spec.name)
            pod = Pod(spec, place, self._addresses(len(self.pods)), Ports(), directory)
        else:
            ports = Ports(*free_ports(len(Ports._fields)))
            spec = spec._replace(mode="NONE")
            pod = Pod(spec, Host(), [Address("127.0.0.1", 8)], ports, directory)
        self.pods[spec.name] = pod
        return pod

    def _addresses(self, place: int) -> list[Address]:
        networks = {"IPv4": (V4_NETWORK + ".", 24), "IPv6": (V6_NETWORK + ":", 64)}
        return [Address(f"{networks[each][0]}{FIRST_HOST + place}", networks[each][1]) for each in self.families]

    def _namespace(self, role: str) -> Namespace:
        made = Namespace(name_of(role, self._number))
        self._namespaces.append(made)
        return made

    def resolve(self, name: str, *addresses: str) -> None:
        """What `name` is in every pod: a service's addresses. Any address is routed out of eth0."""
        self._names[name] = addresses

    def write(self, name: str, text: str) -> None:
        """A document that every pod gets."""
        for pod in self.pods.values():
            pod.write(name, text)

    def remove(self, name: str) -> None:
        for pod in self.pods.values():
            pod.remove(name)

    # the run

    def start(self) -> None:
        """Network, applications, agents, rules; returns when every pod is ready. Raises DemoError."""
        if self.is_isolated:
            self._connect()
        for pod in self.pods.values():
            pod.start_application()
            pod.start_agent()
        if self.is_isolated:
            captures = [(pod, pod.begin_capture()) for pod in self.pods.values()]
            for pod, running in captures:
                pod.finish_capture(running)
        for pod in self.pods.values():
            pod.until_ready()

    def _connect(self) -> None:
        isolated = list(self._namespaces)
        if len(isolated) == PAIR:
            join(*isolated)
        elif isolated[1:]:
            join_all(self._namespace("switch"), isolated)
        for pod, place in zip(self.pods.values(), isolated, strict=True):
            place.set_hosts(self._names)
            if isolated[1:]:
                set_up(place, pod.addresses)

    # the end

    def close(self) -> None:
        """End and delete everything; also when only a part of it was made."""
        for pod in self.pods.values():
            pod.begin_stop()
        for pod in self.pods.values():
            pod.finish_stop(STOP_WITHIN_S)
        for namespace in self._namespaces:
            kill_all(processes_in(namespace.name))
            namespace.close()
        self._namespaces.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def leftovers(self) -> list[str]:
        """What is still there of it, after `close`: nothing."""
        return [
            *(str(self.directory) for _ in [0] if self.directory.exists()),
            *(f"network namespace {name}" for name in _present(name_of("", self._number))),
            *(f"process {pod.agent.pid}" for pod in self.pods.values() if pod.agent.is_running),
        ]


def _present(prefix: str) -> list[str]:
    from pilot_agent.demo.network import NAMESPACES

    return [path.name for path in NAMESPACES.glob(f"{prefix}*")] if NAMESPACES.is_dir() else []


def new_directory() -> Path:
    """In the directory for temporary files; whoever finds it later can tell whether its owner still runs."""
    return Path(tempfile.mkdtemp(prefix=f"{DIRECTORY_PREFIX}{os.getpid()}-"))


def clear_leftovers() -> list[str]:
    """Take away what demos left that were killed themselves; the names of it. Only what is ours by its name."""
    taken = []
    for name in orphaned() if os.geteuid() == 0 else []:
        kill_all(processes_in(name))
        delete(name)
        taken.append(f"network namespace {name}")
    for path in Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*-*"):
        owner = path.name.removeprefix(DIRECTORY_PREFIX).partition("-")[0]
        is_ours = path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid()
        if owner.isdecimal() and not Path("/proc", owner).exists() and is_ours:
            shutil.rmtree(path, ignore_errors=True)
            taken.append(str(path))
    return taken


def kill_all(pids: Iterable[int]) -> None:
    """Processes in a namespace of ours that should have ended by themselves."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def free_ports(count: int) -> list[int]:
    """Of the loopback; nobody holds them for us."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=variables(), start_new_session=True)
    if done.returncode != 0:
        raise DemoError(done.stderr.strip())
