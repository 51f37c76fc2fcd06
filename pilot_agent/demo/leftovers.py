"""What a demo leaves behind that is killed itself: found by its name, which tells whose it was, and taken away."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from pilot_agent.demo.network import delete, orphaned, processes_in

DIRECTORY_PREFIX = "pilot-agent-demo-"
PATIENCE_S = 5.0


def new_directory() -> Path:
    """In the directory for temporary files; whoever finds it later can tell whether its owner still runs."""
    return Path(tempfile.mkdtemp(prefix=f"{DIRECTORY_PREFIX}{os.getpid()}-"))


def clear_leftovers() -> list[str]:
    """Take away what demos left that were killed themselves; the names of it. Only what is ours by its name."""
    taken = []
    for name in orphaned() if os.geteuid() == 0 else []:
        _end_all(name)
        delete(name)
        taken.append(f"network namespace {name}")
    for path in Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*-*"):
        owner = path.name.removeprefix(DIRECTORY_PREFIX).partition("-")[0]
        is_ours = path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid()
        if owner.isdecimal() and not Path("/proc", owner).exists() and is_ours:
            shutil.rmtree(path, ignore_errors=True)
            taken.append(str(path))
    return taken


def _end_all(name: str) -> None:
    """Asked to first, so that agents take away what is theirs elsewhere; one may have been held still."""
    for pid in processes_in(name):
        for number in (signal.SIGTERM, signal.SIGCONT):
            _signal(pid, number)
    deadline = time.monotonic() + PATIENCE_S
    while processes_in(name) and time.monotonic() < deadline:
        time.sleep(0.02)
    kill_all(processes_in(name))


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill_all(pids: Iterable[int]) -> None:
    """Processes in a namespace of ours that should have ended by themselves."""
    for pid in pids:
        _signal(pid, signal.SIGKILL)
