"""Network namespaces for tests, with names of their own, and code that runs inside them. Needs root and iproute2."""

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


def missing() -> str | None:
    """Why namespaces can't be made here; None when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [command for command in ("ip", "iptables", "setpriv") if shutil.which(command) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


class Namespace:
    """A network namespace, `lo` up. Never touches the one the tests run in."""

    def __init__(self, role: str) -> None:
        self.name = f"pa-{os.getpid()}-{role}-{next(_numbers)}"
        self.prefix = ("ip", "netns", "exec", self.name)

    def run(self, *argv: str) -> str:
        """Run a command inside; its standard output. CalledProcessError when it fails."""
        return subprocess.run([*self.prefix, *argv], check=True, capture_output=True, text=True, timeout=30).stdout

    def call(self, function: Callable[[], Result]) -> Result:
        """Call `function` inside: in a thread of its own, since a thread has its own network namespace."""

        def enter() -> None:
            with Path("/run/netns", self.name).open("rb") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {self.name}")

        with ThreadPoolExecutor(1, initializer=enter) as inside:
            return inside.submit(function).result()


@contextmanager
def namespace(role: str) -> Iterator[Namespace]:
    made = Namespace(role)
    _ip("netns", "add", made.name)
    try:
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        _ip("netns", "del", made.name)


def connect(left: Namespace, left_address: str, right: Namespace, right_address: str) -> None:
    """A cable (veth) between two namespaces, each end with an address such as 10.77.0.1/24."""
    near = f"pa{os.getpid() % 100000}x{next(_numbers)}"
    _ip("-n", left.name, "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", right.name)
    left.run("ip", "link", "set", near, "name", "eth0")
    for end, address in ((left, left_address), (right, right_address)):
        add_address(end, address)
        end.run("ip", "link", "set", "eth0", "up")


def add_address(where: Namespace, address: str) -> None:
    """Without duplicate address detection, which would keep an IPv6 address unusable for a second."""
    where.run("ip", "addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))


def _ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True, capture_output=True, text=True, timeout=30)
