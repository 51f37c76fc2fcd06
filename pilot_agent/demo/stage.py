"""The stage: a CA, pods and the network between them, made in one directory and taken away whole.

    with Stage(directory) as stage:
        sleep, httpbin = stage.pod(Spec("sleep")), stage.pod(Spec("httpbin", application=80))
        stage.resolve("httpbin", "10.96.0.10")
        stage.write("httpbin.yaml", TEXT)
        stage.start()
        sleep.curl("http://httpbin:8000/hostname")

As root each pod is a network namespace with rules that capture its traffic; `is_isolated=False` puts all of them on
this machine's loopback.
"""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from pilot_agent.demo.leftovers import kill_all
from pilot_agent.demo.network import (
    NAMESPACES,
    Address,
    Host,
    Namespace,
    join,
    join_all,
    name_of,
    processes_in,
    set_up,
)
from pilot_agent.demo.pod import Pod
from pilot_agent.demo.process import AGENT, variables
from pilot_agent.demo.spec import Ports, Spec
from pilot_agent.errors import DemoError

STOP_WITHIN_S = 8.0
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
        self.faults: list[str] = []
        """What did not end as it should have; known after `close`."""
        self._names: dict[str, tuple[str, ...]] = {}
        self._namespaces: list[Namespace] = []
        self._number = next(_numbers)
        self._ca_ttl = ca_ttl
        self._ca = directory / "ca"

    def __enter__(self) -> "Stage":
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)  # Envoy's user passes through
        try:
            _run([*AGENT, "ca", "init", "--directory", str(self._ca), "--ttl", self._ca_ttl])
        except BaseException:
            self.close()
            raise
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
        self._namespaces.append(made)  # first: whatever interrupts us, it is deleted
        made.create()
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
        else:
            join_all(self._namespace("switch"), isolated)
        for pod, place in zip(self.pods.values(), isolated, strict=True):
            place.set_hosts(self._names)
            set_up(place, pod.addresses)

    # the end

    def close(self) -> None:
        """End and delete everything; also when only a part of it was made. No signal comes in between."""
        with undisturbed():
            self._close()

    def _close(self) -> None:
        for pod in self.pods.values():
            pod.begin_stop()
        for pod in self.pods.values():
            self.faults += pod.finish_stop(STOP_WITHIN_S)
        for namespace in self._namespaces:
            try:
                kill_all(processes_in(namespace.name))
                namespace.close()
            except DemoError as error:
                self.faults.append(str(error))  # and the others go all the same
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
    return [path.name for path in NAMESPACES.glob(f"{prefix}*")] if NAMESPACES.is_dir() else []


@contextmanager
def undisturbed() -> Iterator[None]:
    """What ends a process waits until this is done. Outside the main thread nothing comes in between anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before = {number: signal.signal(number, lambda which, _: waiting.append(which)) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            os.kill(os.getpid(), waiting[0])


def free_ports(count: int, wanted: int = 0) -> list[int]:
    """Of the loopback, the first being `wanted` if that is free; nobody holds them for us."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each, port in zip(held, [wanted, *[0] * count], strict=False):
            try:
                each.bind(("127.0.0.1", port))
            except OSError:
                each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env=variables(), start_new_session=True
        )
    except OSError as error:
        raise DemoError(f"{argv[0]} can't be run: {error.strerror}") from None
    if done.returncode != 0:
        raise DemoError(done.stderr.strip())
