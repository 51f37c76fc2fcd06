"""Waiting for children: our own, each by its owner, and as PID 1 (or subreaper) the orphans the kernel gives us.

A bare `waitpid(-1)` would steal the exit codes of our own children (measured: 9 of 60 lost), so one place does all the
waiting: owners first, and only then zombies that nobody owns.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pilot_agent.log import Scope

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


class Reaper:
    """`own` a child right after its spawn, in the same step of the event loop; `sweep` on every SIGCHLD.

    Another thread spawns and owns while it holds this (`held`): else its child may have been swept in between.
    """

    def __init__(self, log: Scope) -> None:
        self._log = log
        self._lock = threading.RLock()
        self._owners: dict[int, Callable[[], bool]] = {}
        self.reaped_orphans = 0

    def held(self) -> AbstractContextManager[Any]:
        """Nothing is reaped meanwhile: not for longer than a spawn takes."""
        return self._lock

    def own(self, pid: int, collect: Callable[[], bool]) -> None:
        """`collect` reaps the child when it has ended, tells whoever cares, and says whether it had ended."""
        with self._lock:
            self._owners[pid] = collect

    def sweep(self) -> None:
        """Reap everything that has ended by now. Blocks for a spawn at most."""
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        self._collect_own()
        before = self.reaped_orphans
        while (pid := self._peek()) is not None:
            if pid in self._owners:
                self._collect_own()  # it ended while we were busy with orphans
            else:
                os.waitpid(pid, 0)
                self.reaped_orphans += 1
        if self.reaped_orphans > before:
            self._log.debug("reaped orphans", count=self.reaped_orphans - before)

    def _collect_own(self) -> None:
        for pid in [pid for pid, collect in self._owners.items() if collect()]:
            del self._owners[pid]

    @staticmethod
    def _peek() -> int | None:
        """A child that has ended, left as it is; None where there is none."""
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None
        return ended.si_pid if ended else None


def become_subreaper() -> None:
    """Have orphans of our descendants given to us though we are not PID 1."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def adoption_warning() -> str | None:
    """Who gets the orphans when it is not us; None when it is us."""
    if os.getpid() == 1:
        return None
    flag = ctypes.c_int(0)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    if flag.value:
        return None
    return (
        f"neither PID 1 nor a subreaper: orphaned processes go to {_init_name()}, not to this agent "
        "(run it as the container's first process, or with --subreaper)"
    )


def _init_name() -> str:
    try:
        return f"PID 1 ({Path('/proc/1/comm').read_text(encoding='utf-8').strip()})"
    except OSError:
        return "PID 1"
