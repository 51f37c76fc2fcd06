"""Children as real processes: how they end, what becomes of what they started, and that none outlives the agent."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pilot_agent.clock import SystemClock
from pilot_agent.envoy.command import Launch, epoch_arguments
from pilot_agent.envoy.epoch import Epoch
from pilot_agent.envoy.process import Child, ExitFacts, spawn
from pilot_agent.errors import EXIT_SETTINGS, SettingsError
from tests.support.agents import PROJECT
from tests.support.clocks import ManualClock
from tests.support.eventually import eventually

PYTHON = (sys.executable, "-IS", "-c")
SPARED = {"SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"}
FATAL = sorted({int(each) for each in signal.valid_signals()} - {int(signal.Signals[name]) for name in SPARED})
SLEEP = ("sleep", "1000")
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="changing the user needs root")

Spawn = Callable[..., Child]


@pytest.fixture
def child() -> Iterator[Spawn]:
    """Spawns children that are gone after the test."""
    made: list[Child] = []

    def make(*argv: str, environment: dict[str, str] | None = None, is_quiet: bool = False) -> Child:
        made.append(Child(Launch(list(argv), environment or dict(os.environ)), SystemClock(), is_quiet=is_quiet))
        return made[-1]

    yield make
    for each in made:
        each.kill_group()
        ended(each)
        each.close()


def outcome(*argv: str, environment: dict[str, str] | None = None, is_quiet: bool = False) -> tuple[int, str]:
    """Exit code and standard error of a child that nobody polls."""
    return Child(Launch(list(argv), environment or dict(os.environ)), SystemClock(), is_quiet=is_quiet).wait()


def ended(child: Child) -> ExitFacts:
    """Wait for the end without taking it, then have the child tell."""
    facts = child.poll()
    if facts is None:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        facts = child.poll()
    assert facts is not None
    return facts


def said(child: Child) -> str:
    """One line of its standard error."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(child.stderr_fd, 1)
        assert part, f"it ended after {line!r}"
        line += part
    return line.decode().rstrip("\n")


# How children end


@pytest.mark.parametrize("codes", [range(first, first + 64) for first in range(0, 256, 64)])
def test_every_exit_code(child: Spawn, codes: Sequence[int]) -> None:
    children = [child("sh", "-c", f"exit {code}") for code in codes]
    facts = [ended(each) for each in children]
    assert [each.code for each in facts] == list(codes)
    assert [each.agent_code for each in facts] == list(codes)
    assert {each.signal for each in facts} == {None}


@pytest.mark.parametrize("number", FATAL)
def test_every_fatal_signal(child: Spawn, number: int) -> None:
    script = f"import os, resource, signal; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); n = {number}\n"
    script += "n in (9,) or signal.signal(n, signal.SIG_DFL)\nos.kill(os.getpid(), n)"
    facts = ended(child(*PYTHON, script))
    assert (facts.code, facts.signal, facts.agent_code) == (None, number, 128 + number)


@pytest.mark.parametrize(
    ("facts", "text", "name", "code"),
    [
        (ExitFacts(0, None, 1.0), "exit code 0", "", 0),
        (ExitFacts(3, None, 1.0), "exit code 3", "", 3),
        (ExitFacts(None, 9, 1.0), "killed by signal 9 (SIGKILL)", "SIGKILL", 137),
        (ExitFacts(None, 11, 1.0), "killed by signal 11 (SIGSEGV)", "SIGSEGV", 139),
        (ExitFacts(None, 40, 1.0), "killed by signal 40 (SIG40)", "SIG40", 168),
    ],
)
def test_facts_in_words_and_as_the_agents_exit_code(facts: ExitFacts, text: str, name: str, code: int) -> None:
    assert (str(facts), facts.signal_name, facts.agent_code) == (text, name, code)


