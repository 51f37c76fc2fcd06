"""Every exit code and every deadly signal of a child, as the agent would tell it, on real processes."""

import os
import signal

import pytest

from pilot_agent.clock import SystemClock
from pilot_agent.envoy.command import Launch
from pilot_agent.envoy.process import Child, ExitFacts
from pilot_agent.node.cgroup import Memory
from pilot_agent.supervise.postmortem import explain
from tests.support.eventually import eventually

DEADLY = [
    number
    for number in signal.Signals
    if number not in (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)
    and number not in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
]


def ended(child: Child) -> ExitFacts:
    facts = eventually(child.poll)
    assert facts is not None
    child.close()
    return facts


def test_all_256_exit_codes() -> None:
    children = {code: Child(Launch(["/bin/sh", "-c", f"exit {code}"], {}), SystemClock()) for code in range(256)}
    for code, child in children.items():
        facts = ended(child)
        assert (facts.code, facts.signal, facts.agent_code) == (code, None, code)
        assert str(facts) == f"exit code {code}"


@pytest.mark.parametrize("number", DEADLY, ids=lambda number: str(number.name))
def test_every_deadly_signal(number: signal.Signals) -> None:
    child = Child(Launch(["/bin/sleep", "60"], {}), SystemClock())
    os.kill(child.pid, number)
    facts = ended(child)
    assert (facts.code, facts.signal, facts.agent_code) == (None, number, 128 + number)
    assert str(facts) == f"killed by signal {int(number)} ({facts.signal_name})"
    assert signal.Signals[facts.signal_name] == number


def test_an_oom_kill_is_named_with_the_limit() -> None:
    facts = ExitFacts(None, signal.SIGKILL, 3.0)
    before, after = Memory(268435456, 4), Memory(268435456, 5)
    verdict = explain("Envoy", facts, is_hung=False, last_words="", before=before, after=after)
    assert verdict.reason == "oom"
    assert "OOM killer" in verdict.text and "a memory limit of 268435456 bytes" in verdict.text
    verdict = explain("Envoy", facts, is_hung=False, last_words="", before=after, after=after)
    assert verdict.reason == "crash" and "no OOM kill" in verdict.text
    verdict = explain("Envoy", facts, is_hung=True, last_words="", before=before, after=after)
    assert verdict.reason == "hung"


def test_a_child_reaped_by_somebody_else_is_an_error_and_no_success() -> None:
    child = Child(Launch(["/bin/true"], {}), SystemClock())
    os.waitpid(child.pid, 0)
    with pytest.raises(ChildProcessError):
        child.poll()
    child._popen.returncode = 0  # it is gone: keep Popen from warning about it
    child.close()


def test_killing_the_group_takes_grandchildren_along() -> None:
    script = "sleep 60 & echo $! >&2; wait"
    child = Child(Launch(["/bin/sh", "-c", script], {}), SystemClock())
    grandchild = int(os.read(child.stderr_fd, 100))
    child.kill_group()
    assert ended(child).signal == signal.SIGKILL
    eventually(lambda: not os.path.exists(f"/proc/{grandchild}/exe") or _is_zombie(grandchild))


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
