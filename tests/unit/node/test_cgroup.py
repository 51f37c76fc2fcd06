"""Memory and CPU facts of the own cgroup, in both of the kernel's layouts."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.node.cgroup import CpuAllowance, Memory, read_cpu, read_memory

V2_EVENTS = "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n"
V1_CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"


class Hierarchy:
    """A cgroup file system, and what /proc says of this process's place in it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "cgroup"
        self.membership = directory / "membership"

    def group(self, path: str, **files: str) -> None:
        """In the names of `files` two underscores stand for a dot."""
        directory = self.root / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name.replace("__", ".")).write_text(text)

    def read(self, membership: str | None) -> Memory | None:
        if membership is not None:
            self.membership.write_text(membership)
        return read_memory(self.root, self.membership)

    def cpu(self, membership: str, host: int = 16, affinity: int | None = None) -> CpuAllowance | None:
        self.membership.write_text(membership)
        return read_cpu(self.root, self.membership, host, range(affinity or host))


@pytest.fixture
def hierarchy(tmp_path: Path) -> Hierarchy:
    return Hierarchy(tmp_path)


def test_version_2(hierarchy: Hierarchy) -> None:
    hierarchy.group("pod/container", memory__events=V2_EVENTS, memory__max="134217728\n")
    assert hierarchy.read("0::/pod/container\n") == Memory(134217728, 2)


def test_version_2_without_a_limit(hierarchy: Hierarchy) -> None:
    hierarchy.group("a", memory__events=V2_EVENTS, memory__max="max\n")
    assert hierarchy.read("0::/a\n") == Memory(None, 2)


def test_version_1(hierarchy: Hierarchy) -> None:
    hierarchy.group("memory/a", memory__oom_control=V1_CONTROL, memory__limit_in_bytes="1048576\n")
    assert hierarchy.read("4:memory:/a\n1:name=systemd:/b\n") == Memory(1048576, 5)


def test_version_1_with_several_controllers_in_one_hierarchy(hierarchy: Hierarchy) -> None:
    hierarchy.group("memory/a", memory__oom_control=V1_CONTROL, memory__limit_in_bytes="1048576\n")
    hierarchy.group("memory", memory__oom_control="oom_kill 9\n")
    assert hierarchy.read("4:cpu,memory:/a\n") == Memory(1048576, 5)


def test_the_huge_number_of_version_1_is_no_limit(hierarchy: Hierarchy) -> None:
    hierarchy.group("memory/a", memory__oom_control=V1_CONTROL, memory__limit_in_bytes="9223372036854771712\n")
    assert hierarchy.read("4:memory:/a\n") == Memory(None, 5)


@pytest.mark.parametrize("membership", ["0::/outside/this/namespace\n", "", None])
def test_in_a_cgroup_namespace_the_own_group_is_the_root(hierarchy: Hierarchy, membership: str | None) -> None:
    hierarchy.group("", memory__events=V2_EVENTS, memory__max="4096\n")
    assert hierarchy.read(membership) == Memory(4096, 2)


def test_version_1_in_a_namespace(hierarchy: Hierarchy) -> None:
    hierarchy.group("memory", memory__oom_control=V1_CONTROL, memory__limit_in_bytes="4096\n")
    assert hierarchy.read("4:memory:/kubepods/x\n") == Memory(4096, 5)


def test_an_old_kernel_counts_no_kills(hierarchy: Hierarchy) -> None:
    hierarchy.group("memory/a", memory__oom_control="oom_kill_disable 0\nunder_oom 0\n", memory__limit_in_bytes="5\n")
    assert hierarchy.read("4:memory:/a\n") == Memory(5, 0)


def test_events_without_a_limit_file(hierarchy: Hierarchy) -> None:
    hierarchy.group("a", memory__events=V2_EVENTS)
    assert hierarchy.read("0::/a\n") == Memory(None, 2)


