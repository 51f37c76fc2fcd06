"""Network namespaces that stand for pods: made, joined by cables (veth), entered, deleted. Needs root and iproute2.

`Host` is the same without root: everything where we are. What runs inside is pod's to know. The hosts file of a
namespace lies where `ip netns exec` looks for it, so that whoever enters that way resolves the same names.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from pilot_agent.errors import DemoError
from pilot_agent.interception.execute import STANDARD_PATH, inside

Result = TypeVar("Result")

NAMESPACES = Path("/run/netns")
ETC = Path("/etc/netns")
COMMANDS = ("ip", "iptables", "setpriv")
PREFIX = "demo"
_NAME = re.compile(rf"{PREFIX}-(\d+)(?:x\d+)?-.+")


class Place(Protocol):
    """Where a pod is."""

    name: str

    def wrapped(self, argv: Sequence[str]) -> list[str]:
        """The command as it runs there."""

    def call(self, function: Callable[[], Result]) -> Result:
        """Call `function` there, in a thread of its own where that is elsewhere."""


class Host:
    """Here: no namespace at all."""

    name = "this machine"

    def wrapped(self, argv: Sequence[str]) -> list[str]:
        return list(argv)

    def call(self, function: Callable[[], Result]) -> Result:
        return function()


class Namespace:
    """One network namespace. `create` makes it, `lo` up; `close` deletes it, and what lies in /etc/netns for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = NAMESPACES / name

    def create(self) -> None:
        """Raises DemoError."""
        ip("netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    def wrapped(self, argv: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str) -> str:
        """Run a command inside; its standard output. Raises DemoError."""
        return _run(self.wrapped(argv))

    def call(self, function: Callable[[], Result]) -> Result:
        """In a thread: a thread has a network namespace of its own, and the others stay where they are."""

        def enter_and_call() -> Result:
            with inside(self.path):
                return function()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(enter_and_call).result()

    def set_hosts(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """The hosts file of whatever enters from now on: addresses by name."""
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        lines += [f"{address} {name}" for name, found in addresses.items() for address in found]
        try:
            (ETC / self.name).mkdir(parents=True, exist_ok=True)
            (ETC / self.name / "hosts").write_text("\n".join(lines) + "\n")
        except OSError as error:
            raise DemoError(f"{ETC / self.name}: {error.strerror}; names are resolved by a file there") from None

    def close(self) -> None:
        delete(self.name)


class Address(NamedTuple):
    """An address of a pod, with the length of its network's prefix."""

    ip: str
    prefix: int

    def __str__(self) -> str:
        return f"{self.ip}/{self.prefix}"

    @property
    def is_v6(self) -> bool:
        return ":" in self.ip


def missing_for_namespaces() -> str | None:
    """Why namespaces can't be made here; None when they can: one is made, and deleted."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [command for command in COMMANDS if shutil.which(command, path=STANDARD_PATH) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    trial = Namespace(name_of("trial", 0))
    try:
        trial.create()
    except DemoError as error:
        return str(error)
    finally:
        trial.close()
    return None


def join(left: Namespace, right: Namespace) -> None:
    """A cable from eth0 to eth0."""
    ip("link", "add", "eth0", "netns", left.name, "type", "veth", "peer", "name", "eth0", "netns", right.name)


def join_all(switch: Namespace, pods: Iterable[Namespace]) -> None:
    """A cable from each pod's eth0 to a bridge in `switch`."""
    switch.run("ip", "link", "add", "br0", "type", "bridge")
    switch.run("ip", "link", "set", "br0", "up")
    for number, pod in enumerate(pods):
        end = f"port{number}"
        ip("link", "add", "eth0", "netns", pod.name, "type", "veth", "peer", "name", end, "netns", switch.name)
        switch.run("ip", "link", "set", end, "master", "br0", "up")


def set_up(pod: Namespace, addresses: Iterable[Address]) -> None:
    """Addresses on eth0, and everything else out of it, so that what is sent to a service's address is sent at all.

    Without duplicate address detection, which would keep an IPv6 address unusable for a second.
    """
    addresses = tuple(addresses)
    for address in addresses:
        pod.run("ip", "addr", "add", str(address), "dev", "eth0", *(["nodad"] if address.is_v6 else []))
    pod.run("ip", "link", "set", "eth0", "up")
    for family in {"-6" if address.is_v6 else "-4" for address in addresses}:
        pod.run("ip", family, "route", "add", "default", "dev", "eth0")


def delete(name: str) -> None:
    """A namespace, whatever is left of it."""
    if (NAMESPACES / name).exists():
        ip("netns", "del", name)
    shutil.rmtree(ETC / name, ignore_errors=True)
    try:
        ETC.rmdir()
    except OSError:
        pass  # it was there before us, or has others' files


def name_of(role: str, number: int) -> str:
    """Of a namespace of this process: whoever finds it later can tell whether its owner still runs."""
    return f"{PREFIX}-{os.getpid()}{f'x{number}' if number else ''}-{role}"


def orphaned() -> list[str]:
    """Namespaces of demos that were killed before they could delete them."""
    names = {path.name for directory in (NAMESPACES, ETC) if directory.is_dir() for path in directory.iterdir()}
    owners = {name: _NAME.fullmatch(name) for name in names}
    return sorted(name for name, owner in owners.items() if owner and not Path("/proc", owner[1]).exists())


def processes_in(name: str) -> list[int]:
    """Pids."""
    if not (NAMESPACES / name).exists():
        return []
    return [int(pid) for pid in ip("netns", "pids", name).split()]


def ip(*argv: str) -> str:
    """Raises DemoError."""
    return _run(["ip", *argv])


def _run(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=30,
            env={"PATH": STANDARD_PATH, "LANG": "C"},
            start_new_session=True,  # Ctrl-C is for us: a step is done, or not begun
        )
    except FileNotFoundError:
        raise DemoError(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise DemoError(f"{' '.join(argv)}: not done after 30 s") from None
    if done.returncode != 0:
        raise DemoError(f"{' '.join(argv)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
