"""The guard guards: what a test may not leave behind is seen, named, and not mistaken for what is allowed."""

import asyncio
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.eventually import eventually
from tests.support.leaks import Snapshot
from tests.support.proc_tree import proc_tree


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PATIENCE_SECONDS", 0.0)


def test_nothing_is_no_leak() -> None:
    assert Snapshot.take().leaks() == []


def test_a_running_child_is_named() -> None:
    before = Snapshot.take()
    with subprocess.Popen(["sleep", "60"]) as child:
        eventually(lambda: any("sleep 60" in leak for leak in before.leaks()))
        child.kill()
    assert before.leaks() == []


def test_a_child_nobody_waited_for_is_a_zombie() -> None:
    before = Snapshot.take()
    with subprocess.Popen(["true"]) as child:
        eventually(lambda: any(leak.startswith(f"zombie {child.pid} ") for leak in before.leaks()))


def test_an_orphan_comes_to_us_and_is_named() -> None:
    before = Snapshot.take()
    subprocess.run(["sh", "-c", "sleep 60 & exit 0"], check=True)
    eventually(lambda: any("sleep 60" in leak for leak in before.leaks()))
    (orphan,) = [process.pid for process in proc_tree(os.getpid()) if process.pid not in before.processes]
    os.kill(orphan, signal.SIGKILL)
    eventually(lambda: before.leaks() == [])


def test_a_descriptor_is_named_with_its_file(tmp_path: Path) -> None:
    before = Snapshot.take()
    with open(tmp_path / "left", "w") as left:
        assert before.leaks() == [f"descriptor {left.fileno()}: {tmp_path / 'left'}"]


def test_a_thread_is_named() -> None:
    before = Snapshot.take()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    thread.start()
    assert before.leaks() == ["thread forgotten"]
    end.set()
    thread.join()


def test_shared_memory_is_named() -> None:
    before = Snapshot.take()
    left = leaks.SHARED_MEMORY / f"envoy_shared_memory_{os.getpid()}0"
    left.touch()
    try:
        assert before.leaks() == [f"shared memory {left}"]
    finally:
        left.unlink()


def test_a_task_that_outlives_its_loop_is_named() -> None:
    before = Snapshot.take()

    async def forgotten() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        task = asyncio.create_task(forgotten())
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(main())
    found = before.leaks()
    leaks.leaked_tasks.clear()
    assert len(found) == 1
    assert "forgotten" in found[0]


def test_a_namespace_is_named_unless_somebody_else_who_runs_owns_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "NAMESPACES", tmp_path)
    before = Snapshot.take()
    gone = 4_194_305  # above the highest pid there can be
    for name in ("plain", f"pa-{os.getpid()}-a-0", f"demo-{gone}-sleep", f"demo-{os.getppid()}-sleep"):
        (tmp_path / name).touch()
    assert sorted(before.leaks()) == sorted(
        f"network namespace {name}" for name in ("plain", f"pa-{os.getpid()}-a-0", f"demo-{gone}-sleep")
    )
