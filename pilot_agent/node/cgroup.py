"""What the container may use, read from its cgroup: the memory limit and how often the kernel killed for lack of it."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")


class Memory(NamedTuple):
    """`limit` in bytes, None for none; `oom_kills` is the kernel's count so far."""

    limit: int | None
    oom_kills: int


def read_memory(root: Path = ROOT, membership: Path = Path("/proc/self/cgroup")) -> Memory | None:
    """Limit and count of this process's cgroup (v2, else v1); None where neither can be read.

    Inside a container the cgroup namespace makes the own group look like the root of the mount, so both are tried.
    """
    for group in _candidates(root, membership):
        events = _first_text(group / "memory.events", group / "memory.oom_control")
        if events is None:
            continue
        limit = _first_text(group / "memory.max", group / "memory.limit_in_bytes")
        return Memory(_as_limit(limit), _count(events))
    return None


def _candidates(root: Path, membership: Path) -> list[Path]:
    groups = []
    for line in (_first_text(membership) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            groups.append(root / path.lstrip("/"))
        elif "memory" in controllers.split(","):
            groups.append(root / "memory" / path.lstrip("/"))
    return [*groups, root, root / "memory"]


def _first_text(*paths: Path) -> str | None:
    for path in paths:
        try:
            return path.read_text(encoding="ascii")
        except OSError:
            continue
    return None


def _as_limit(text: str | None) -> int | None:
    # v1 writes a huge page-aligned number for "no limit", v2 the word max.
    if text is None or not text.strip().isdigit() or int(text) >= 1 << 60:
        return None
    return int(text)


def _count(events: str) -> int:
    for line in events.splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill":
            return int(number)
    return 0
