"""What a test may leave behind (nothing): processes, zombies, descriptors, tasks, threads, namespaces, shared memory.

`conftest.py` takes a `Snapshot` before each test and asks for `leaks` after it. Pytest is made a child subreaper, so
that the child of an agent that died comes to us, instead of to init where nobody would see it.
"""

import ctypes
import gc
import os
import re
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.proc_tree import proc_tree

NAMESPACES = Path("/run/netns")
SHARED_MEMORY = Path("/dev/shm")
PATIENCE_SECONDS = 2.0

_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 1 << 18

# Opened once by a library and kept on purpose.
_KEPT_FILES = ("/dev/urandom", "/dev/null", "anon_inode:[pidfd]/keep", "/.hypothesis/")

_own_children: "dict[int, weakref.ref[subprocess.Popen[bytes]]]" = {}
"""What this process started through subprocess (asyncio's included), by pid; the last one, since pids come again."""

leaked_tasks: list[str] = []
"""Tasks still pending when an asyncio.run of the test ended."""


def watch_this_process() -> None:
    """Once per session: become a subreaper, note the pid of each child, note tasks that outlive their loop."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # Root gets a /dev/shm and names of network namespaces of its own: what is there was left by our own tests, not by
    # others of this machine.
    if libc.unshare(_CLONE_NEWNS) == 0 and libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) == 0:
        NAMESPACES.mkdir(exist_ok=True)
        for private in (SHARED_MEMORY, NAMESPACES):
            libc.mount(b"tmpfs", bytes(private), b"tmpfs", 0, b"mode=1777")
    _note_children()
    _note_tasks()


def _note_children() -> None:
    execute: Callable[..., None] = subprocess.Popen._execute_child  # type: ignore[attr-defined]

    def noting(self: subprocess.Popen[bytes], *args: object, **kwargs: object) -> None:
        execute(self, *args, **kwargs)
        _own_children[self.pid] = weakref.ref(self)

    subprocess.Popen._execute_child = noting  # type: ignore[attr-defined]


def _note_tasks() -> None:
    import asyncio.runners

    runners: Any = asyncio.runners
    cancel_all = runners._cancel_all_tasks

    def noting(loop: asyncio.AbstractEventLoop) -> None:
        leaked_tasks.extend(repr(task.get_coro()) for task in asyncio.all_tasks(loop))
        cancel_all(loop)

    runners._cancel_all_tasks = noting


class Snapshot(NamedTuple):
    processes: frozenset[int]
    descriptors: dict[int, str]
    threads: frozenset[int | None]
    namespaces: frozenset[str]
    shared_memory: frozenset[str]

    @classmethod
    def take(cls) -> "Snapshot":
        leaked_tasks.clear()
        return cls(
            frozenset(process.pid for process in proc_tree(os.getpid())),
            _descriptors(),
            frozenset(thread.ident for thread in threading.enumerate()),
            _namespaces(),
            _shared_memory(),
        )

    def leaks(self) -> list[str]:
        """What is there now and was not then, once it has had a moment to go away."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while found := self._now():
            if time.monotonic() >= deadline:
                break
            gc.collect()
            time.sleep(0.01)
        return found + [f"asyncio task {task}" for task in leaked_tasks]

    def _now(self) -> list[str]:
        _reap_adopted(self.processes)
        found = [
            f"{'zombie' if process.is_zombie else 'process'} {process.pid} ({process.state}): {process.command}"
            for process in proc_tree(os.getpid())
            if process.pid not in self.processes
        ]
        found += [
            f"descriptor {number}: {target}"
            for number, target in _descriptors().items()
            if self.descriptors.get(number) != target
        ]
        found += [
            f"thread {thread.name}"
            for thread in threading.enumerate()
            if thread.ident not in self.threads and not thread.daemon
        ]
        found += [f"network namespace {name}" for name in _namespaces() - self.namespaces]
        return found + [f"shared memory {SHARED_MEMORY / name}" for name in _shared_memory() - self.shared_memory]


def kill_leaked_processes(before: Snapshot) -> None:
    """So that one leak fails one test. Only descendants of this process, each by its pid."""
    for process in proc_tree(os.getpid()):
        if process.pid not in before.processes:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    _reap_adopted(before.processes)


def _reap_adopted(spared: frozenset[int]) -> None:
    """Reap zombies that came to us as subreaper; their own parent is dead, nobody else will."""
    for process in proc_tree(os.getpid()):
        is_adopted = process.parent == os.getpid() and process.pid not in spared and not _is_own_child(process.pid)
        if process.is_zombie and is_adopted:
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                pass


def _is_own_child(pid: int) -> bool:
    """One that was never waited for: such a zombie is a leak of ours."""
    started = _own_children.get(pid)
    popen = started() if started is not None else None
    forgotten: list[subprocess.Popen[bytes]] = subprocess._active  # type: ignore[attr-defined]
    return (popen is not None and popen.returncode is None) or any(each.pid == pid for each in forgotten)


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
        if not any(kept in target for kept in _KEPT_FILES):
            found[int(entry)] = target
    return found


def _namespaces() -> frozenset[str]:
    names = os.listdir(NAMESPACES) if NAMESPACES.is_dir() else []
    return frozenset(name for name in names if not _is_of_others(name))


def _is_of_others(name: str) -> bool:
    """Whether its owner, whose pid stands in the names of tests and demos, runs and is none of ours."""
    owner = re.match(r"(?:demo|pa)-(\d+)", name)
    if owner is None or not Path("/proc", owner[1]).exists():
        return False
    ours = {os.getpid(), *(process.pid for process in proc_tree(os.getpid()))}
    return int(owner[1]) not in ours


def _shared_memory() -> frozenset[str]:
    """Envoy's files that no process has mapped: those of an Envoy that is alive may be anybody's on this machine."""
    if not SHARED_MEMORY.is_dir():
        return frozenset()
    names = {name for name in os.listdir(SHARED_MEMORY) if name.startswith("envoy_shared_memory_")}
    return frozenset(names - _mapped()) if names else frozenset()


def _mapped() -> set[str]:
    mapped = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = maps.read_text().splitlines()
        except OSError:
            continue
        mapped |= {line.rpartition("/")[2] for line in lines if "/envoy_shared_memory_" in line}
    return mapped
