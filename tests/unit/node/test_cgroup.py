"""Memory facts of the own cgroup, in both of the kernel's layouts."""

from pathlib import Path

import pytest

from pilot_agent.node.cgroup import Memory, read_memory

V2_EVENTS = "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n"
V1_CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"


class Hierarchy:
    """A cgroup file system, and what /proc says of this process's place in it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "cgroup"
        self.membership = directory / "membership"

    def group(self, path: str, **files: str) -> None:
        directory = self.root / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name.replace("__", ".")).write_text(text)

    def read(self, membership: str | None) -> Memory | None:
        if membership is not None:
            self.membership.write_text(membership)
        return read_memory(self.root, self.membership)


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