def test_where_nothing_can_be_read_nothing_is_known(hierarchy: Hierarchy) -> None:
    assert hierarchy.read("0::/a\n") is None
    hierarchy.group("a", memory__max="4096\n")
    assert hierarchy.read("0::/a\n") is None
    (hierarchy.root / "a" / "memory.events").mkdir()
    assert hierarchy.read("0::/a\n") is None


def test_the_real_one_can_be_read_or_not_but_never_fails() -> None:
    memory = read_memory()
    assert memory is None or memory.oom_kills >= 0


# CPU

V2 = "0::/pod/container\n"
V1 = "5:cpuset:/pod/container\n4:cpu,cpuacct:/pod/container\n1:name=systemd:/b\n"


@pytest.mark.parametrize(
    ("quota", "threads", "reason"),
    [
        ("200000 100000", 2, "cgroup: CPU quota of 2 CPUs"),
        ("100000 100000", 1, "cgroup: CPU quota of 1 CPU"),
        ("150000 100000", 2, "cgroup: CPU quota of 1.5 CPUs rounded up"),
        ("210000 100000", 3, "cgroup: CPU quota of 2.1 CPUs rounded up"),
        ("1000 100000", 1, "cgroup: CPU quota of 0.01 CPUs rounded up"),
        ("50000 10000\n", 5, "cgroup: CPU quota of 5 CPUs"),
    ],
)
def test_a_quota_limits_in_both_versions(hierarchy: Hierarchy, quota: str, threads: int, reason: str) -> None:
    hierarchy.group("pod/container", cpu__max=quota)
    assert hierarchy.cpu(V2) == CpuAllowance(threads, reason)
    cfs_quota, cfs_period = quota.split()
    hierarchy.group("cpu,cpuacct/pod/container", cpu__cfs_quota_us=f"{cfs_quota}\n", cpu__cfs_period_us=cfs_period)
    assert hierarchy.cpu(V1) == CpuAllowance(threads, reason)


