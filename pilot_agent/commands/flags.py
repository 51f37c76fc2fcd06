"""Flags as a table: what they are called, their defaults and effects, and a small parser for `proxy`.

click makes the help and the completion from the same table. It does not parse `proxy` itself: importing it costs 20 ms
and 1 MiB on the way to Envoy's start. The parser is as lenient as Istio's: unknown flags are ignored, and told.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pilot_agent.errors import UsageError
from pilot_agent.log import LogOptions
from pilot_agent.values import Duration, parse_bool


class Flag(NamedTuple):
    """`--name`; its type is that of `default`: str, bool, int, Duration, or a tuple of texts for a repeatable one.

    `least` bounds an integer from below; `attribute` is where the value goes.
    """

    name: str
    attribute: str
    default: Any
    effect: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    least: int | None = None

    @property
    def help(self) -> str:
        """Effect and default, as the help text shows them."""
        return f"{self.effect} (default {show(self.default)})"

    @property
    def is_boolean(self) -> bool:
        return isinstance(self.default, bool)

    @property
    def is_repeatable(self) -> bool:
        return type(self.default) is tuple  # a Duration is one too, by inheritance

    def read(self, text: str) -> Any:
        """The value of the flag's type. Raises ValueError."""
        if self.is_boolean:
            return parse_bool(text)
        if isinstance(self.default, Duration):
            return _not_negative(text)
        if isinstance(self.default, int):
            return self._integer(text)
        if self.choices and text not in self.choices:
            raise ValueError(f"{text!r} is not one of {', '.join(self.choices)}")
        return text

    def _integer(self, text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not an integer") from None
        if self.least is not None and number < self.least:
            raise ValueError(f"{number} is too small: the least is {self.least}")
        return number


LOGGING_FLAGS = (
    Flag(
        "log_as_json",
        "as_json",
        LogOptions().as_json,
        "Write one JSON object per log line instead of tab-separated columns",
    ),
    Flag(
        "log_target",
        "targets",
        LogOptions().targets,
        "Where log lines go: a path, stdout or stderr; given again, to several",
        metavar="PATH",
    ),
    Flag(
        "log_output_level",
        "levels",
        "default:info,grpc:none",
        "What is logged, per scope. A level alone is for scope default; scope all is every scope. "
        "Levels: debug, info, warn, error, fatal, none",
        metavar="SCOPE:LEVEL,...",
    ),
    Flag(
        "log_stacktrace_level",
        "stacktrace_levels",
        LogOptions().stacktrace_levels,
        "From which level on a line carries a stack trace, per scope",
        metavar="SCOPE:LEVEL,...",
    ),
    Flag(
        "log_caller",
        "callers",
        LogOptions().callers,
        "Scopes whose lines name file and line of the caller; all is every scope",
        metavar="SCOPE,...",
    ),
    Flag(
        "vklog",
        "vklog",
        0,
        "Verbosity of Kubernetes' Go client library, accepted for compatibility: there is none here",
    ),
)


class Parsed(NamedTuple):
    """`values` by attribute, defaults included; `words` that are no flags; `unknown` flags as they were written."""

    values: dict[str, Any]
    words: list[str]
    unknown: list[str]


def asks_for_help(args: Sequence[str]) -> bool:
    return not {"-h", "--help"}.isdisjoint(args)


def show(default: object) -> str:
    if isinstance(default, Duration):
        return str(default)
    if isinstance(default, tuple):
        return ", ".join(default)
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) or "empty"


def _not_negative(text: str) -> Duration:
    duration = Duration.parse(text)
    if duration.nanoseconds < 0:
        raise ValueError(f"{text!r} is negative")
    return duration


def parse(flags: Sequence[Flag], args: Sequence[str]) -> Parsed:
    """Read `args`: `--flag value`, `--flag=value`, and for booleans `--flag`, `--flag=false`, `--no-flag`.

    Raises UsageError for a value that does not fit its flag, or is missing.
    """
    known = {f"--{flag.name}": flag for flag in flags}
    parsed = Parsed({flag.attribute: flag.default for flag in flags}, [], [])
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            parsed.words.extend(rest)
            break
        name, equals, text = word.partition("=")
        flag = known.get(name)
        if flag is not None:
            if not equals:
                text = "true" if flag.is_boolean else _following(name, rest)
            _set(parsed, flag, text)
        elif name.startswith("--no-") and (flag := known.get(f"--{name[5:]}")) is not None and flag.is_boolean:
            _set(parsed, flag, "false")
        elif word.startswith("-") and word != "-":
            parsed.unknown.append(word)
        else:
            parsed.words.append(word)
    return parsed


def _following(name: str, rest: list[str]) -> str:
    if not rest:
        raise UsageError(f"flag needs an argument: {name}")
    return rest.pop(0)


def _set(parsed: Parsed, flag: Flag, text: str) -> None:
    try:
        value = flag.read(text)
    except ValueError as error:
        raise UsageError(f"invalid value for --{flag.name}: {error}") from None
    if flag.is_repeatable:
        # The first use replaces the default, later ones add to it.
        before = parsed.values[flag.attribute]
        value = (value,) if before is flag.default else (*before, value)
    parsed.values[flag.attribute] = value


def log_options(values: dict[str, Any]) -> LogOptions:
    """What the logging flags among `values` say."""
    return LogOptions(**{name: values[name] for name in LogOptions._fields})
