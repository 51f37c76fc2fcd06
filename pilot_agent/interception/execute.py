"""How this package runs other programs: argv and standard input in, exit code and both outputs out.

No shell, a deadline, next to no environment. Whoever needs a command takes a `Run`; tests give their own. A command
works in the network namespace of the thread that calls; `inside` is how a thread gets into another one.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from pilot_agent.errors import InterceptionError

STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMEOUT_SECONDS = 60.0
"""Longer than iptables-legacy waits for its lock (30 s), so that its own words are what a person gets to read."""
_CLONE_NEWNET = 0x40000000


class CommandMissing(InterceptionError):
    """The program is not installed, or not where PATH leads."""


class Outcome(NamedTuple):
    """What a command ended with. `code` below 0: killed by that signal."""

    code: int
    output: str = ""
    complaints: str = ""

    @property
    def reason(self) -> str:
        """In one line: the first line of what it complained of, else its exit code."""
        first = next((line.strip() for line in self.complaints.splitlines() if line.strip()), "")
        return first or f"exit status {self.code}"


class Run(Protocol):
    """Runs a command to its end. Raises CommandMissing, and InterceptionError when it can't be started or hangs."""

    def __call__(self, argv: Sequence[str], stdin: str = "", variables: Mapping[str, str] | None = None) -> Outcome: ...


class Commands:
    """The real `Run`. `path` is where programs are looked for; `variables` of a call come on top of PATH and LANG."""

    def __init__(self, path: str = STANDARD_PATH, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._path, self._timeout = path, timeout_seconds

    def __call__(self, argv: Sequence[str], stdin: str = "", variables: Mapping[str, str] | None = None) -> Outcome:
        # In English, whatever the container speaks: some of these words are looked at.
        environment = {"PATH": self._path, "LANG": "C", **(variables or {})}
        try:
            done = subprocess.run(
                argv,
                input=stdin,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                env=environment,
                timeout=self._timeout,
                check=False,
            )
        except FileNotFoundError:
            raise CommandMissing(f"{argv[0]} was not found: it is not installed, or not in {self._path}") from None
        except subprocess.TimeoutExpired:
            raise InterceptionError(f"{' '.join(argv)}: not done after {self._timeout:g} s, and killed") from None
        except OSError as error:
            raise InterceptionError(f"{argv[0]} can't be run: {error.strerror}") from None
        return Outcome(done.returncode, done.stdout, done.stderr)


@contextmanager
def inside(network_namespace: Path) -> Iterator[None]:
    """The calling thread, and every command it runs, is in the namespace of this file, such as /run/netns/X.

    Other threads stay where they are; one that is started inside stays inside. Raises InterceptionError.
    """
    try:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(network_namespace)
            try:
                yield
            finally:
                _set_namespace(before)
        finally:
            os.close(before)
    except _NamespaceError as error:
        raise InterceptionError(f"network namespace {network_namespace}: {error}") from None


class _NamespaceError(Exception):
    """Kept apart from an OSError of what is done inside."""


def _enter(network_namespace: Path) -> None:
    try:
        target = os.open(network_namespace, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _NamespaceError(error.strerror) from None
    try:
        _set_namespace(target)
    finally:
        os.close(target)


def _set_namespace(descriptor: int) -> None:
    import ctypes  # Python has setns from 3.12 on

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise _NamespaceError(f"{os.strerror(ctypes.get_errno())} (entering one takes CAP_SYS_ADMIN)")
