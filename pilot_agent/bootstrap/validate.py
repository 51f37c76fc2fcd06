"""What Envoy itself says of a bootstrap (`--mode validate`): the arguments to ask it, and how to read the answer.

Starts no process: children have one owner, the supervisor, who runs the command and brings the outcome here.
"""

import re
from collections.abc import Sequence

from pilot_agent.errors import EnvoyRefused

_LOG_HEAD = re.compile(r"^(\[[^\]]*\])+\s*(\[[^\]]*\]\s*)?")
_DUMP = re.compile(r"goo\.gle/\S+.*?^: ", re.DOTALL | re.MULTILINE)
"""A whole protobuf message, over many lines, that Envoy puts before the reason why it fails a constraint."""
_REFUSAL = re.compile(r"error (.*?) ?initializing config", re.DOTALL)
LONGEST_QUOTE = 1000


def validation_argv(argv: Sequence[str]) -> list[str]:
    """The command that checks what `argv` would run. It opens no port and no shared memory."""
    return [*argv, "--mode", "validate", "--disable-hot-restart"]


def judge(code: int, output: str, what: str) -> None:
    """Raises EnvoyRefused with Envoy's own words unless the exit code is 0."""
    if code != 0:
        raise EnvoyRefused(f"Envoy refuses {what} (exit code {code}): {own_words(output)}")


def refusal_in(last_words: str) -> str | None:
    """Why an Envoy that was really started refused its bootstrap, by its last words; None where that was not why.

    `--mode validate` does not look at everything: a regular expression in the stats matcher, for one.
    """
    found = _REFUSAL.search(last_words)
    return f"error {found[1]}" if found else None


def own_words(output: str) -> str:
    """The line of Envoy's output that says what is wrong, without time stamps and source positions."""
    lines = [line.strip() for line in _DUMP.sub("", output).splitlines() if line.strip()]
    telling = [line for line in lines if "error initializing" in line.lower() or "exception" in line.lower()]
    for line in (*telling, *reversed(lines)):
        columns = line.split("\t")
        text = columns[3] if len(columns) > 3 else _LOG_HEAD.sub("", line)
        return " ".join(text.split())[:LONGEST_QUOTE]
    return "it said nothing"
