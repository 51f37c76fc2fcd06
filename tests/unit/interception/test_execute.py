"""Commands as they are run: outputs and codes, what they get to see, and what goes wrong with them."""

import os
import stat
from pathlib import Path

import pytest

from pilot_agent.errors import InterceptionError
from pilot_agent.interception.execute import CommandMissing, Commands, Outcome, inside


def test_code_and_outputs_are_handed_on() -> None:
    assert Commands()(["sh", "-c", "cat; echo no >&2; exit 3"], "text\n") == Outcome(3, "text\n", "no\n")


def test_a_reason_is_the_first_line_of_the_complaints() -> None:
    assert Outcome(1, "", "\nError: no\nmore\n").reason == "Error: no"
    assert Outcome(4).reason == "exit status 4"


def test_a_command_sees_path_and_language_and_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    seen = Commands("/usr/bin:/bin")(["env"], variables={"XTABLES_LOCKFILE": "/run/lock"}).output.splitlines()
    assert sorted(seen) == ["LANG=C", "PATH=/usr/bin:/bin", "XTABLES_LOCKFILE=/run/lock"]


def test_what_is_not_text_is_no_error() -> None:
    assert Commands()(["printf", r"a\377b"]).output == "a\ufffdb"


def test_a_missing_command_is_named() -> None:
    with pytest.raises(CommandMissing, match=r"^no-such-command was not found: it is not installed, or not in /bin$"):
        Commands("/bin")(["no-such-command", "--flag"])


def test_a_command_that_can_not_be_run_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tool"
    file.write_text("not a program")
    file.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InterceptionError, match="tool can't be run: Exec format error"):
        Commands(str(tmp_path))(["tool"])


def test_a_command_that_hangs_is_killed() -> None:
    with pytest.raises(InterceptionError, match=r"^sleep 60: not done after 0.05 s, and killed$"):
        Commands(timeout_seconds=0.05)(["sleep", "60"])


def test_a_file_that_is_no_namespace_is_named(tmp_path: Path) -> None:
    file = tmp_path / "none"
    before = os.readlink("/proc/thread-self/ns/net")
    with pytest.raises(InterceptionError, match=f"network namespace {file}: No such file or directory"), inside(file):
        pass
    file.write_text("")
    with pytest.raises(InterceptionError, match=f"network namespace {file}: Invalid argument"), inside(file):
        pass
    assert os.readlink("/proc/thread-self/ns/net") == before
