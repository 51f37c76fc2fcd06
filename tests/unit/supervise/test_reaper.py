"""Waiting for children: each for its owner, orphans for nobody, and those that run for no one yet."""

import os
import signal
import subprocess
import sys

import pytest

from pilot_agent.supervise.reaper import Reaper
from tests.support.agents import PROJECT
from tests.support.recorded_log import RecordedLog


def until_ended(pid: int) -> int:
    """Wait for the end of a child and leave it as a zombie."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def orphan(script: str = "exit 3") -> int:
    """A process whose parent has ended: it comes to this process, which is a subreaper.

    It begins only when its parent is gone: a shell may reap a child that ends before the shell does.
    """
    behind, ahead = os.pipe()
    command = f"exec 3<&0; (read _ <&3; {script}) >/dev/null & echo $!"
    made = subprocess.run(["sh", "-c", command], stdin=behind, stdout=subprocess.PIPE, check=True)
    os.close(ahead)
    os.close(behind)
    return int(made.stdout)


class Owned:
    """A child of somebody who collects it."""

    def __init__(self, script: str) -> None:
        self.popen = subprocess.Popen(["sh", "-c", script])
        self.pid = self.popen.pid
        self.asked = 0

    def code(self) -> int | None:
        return self.popen.returncode

    def collect(self) -> bool:
        self.asked += 1
        return self.popen.poll() is not None


@pytest.fixture
def log() -> RecordedLog:
    return RecordedLog()


@pytest.fixture
def reaper(log: RecordedLog) -> Reaper:
    return Reaper(log.scope)


def is_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def test_owners_get_the_exit_codes_and_orphans_are_counted(reaper: Reaper, log: RecordedLog) -> None:
    owned = [Owned(f"exit {code}") for code in (5, 0, 7)]
    for each in owned:
        reaper.own(each.pid, each.collect)
    orphans = [orphan() for _ in range(3)]
    for pid in [*orphans, *(each.pid for each in owned)]:
        until_ended(pid)
    reaper.sweep()
    assert [each.code() for each in owned] == [5, 0, 7]
    assert reaper.reaped_orphans == 3
    assert not any(map(is_child, orphans))
    assert log.lines == ["debug reaped orphans"]


def test_a_sweep_without_anything_to_do(reaper: Reaper, log: RecordedLog) -> None:
    reaper.sweep()
    assert (reaper.reaped_orphans, log.lines) == (0, [])


def test_what_runs_is_left_alone(reaper: Reaper) -> None:
    owned = Owned("exec sleep 1000")
    reaper.own(owned.pid, owned.collect)
    running = orphan("exec sleep 1000")
    reaper.sweep()
    assert owned.code() is None
    assert is_child(running)
    before = reaper.reaped_orphans
    assert before == 0
    for pid in (owned.pid, running):
        os.kill(pid, signal.SIGKILL)
        until_ended(pid)
    reaper.sweep()
    assert owned.code() == -signal.SIGKILL
    assert reaper.reaped_orphans == before + 1


def test_an_owner_is_asked_no_more_once_its_child_has_ended(reaper: Reaper) -> None:
    owned = Owned("exit 1")
    reaper.own(owned.pid, owned.collect)
    until_ended(owned.pid)
    reaper.sweep()
    asked = owned.asked
    reaper.sweep()
    assert owned.asked == asked == 1


def test_an_owned_child_that_ends_during_the_sweep_still_goes_to_its_owner(reaper: Reaper) -> None:
    owned = Owned("exit 9")
    asked: list[bool] = []

    def late() -> bool:
        asked.append(bool(asked) and owned.collect())  # the first time it seems to run
        return asked[-1]

    reaper.own(owned.pid, late)
    until_ended(owned.pid)
    until_ended(orphan())
    reaper.sweep()
    assert asked == [False, True]
    assert owned.code() == 9
    assert reaper.reaped_orphans == 1


def answer_of(script: str) -> str:
    """What a fresh process, which is no subreaper, prints."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    imports = "from pilot_agent.supervise.reaper import adoption_warning, become_subreaper\n"
    done = subprocess.run(
        [sys.executable, "-c", imports + script], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_who_does_not_get_the_orphans_says_who_does() -> None:
    told = answer_of("print(adoption_warning())")
    assert told.startswith("neither PID 1 nor a subreaper: orphaned processes go to PID 1 (")
    assert told.endswith("not to this agent (run it as the container's first process, or with --subreaper)")


def test_a_subreaper_gets_them_itself() -> None:
    assert answer_of("become_subreaper()\nprint(adoption_warning())") == "None"
