"""Envoy's log levels: what `--level` asks for, as requests to /logging, and what Envoy says they are."""

from difflib import get_close_matches
from urllib.parse import quote

from pilot_agent.errors import UsageError

LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")
DEFAULT = "warning"
"""What Istio starts Envoy with, and `--reset` returns to."""
PATH = "/logging"
_OTHER_NAMES = {"warn": "warning", "none": "off"}
_HEAD = "active loggers:"


def present(answer: str) -> dict[str, str]:
    """Level by scope, sorted, of what /logging answers; empty where that is something else."""
    lines = answer.strip().splitlines()
    if not lines or lines[0].strip() != _HEAD:
        return {}
    pairs = (line.strip().rpartition(": ") for line in lines[1:])
    return dict(sorted((scope, level) for scope, _, level in pairs if scope))


def shown(levels: dict[str, str]) -> str:
    return "".join(f"{line}\n" for line in (_HEAD, *(f"  {scope}: {level}" for scope, level in levels.items())))


def changes(wanted: str, scopes: dict[str, str]) -> list[str]:
    """The requests that set what `wanted` says: `debug`, or `http:debug,admin:info`; later ones override earlier ones.

    `scopes` are those Envoy has. Raises UsageError for a level or a scope that there is not.
    """
    every, single = "", dict[str, str]()
    for part in wanted.split(","):
        scope, level = _read(part.strip())
        if not scope:
            every, single = level, {}
        elif scope in scopes:
            single[scope] = level
        else:
            raise UsageError(f"--level {wanted}: Envoy has no logger {scope!r}{_nearest(scope, list(scopes))}")
    pairs = ",".join(f"{scope}:{level}" for scope, level in single.items())
    return [f"{PATH}?level={every}"] * bool(every) + [f"{PATH}?paths={quote(pairs, safe=':,')}"] * bool(pairs)


def check(wanted: str) -> None:
    """Raises UsageError for what `changes` would refuse whatever the loggers are."""
    for part in wanted.split(","):
        _read(part.strip())


def _read(part: str) -> tuple[str, str]:
    scope, separator, level = part.replace("=", ":").rpartition(":")
    # Written as in a log line, envoy::http:debug; the namespace says nothing.
    scope, level = scope.rpartition("::")[2], level.lower()
    level = _OTHER_NAMES.get(level, level)
    if level not in LEVELS:
        raise UsageError(f"--level {part!r}: {level!r} is not one of {', '.join(LEVELS)}{_nearest(level, LEVELS)}")
    if separator and not scope:
        raise UsageError(f"--level {part!r}: a scope is missing before the colon")
    return scope, level


def _nearest(word: str, known: tuple[str, ...] | list[str]) -> str:
    matches = get_close_matches(word, known, n=1)
    return f'; did you mean "{matches[0]}"?' if matches else ""
