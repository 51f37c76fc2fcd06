"""What the container may use, read from its cgroup: CPUs, the memory limit, and how often the kernel killed for memory.

Both layouts of the kernel, v2 and v1. Files that are missing or make no sense count as no limit: nothing here raises.
"""

import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

# v1 mounts the controllers under their names joined as the kernel joined them, most often with links for each alone.
V1_CPU_MOUNTS = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


class Memory(NamedTuple):
    """`limit` in bytes, None for none; `oom_kills` is the kernel's count so far."""

    limit: int | None
    oom_kills: int


class CpuAllowance(NamedTuple):
    """How many CPUs' worth of `threads` the kernel lets this process have, and by what."""

    threads: int
    reason: str


def read_cpu(
    root: Path = ROOT,
    membership: Path = MEMBERSHIP,
    host_cpus: int | None = None,
    affinity: Collection[int] | None = None,
) -> CpuAllowance | None:
    """The tightest of CPU quota, cpuset and affinity; None where nothing limits below the host's CPUs.

    A quota counts with that of every group above; a fraction of a CPU rounds up, as kubelet rounds for Istio.
    """
    host = host_cpus or os.cpu_count() or 1
    groups = _memberships(membership)
    allowances = []
    quota = min(_quotas(root, groups), default=None)
    if quota is not None:
        allowances.append(_of_quota(quota))
    cpus = next(_cpu_sets(root, groups), None)
    if cpus is not None:
        allowances.append(CpuAllowance(cpus, f"cpuset: {cpus} of {host} CPUs"))
    mine = len(os.sched_getaffinity(0) if affinity is None else affinity)
    allowances.append(CpuAllowance(mine, f"affinity: {mine} of {host} CPUs"))
    tightest = min(allowances, key=lambda allowance: allowance.threads)
    return tightest if 0 < tightest.threads < host else None


def _of_quota(quota: float) -> CpuAllowance:
    threads = max(1, math.ceil(quota))
    rounded = "" if threads == quota else " rounded up"
    return CpuAllowance(threads, f"cgroup: CPU quota of {round(quota, 3):g} CPU{'s' if quota != 1 else ''}{rounded}")


def _quotas(root: Path, groups: dict[str, str]) -> Iterator[float]:
    """CPUs per period of this process's group and those above it, where they are limited."""
    for group in _upwards(root, groups.get("", "")):
        yield from _quota(*(_first_text(group / "cpu.max") or "").split()[:2])
    for mount in V1_CPU_MOUNTS:
        for group in _upwards(root / mount, groups.get("cpu", "")):
            quota, period = (_first_text(group / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
            yield from _quota(quota.strip(), period.strip())


def _quota(quota: str = "", period: str = "") -> Iterator[float]:
    # No limit is the word max in v2 and -1 in v1: neither is a number of digits.
    if _is_number(quota) and _is_number(period) and int(quota) > 0 and int(period) > 0:
        yield int(quota) / int(period)


def _cpu_sets(root: Path, groups: dict[str, str]) -> Iterator[int]:
    """Numbers of CPUs by cpuset, the own group first. The kernel keeps a group's within those of the groups above."""
    for group in _upwards(root, groups.get("", "")):
        yield from _cpu_set(_first_text(group / "cpuset.cpus.effective"))
    for group in _upwards(root / "cpuset", groups.get("cpuset", "")):
        yield from _cpu_set(_first_text(group / "cpuset.effective_cpus", group / "cpuset.cpus"))


def _cpu_set(text: str | None) -> Iterator[int]:
    """The size of a list such as `0-3,7`; nothing for an empty or malformed one."""
    count = 0
    for part in (text or "").strip().split(","):
        first, dash, last = part.partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            return
        count += (int(last) if dash else int(first)) - int(first) + 1
    if count > 0:
        yield count


def read_memory(root: Path = ROOT, membership: Path = MEMBERSHIP) -> Memory | None:
    """Limit and count of this process's cgroup (v2, else v1); None where neither can be read.

    Inside a container the cgroup namespace makes the own group look like the root of the mount, so both are tried.
    """
    groups = _memberships(membership)
    own = [next(_upwards(mount, groups.get(name, ""))) for mount, name in ((root, ""), (root / "memory", "memory"))]
    for group in (*own, root, root / "memory"):
        events = _first_text(group / "memory.events", group / "memory.oom_control")
        if events is None:
            continue
        limit = _first_text(group / "memory.max", group / "memory.limit_in_bytes")
        return Memory(_as_limit(limit), _count(events))
    return None


def _memberships(path: Path) -> dict[str, str]:
    """Controller to the group's path without its leading slash; v2's only line goes by the empty name."""
    groups = {}
    for line in (_first_text(path) or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, group = rest.partition(":")
        if number and colon:
            groups.update(dict.fromkeys(controllers.split(","), group.lstrip("/")))
    return groups


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The group's directory and those above it up to the mount, which in a container is all there is to see."""
    parts = [] if ".." in group.split("/") else [part for part in group.split("/") if part]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _first_text(*paths: Path) -> str | None:
    for path in paths:
        try:
            return path.read_text(encoding="ascii", errors="replace")
        except (OSError, ValueError):
            continue  # not there, not readable, or no possible name
    return None


def _is_number(text: str) -> bool:
    # Longer ones are no figures of this kernel, and int() refuses very long ones.
    return text.isascii() and text.isdigit() and len(text) < 20


def _as_limit(text: str | None) -> int | None:
    # v1 writes a huge page-aligned number for "no limit", v2 the word max.
    number = (text or "").strip()
    return int(number) if _is_number(number) and int(number) < 1 << 60 else None


def _count(events: str) -> int:
    for line in events.splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill" and _is_number(number.strip()):
            return int(number)
    return 0