def test_the_uptime_counts_from_the_spawn() -> None:
    clock = ManualClock()
    made = Child(Launch(["sh", "-c", "exit 0"], {}), clock)
    assert made.started_at == clock.now
    clock.now += 42.5
    assert ended(made).uptime == 42.5
    clock.now += 1
    assert ended(made).uptime == 42.5
    made.close()


def test_polling_reaps_once_and_remembers(child: Spawn) -> None:
    made = child("sh", "-c", "exit 7")
    facts = ended(made)
    with pytest.raises(ChildProcessError):
        os.waitpid(made.pid, os.WNOHANG)
    assert made.poll() is facts


def test_a_child_that_runs_has_no_facts(child: Spawn) -> None:
    made = child(*SLEEP)
    assert made.poll() is None
    made.signal(signal.SIGTERM)
    assert ended(made).signal == signal.SIGTERM


def test_a_child_reaped_by_somebody_else_does_not_count_as_ended_well() -> None:
    made = Child(Launch(["sh", "-c", "exit 5"], {}), SystemClock())
    os.waitpid(made.pid, 0)
    with pytest.raises(ChildProcessError):
        made.poll()
    made._popen.returncode = 5  # or Popen would warn that it still runs
    made.close()


def test_signals_to_the_dead_do_nothing(child: Spawn) -> None:
    made = child("sh", "-c", "exit 0")
    facts = ended(made)
    made.signal(signal.SIGKILL)
    made.kill_group()
    assert made.poll() is facts


# Where and how they run


def test_it_leads_a_process_group_of_its_own(child: Spawn) -> None:
    made = child(*SLEEP)
    assert os.getpgid(made.pid) == made.pid != os.getpgrp()


def test_it_gets_exactly_the_environment_given() -> None:
    os.environ["NOT_FOR_IT"] = "x"
    script = "import os, sys; sys.stderr.write('|'.join(f'{name}={value}' for name, value in os.environ.items()))"
    code, errors = outcome(*PYTHON, script, environment={"A": "b c"})
    assert code == 0
    assert [each for each in errors.split("|") if not each.startswith("LC_CTYPE=")] == ["A=b c"]


WHERE = 'found=$(readlink /proc/$$/fd/0 /proc/$$/fd/1); echo "$found" >&2'


def test_it_reads_nothing_and_its_output_is_the_agents() -> None:
    assert outcome("sh", "-c", WHERE)[1].splitlines() == ["/dev/null", os.readlink("/proc/self/fd/1")]


def test_a_quiet_childs_output_is_thrown_away() -> None:
    assert outcome("sh", "-c", WHERE, is_quiet=True)[1].splitlines() == ["/dev/null", "/dev/null"]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo ünsinn >&2; exit 3", (3, "ünsinn\n")),
        ("kill -9 $$", (137, "")),
        ("exit 0", (0, "")),
        ("printf '\\377' >&2; exit 255", (255, "\ufffd")),
    ],
)
def test_waiting_gives_code_and_words(script: str, expected: tuple[int, str]) -> None:
    assert outcome("sh", "-c", script) == expected


def test_a_missing_binary_is_a_settings_error(tmp_path: Path) -> None:
    missing = str(tmp_path / "no-envoy")
    with pytest.raises(SettingsError) as refused:
        Child(Launch([missing, "-c", "x"], {}), SystemClock())
    assert str(refused.value) == f"{missing} can't be executed: No such file or directory"
    assert refused.value.exit_code == EXIT_SETTINGS


@pytest.mark.parametrize(
    ("mode", "content", "reason"),
    [(0o644, "#!/bin/sh\n", "Permission denied"), (0o755, "\x7fELF", "Exec format error")],
)
def test_what_cannot_be_executed_is_told(tmp_path: Path, mode: int, content: str, reason: str) -> None:
    program = tmp_path / "envoy"
    program.write_text(content)
    program.chmod(mode)
    with pytest.raises(SettingsError) as refused:
        Child(Launch([str(program)], {}), SystemClock())
    assert str(refused.value) == f"{program} can't be executed: {reason}"


