"""Process trees: who descends from whom, and in which state."""

from typing import NamedTuple

import psutil


class Process(NamedTuple):
    """`state` is psutil's word: running, sleeping, stopped, zombie, ..."""

    pid: int
    parent: int
    state: str
    command: str

    @property
    def is_zombie(self) -> bool:
        return self.state == psutil.STATUS_ZOMBIE


def proc_tree(pid: int) -> list[Process]:
    """All descendants of `pid`, zombies included, parents before children; empty when there is no such process."""
    try:
        descendants = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [found for each in descendants if (found := _facts(each)) is not None]


def _facts(process: psutil.Process) -> Process | None:
    try:
        with process.oneshot():
            state = process.status()
            words = [] if state == psutil.STATUS_ZOMBIE else process.cmdline()
            return Process(process.pid, process.ppid(), str(state), " ".join(words) or f"[{process.name()}]")
    except psutil.NoSuchProcess:
        return None