@pytest.mark.parametrize("version", [1, 2])
def test_the_smallest_quota_up_to_the_root_counts(hierarchy: Hierarchy, version: int) -> None:
    mount = "cpu/" if version == 1 else ""
    for path, quota in {"pod/container": "800000", "pod": "300000", "": "600000"}.items():
        if version == 1:
            hierarchy.group(mount + path, cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
        else:
            hierarchy.group(mount + path, cpu__max=f"{quota} 100000")
    assert hierarchy.cpu(V1 if version == 1 else V2) == CpuAllowance(3, "cgroup: CPU quota of 3 CPUs")


@pytest.mark.parametrize("membership", [V2, V1, "", "0::/../elsewhere\n"])
def test_in_a_cgroup_namespace_the_quota_is_at_the_root(hierarchy: Hierarchy, membership: str) -> None:
    hierarchy.group("", cpu__max="400000 100000")
    assert hierarchy.cpu(membership) == CpuAllowance(4, "cgroup: CPU quota of 4 CPUs")


def test_a_path_that_leads_out_of_the_mount_is_not_followed(hierarchy: Hierarchy) -> None:
    hierarchy.group("../elsewhere", cpu__max="100000 100000")
    hierarchy.group("")
    assert hierarchy.cpu("0::/../elsewhere\n") is None


@pytest.mark.parametrize(
    "quota", ["max 100000", "1600000 100000", "3200000 100000", "-1 100000", "x y", "5", "", "5 0"]
)
def test_what_does_not_limit_below_the_host_is_no_limit(hierarchy: Hierarchy, quota: str) -> None:
    hierarchy.group("pod/container", cpu__max=quota)
    cfs_quota, _, cfs_period = quota.partition(" ")
    hierarchy.group("cpu/pod/container", cpu__cfs_quota_us=cfs_quota, cpu__cfs_period_us=cfs_period)
    assert hierarchy.cpu(V2) is None
    assert hierarchy.cpu(V1) is None


def test_a_quota_that_rounds_up_to_the_host_is_no_limit(hierarchy: Hierarchy) -> None:
    hierarchy.group("", cpu__max="150000 100000")
    assert hierarchy.cpu(V2, host=2) is None


@pytest.mark.parametrize(("cpus", "threads"), [("0-3", 4), ("0", 1), ("0-1,8-9,15\n", 5)])
def test_a_cpuset_limits_in_both_versions(hierarchy: Hierarchy, cpus: str, threads: int) -> None:
    hierarchy.group("pod/container", cpuset__cpus__effective=cpus)
    assert hierarchy.cpu(V2) == CpuAllowance(threads, f"cpuset: {threads} of 16 CPUs")
    (hierarchy.root / "pod/container/cpuset.cpus.effective").unlink()
    hierarchy.group("cpuset/pod/container", cpuset__cpus=cpus)
    assert hierarchy.cpu(V1) == CpuAllowance(threads, f"cpuset: {threads} of 16 CPUs")


def test_the_own_cpuset_counts_before_the_one_above(hierarchy: Hierarchy) -> None:
    hierarchy.group("pod", cpuset__cpus__effective="0-1")
    hierarchy.group("", cpuset__cpus__effective="0-15")
    assert hierarchy.cpu(V2) == CpuAllowance(2, "cpuset: 2 of 16 CPUs")


@pytest.mark.parametrize("cpus", ["", "\n", "a-b", "0-", "-3", "0,,1", "5-1", "0-15", "9" * 5000])
def test_a_cpuset_that_makes_no_sense_or_takes_nothing_away_is_no_limit(hierarchy: Hierarchy, cpus: str) -> None:
    hierarchy.group("pod/container", cpuset__cpus__effective=cpus)
    assert hierarchy.cpu(V2) is None


def test_affinity_limits_where_no_cgroup_does(hierarchy: Hierarchy) -> None:
    assert hierarchy.cpu(V2, affinity=3) == CpuAllowance(3, "affinity: 3 of 16 CPUs")


def test_the_tightest_limit_counts_and_of_equal_ones_the_quota(hierarchy: Hierarchy) -> None:
    hierarchy.group("pod/container", cpu__max="200000 100000", cpuset__cpus__effective="0-3")
    assert hierarchy.cpu(V2) == CpuAllowance(2, "cgroup: CPU quota of 2 CPUs")
    assert hierarchy.cpu(V2, affinity=2) == CpuAllowance(2, "cgroup: CPU quota of 2 CPUs")
    assert hierarchy.cpu(V2, affinity=1) == CpuAllowance(1, "affinity: 1 of 16 CPUs")
    hierarchy.group("pod/container", cpu__max="900000 100000")
    assert hierarchy.cpu(V2, affinity=4) == CpuAllowance(4, "cpuset: 4 of 16 CPUs")


FILES = ("cpu.max", "cpuset.cpus.effective", "memory.max", "memory.events", "memory.oom_control")
V1_FILES = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpuset/cpuset.cpus", "memory/memory.limit_in_bytes")
ANY_BYTES = st.binary(max_size=20) | st.sampled_from([b"max", b"100000 100000", b"0-3", b"oom_kill x\n", b"-1"])


@given(st.dictionaries(st.sampled_from(FILES + V1_FILES), ANY_BYTES), ANY_BYTES | st.just(V1.encode()))
def test_whatever_is_in_the_files_nothing_is_raised(files: dict[str, bytes], membership: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        hierarchy = Hierarchy(Path(directory))
        for name, content in files.items():
            path = hierarchy.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        hierarchy.membership.write_bytes(membership)
        cpu = read_cpu(hierarchy.root, hierarchy.membership, 16, range(16))
        assert cpu is None or 1 <= cpu.threads < 16
        memory = read_memory(hierarchy.root, hierarchy.membership)
        assert memory is None or memory.oom_kills >= 0


def test_the_real_cpus_can_be_read() -> None:
    allowance = read_cpu()
    assert allowance is None or 1 <= allowance.threads < (os.cpu_count() or 1)