def test_spawning_an_envoy_adds_the_arguments_of_its_epoch(tmp_path: Path) -> None:
    epoch = Epoch(2, 9)
    made = spawn(Launch(["sh", "-c", "exit 0", "envoy"], {}), epoch, 3, tmp_path / "base-id", SystemClock())
    assert made.argv == ["sh", "-c", "exit 0", "envoy", *epoch_arguments(epoch, tmp_path / "base-id", 3)]
    assert ended(made).code == 0
    made.close()


def test_what_the_agent_has_of_a_child_is_given_back(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    made = Child(Launch(["sh", "-c", "exit 0"], {}), SystemClock())
    ended(made)
    made.close()
    outcome("sh", "-c", "exit 0")
    with pytest.raises(SettingsError):
        Child(Launch([str(tmp_path / "no-envoy")], {}), SystemClock())
    assert os.listdir("/proc/self/fd") == before


# What it started, and who started it

FAMILY = "sleep 1000 & echo $! >&2; wait"


def reaped(pid: int) -> int:
    """Wait for an orphan that came to this process, the subreaper; its exit code, -n for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_killing_the_group_kills_what_the_child_started(child: Spawn) -> None:
    made = child("sh", "-c", FAMILY)
    grandchild = int(said(made))
    made.kill_group()
    assert ended(made).signal == signal.SIGKILL
    assert reaped(grandchild) == -signal.SIGKILL


def test_a_signal_goes_to_the_child_alone(child: Spawn) -> None:
    made = child("sh", "-c", FAMILY)
    grandchild = int(said(made))
    made.signal(signal.SIGKILL)
    assert ended(made).signal == signal.SIGKILL
    assert os.waitpid(grandchild, os.WNOHANG) == (0, 0)
    os.kill(grandchild, signal.SIGTERM)
    assert reaped(grandchild) == -signal.SIGTERM


AGENT = """
import os, sys, signal
from pilot_agent.clock import SystemClock
from pilot_agent.envoy.command import Launch
from pilot_agent.envoy.process import Child
user = int(sys.argv[1]) or None
child = Child(Launch(sys.argv[2:], dict(os.environ), user), SystemClock())
os.read(child.stderr_fd, 1)
print(child.pid, flush=True)
signal.pause()
"""
LIVES_ON = "echo >&2; exec sleep 1000"
# As Envoy with hot restart asks the kernel, and as one whose main thread has no time for the signal.
DEAF = ("setpriv", "--pdeathsig", "TERM", "sh", "-c", f"trap '' TERM; {LIVES_ON}")


@pytest.mark.parametrize("argv", [("sh", "-c", LIVES_ON), DEAF], ids=["plain", "asks for SIGTERM and ignores it"])
@pytest.mark.parametrize("user", [0, pytest.param(1337, marks=NEEDS_ROOT)])
def test_it_dies_with_the_agent(argv: Sequence[str], user: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", AGENT, str(user), *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as agent:
        assert agent.stdout is not None
        grandchild = int(agent.stdout.readline())
        os.kill(grandchild, 0)
        agent.kill()
        agent.wait()
        eventually(lambda: os.waitid(os.P_PID, grandchild, os.WEXITED | os.WNOHANG | os.WNOWAIT))
        assert reaped(grandchild) == -signal.SIGKILL


@NEEDS_ROOT
def test_it_runs_as_the_user_it_is_given() -> None:
    script = "echo $(id -u) $(id -g) $(id -G) >&2"
    made = Child(Launch(["sh", "-c", script], dict(os.environ), 1337), SystemClock())
    assert made.wait() == (0, "1337 1337 1337\n")


@NEEDS_ROOT
def test_another_user_may_write_its_base_id(tmp_path: Path) -> None:
    path = tmp_path / "base-id"
    made = spawn(Launch(["sh", "-c", "exit 0"], dict(os.environ), 1337), Epoch(), 3, path, SystemClock())
    assert ended(made).code == 0
    made.close()
    assert (path.stat().st_uid, path.stat().st_gid) == (1337, 1337)
