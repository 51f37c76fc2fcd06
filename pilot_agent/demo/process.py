"""One process of the demo: started with a log of its own, in a session of its own, ended with the demo.

Knows how to become another user, and what a process needs for it; not what it runs. Called by pod and stage.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pilot_agent
from pilot_agent.demo.network import Place
from pilot_agent.errors import DemoError
from pilot_agent.interception.execute import STANDARD_PATH

_PR_SET_PDEATHSIG = 1
PACKAGE = Path(pilot_agent.__file__).resolve().parent
AGENT = (sys.executable, "-m", "pilot_agent.commands.main")
TAIL_LINES = 12


class User(NamedTuple):
    """Who a process runs as, with these capabilities and no others."""

    uid: int
    gid: int
    capabilities: tuple[str, ...] = ()

    def wrapped(self, argv: Sequence[str]) -> list[str]:
        """The command as it runs as this user, and with SIGTERM when its parent dies.

        util-linux's `setpriv` last of all: a change of user clears what was said about the parent's death.
        """
        kept = ",".join(["-all", *(f"+{each}" for each in self.capabilities)])
        who = ["--reuid", str(self.uid), "--regid", str(self.gid), "--clear-groups", "--pdeathsig", "TERM"]
        handed_on = [] if self.uid == 0 or not self.capabilities else [f"--inh-caps={kept}", f"--ambient-caps={kept}"]
        return ["setpriv", *who, *handed_on, f"--bounding-set={kept}", *argv]


def is_open_to_others() -> bool:
    """Whether any user may run this interpreter and this package: not where they lie in somebody's home."""
    roots = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent, PACKAGE}
    directories = {directory for root in roots for directory in (root, *root.parents)}
    return all(directory.stat().st_mode & 0o001 for directory in directories)


def variables(**more: str) -> dict[str, str]:
    """The environment of a process: next to nothing of ours."""
    return {
        "PATH": f"{os.environ.get('PATH', '')}:{STANDARD_PATH}",
        "LANG": "C",
        "PYTHONPATH": str(PACKAGE.parent),
    } | more


class Process:
    """It runs until `stop`. `log` gets all its output."""

    def __init__(self, argv: Sequence[str], place: Place, user: User | None, directory: Path, log: Path) -> None:
        self._argv, self._place, self._user, self._directory, self.log = tuple(argv), place, user, directory, log
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Raises DemoError when it can't be."""
        argv = self._place.wrapped(self._user.wrapped(self._argv) if self._user else self._argv)
        prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

        def end_with_parent() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        with self.log.open("ab") as log:
            try:
                self._popen = subprocess.Popen(
                    argv,
                    cwd=self._directory,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the demo, which then ends everything in its order
                    preexec_fn=end_with_parent,  # noqa: PLW1509 - two system calls, no lock taken
                )
            except OSError as error:
                raise DemoError(f"{argv[0]} can't be run: {error.strerror}") from None

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def children(self) -> list[int]:
        """Pids of what it started itself."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except (OSError, ValueError):
            return []

    def signal(self, number: signal.Signals) -> None:
        if self.is_running:
            os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Its exit code. Whatever runs for longer is killed."""
        if self._popen is None:
            return 0
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def check(self, what: str) -> None:
        """Raises DemoError with its last words when it has ended."""
        if self._popen is not None and self._popen.poll() is not None:
            code = self._popen.returncode
            raise DemoError(f"{what} ended with exit code {code}; its last words:\n{self.tail()}")

    def tail(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])
