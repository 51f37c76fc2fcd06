"""`pilot-agent completion`: the scripts, and bash really completing with its own."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from pilot_agent.commands.root import SUBCOMMANDS
from tests.unit.commands.runner import COMMAND, run


@pytest.fixture
def path_with_agent(tmp_path: Path) -> str:
    """A PATH on which `pilot-agent` is this checkout: the generated function calls it by that name."""
    program = tmp_path / "bin" / "pilot-agent"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def completed_by_bash(line: list[str], path: str) -> list[str]:
    """What bash would offer for the last word of `line`."""
    words = " ".join(f"'{word}'" for word in line)
    script = (
        "source <(pilot-agent completion bash)\n"
        "function=$(complete -p pilot-agent | sed 's/.* -F \\([^ ]*\\) .*/\\1/')\n"
        f"COMP_WORDS=({words}); COMP_CWORD={len(line) - 1}; COMPREPLY=()\n"
        '"$function" pilot-agent\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["pilot-agent", ""], list(SUBCOMMANDS)),
        (["pilot-agent", "w"], ["wait"]),
        (["pilot-agent", "version", "--sh"], ["--short"]),
        (["pilot-agent", "wait", "--timeout"], ["--timeoutSeconds"]),
        (["pilot-agent", "version", "-o", ""], ["yaml", "json"]),
    ],
)
def test_bash_completes(line: list[str], offered: list[str], path_with_agent: str) -> None:
    assert completed_by_bash(line, path_with_agent)[: len(offered)] == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_registers_itself_for_the_agent(shell: str) -> None:
    ended = run("completion", shell)
    assert (ended.code, ended.err) == (0, "")
    assert f"_PILOT_AGENT_COMPLETE={shell}_complete" in ended.out
    assert "pilot-agent" in ended.out


@pytest.mark.parametrize(
    ("shell", "line"),
    [("zsh", "plain\nwait\nWait until the proxy is ready."), ("fish", "plain,wait\tWait until the proxy is ready.")],
)
def test_the_answers_of_the_other_shells_carry_help(shell: str, line: str) -> None:
    words = {"COMP_WORDS": "pilot-agent wa", "COMP_CWORD": "1" if shell == "zsh" else "wa"}
    ended = run(env={"_PILOT_AGENT_COMPLETE": f"{shell}_complete", **words})
    assert (ended.code, ended.out.strip()) == (0, line)


@pytest.mark.parametrize("args", [(), ("tcsh",), ("",)])
def test_no_shell_or_another_one_is_help_on_how_to_install(args: tuple[str, ...]) -> None:
    ended = run("completion", *args)
    assert (ended.code, ended.err) == (0, "")
    for words in ("source <(pilot-agent completion bash)", "fpath", "fish/completions", "powershell"):
        assert words in ended.out


def test_the_script_for_powershell_asks_us_and_leaves_no_variable_behind() -> None:
    ended = run("completion", "powershell")
    assert (ended.code, ended.err) == (0, "")
    assert "Register-ArgumentCompleter -Native -CommandName pilot-agent -ScriptBlock {" in ended.out
    set_ones = set(re.findall(r"\$env:(\w+) = ", ended.out))
    assert set_ones == {"_PILOT_AGENT_COMPLETE", "COMP_WORDS", "COMP_CWORD"}
    removed = re.findall(r"Remove-Item (.*)", ended.out)[0]
    assert set(re.findall(r"Env:(\w+)", removed)) == set_ones
    for opening, closing in ("{}", "()", "[]"):
        assert ended.out.count(opening) == ended.out.count(closing)


def test_what_the_script_for_powershell_asks_is_answered_in_the_form_it_splits() -> None:
    """`kind,word TAB help` a line, with all words in COMP_WORDS and the unfinished one in COMP_CWORD."""
    asked = {"_PILOT_AGENT_COMPLETE": "fish_complete", "COMP_WORDS": "pilot-agent proxy --onE", "COMP_CWORD": "--onE"}
    ended = run(env=asked)
    assert ended.out.startswith("plain,--onEnvoyExit\t")
