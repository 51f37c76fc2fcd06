"""Why an Envoy ended, and what a hung one is doing."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot_agent.envoy.process import ExitFacts
from pilot_agent.node.cgroup import Memory
from pilot_agent.supervise.postmortem import RESTART_REASONS, evidence, explain
from tests.support.eventually import eventually

KILLED = ExitFacts(None, signal.SIGKILL, 12.34)
SEGFAULT = ExitFacts(None, signal.SIGSEGV, 12.34)
FAILED = ExitFacts(1, None, 12.34)
ENDED = ExitFacts(0, None, 12.34)
BEFORE, AFTER = Memory(1000, 2), Memory(1000, 3)

KILLED_TEXT = "Envoy ended after 12.3 s: killed by signal 9 (SIGKILL)"
NO_OOM = f"{KILLED_TEXT}; the kernel counts no OOM kill here, so a process sent it"
OOM = f"{KILLED_TEXT}: out of memory, chosen by the kernel's OOM killer (the container has "
HUNG = ", sent by the agent because Envoy hung"


@pytest.mark.parametrize(
    ("facts", "is_hung", "words", "before", "after", "reason", "text"),
    [
        (KILLED, False, "", BEFORE, AFTER, "oom", f"{OOM}a memory limit of 1000 bytes)"),
        (KILLED, False, "", Memory(None, 2), Memory(None, 3), "oom", f"{OOM}no memory limit of its own)"),
        (KILLED, False, "words", BEFORE, AFTER, "oom", f"{OOM}a memory limit of 1000 bytes)"),
        (KILLED, False, "", BEFORE, BEFORE, "crash", NO_OOM),
        (KILLED, False, "", None, AFTER, "crash", NO_OOM),
        (KILLED, False, "", BEFORE, None, "crash", NO_OOM),
        (KILLED, False, "", None, None, "crash", NO_OOM),
        (KILLED, True, "", BEFORE, AFTER, "hung", f"{KILLED_TEXT}{HUNG}"),
        (KILLED, True, "words", None, None, "hung", f"{KILLED_TEXT}{HUNG}"),
        (SEGFAULT, False, "", BEFORE, AFTER, "crash", "Envoy ended after 12.3 s: killed by signal 11 (SIGSEGV)"),
        (
            SEGFAULT,
            False,
            "it broke",
            None,
            None,
            "crash",
            "Envoy ended after 12.3 s: killed by signal 11 (SIGSEGV); its last words: it broke",
        ),
        (FAILED, False, "", BEFORE, AFTER, "crash", "Envoy ended after 12.3 s: exit code 1"),
        (
            FAILED,
            False,
            "it broke",
            None,
            None,
            "crash",
            "Envoy ended after 12.3 s: exit code 1; its last words: it broke",
        ),
        (ENDED, False, "", None, None, "exit", "Envoy ended after 12.3 s: exit code 0"),
    ],
)
def test_why_an_envoy_ended(
    facts: ExitFacts,
    is_hung: bool,
    words: str,
    before: Memory | None,
    after: Memory | None,
    reason: str,
    text: str,
) -> None:
    verdict = explain("Envoy", facts, is_hung=is_hung, last_words=words, before=before, after=after)
    assert verdict == (reason, text)
    assert verdict.reason in RESTART_REASONS


# Evidence


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_evidence_of_a_process_that_sleeps(sleeper: subprocess.Popen[bytes]) -> None:
    eventually(lambda: evidence(sleeper.pid).startswith(f"pid {sleeper.pid} is S (sleeping); threads: 1 in "))


def test_evidence_of_a_process_that_was_stopped(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
    assert evidence(sleeper.pid).startswith(f"pid {sleeper.pid} is T (stopped); threads: 1 in ")


def test_no_evidence_of_a_process_that_is_gone(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait()
    assert evidence(sleeper.pid) == f"pid {sleeper.pid} is gone; threads: none"


def test_threads_are_counted_by_where_they_wait(tmp_path: Path) -> None:
    waits = {"7": "futex_wait_queue", "8": "ep_poll", "9": "ep_poll"}
    for thread, wait in waits.items():
        directory = tmp_path / "7" / "task" / thread
        directory.mkdir(parents=True)
        (directory / "status").write_text(f"Name:\tenvoy\nState:\tS (sleeping)\nTgid:\t{thread}\n")
        (directory / "wchan").write_text(wait)
    for thread in ("10", "11"):  # they ended while we looked: without files, and with half of them
        (tmp_path / "7" / "task" / thread).mkdir()
    (tmp_path / "7" / "task" / "11" / "status").write_text("Name:\tenvoy\n")
    assert evidence(7, tmp_path) == "pid 7 is S (sleeping); threads: 2 in ep_poll, 1 in futex_wait_queue"
