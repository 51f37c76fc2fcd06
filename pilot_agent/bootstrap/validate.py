"""What Envoy itself says of a bootstrap (`--mode validate`): the arguments to ask it, and how to read the answer.

Starts no process: children have one owner, the supervisor, who runs the command and brings the outcome here.
"""

import json
import re
from collections.abc import Sequence

from pilot_agent.errors import EnvoyRefused

_LOG_HEAD = re.compile(r"^(\[[^\]]*\])+\s*(\[[^\]]*\]\s*)?")
_DUMP = re.compile(r"goo\.gle/\S+.*?^: ", re.DOTALL | re.MULTILINE)
"""A whole protobuf message, over many lines, that Envoy puts before the reason why it fails a constraint."""
_REFUSAL = re.compile(r"error (`.*?`) initializing config", re.DOTALL)
LONGEST_QUOTE = 1000
LONGEST_ARGUMENT = 128 * 1024 - 1
"""Linux takes no longer one (MAX_ARG_STRLEN)."""


def validation_argv(argv: Sequence[str]) -> list[str]:
    """The command that checks what `argv` would run. It opens no port and no shared memory."""
    return [*argv, "--mode", "validate", "--disable-hot-restart"]


def checks(argv: Sequence[str], document: bytes) -> list[list[str]]:
    """The commands that check `document`, which `argv` would run: all must end with 0. See `judge` for their answers.

    `--mode validate` leaves the stats matcher out, whose regular expressions then end the real start. So what the
    document says of stats is initialised alone; it opens no port either.
    """
    stats = _stats_of(document)
    if stats is None:
        return [validation_argv(argv)]
    alone = ["--mode", "init_only", "--config-yaml", stats, "-l", "warning", "--disable-hot-restart"]
    return [validation_argv(argv), [argv[0], *alone, "--skip-deprecated-logs"]]


def _stats_of(document: bytes) -> str | None:
    try:
        stats = json.loads(document).get("stats_config")
    except (ValueError, AttributeError):
        return None  # a customConfigFile in YAML, or something that the first check refuses
    text = json.dumps({"stats_config": stats}) if stats else ""
    return text if 0 < len(text) < LONGEST_ARGUMENT else None


def judge(code: int, output: str, what: str) -> None:
    """Raises EnvoyRefused with Envoy's own words unless the exit code is 0."""
    if code != 0:
        raise EnvoyRefused(f"Envoy refuses {what} (exit code {code}): {refusal_in(output) or own_words(output)}")


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
