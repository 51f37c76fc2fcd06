"""Flags as data: what they are called, their type, default, bounds and effect, and the logging flags of all commands.

`parsing` reads a command line by them; `root` makes the help and the completion of the same tables, and `collateral`
the documentation.
"""

from typing import Any, NamedTuple

from pilot_agent.log import LogOptions
from pilot_agent.values import Duration, parse_bool


class Flag(NamedTuple):
    """`--name`, also `-short`; its type is that of `default`: str, bool, int, Duration, or a tuple for a repeatable.

    `least` bounds an integer from below; `attribute` is where the value goes. With `bare`, a text flag may stand alone
    and then means that text; any other value of it needs `=`.
    """

    name: str
    attribute: str
    default: Any
    effect: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    least: int | None = None
    short: str = ""
    bare: str = ""

    @property
    def help(self) -> str:
        """Effect and default, as the help text shows them; an effect may tell its default in words of its own."""
        return self.effect if "(default" in self.effect else f"{self.effect} (default {show(self.default)})"

    @property
    def is_boolean(self) -> bool:
        return isinstance(self.default, bool)

    @property
    def is_repeatable(self) -> bool:
        return type(self.default) is tuple  # a Duration is one too, by inheritance

    @property
    def alone(self) -> str:
        """What the flag means without a value; empty where it needs one."""
        return "true" if self.is_boolean else self.bare

    @property
    def kind(self) -> str:
        """The type, for people."""
        kinds = {bool: "boolean", int: "integer", Duration: "duration"}
        return kinds.get(type(self.default), "text")

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


def log_options(values: dict[str, Any]) -> LogOptions:
    """What the logging flags among `values` say."""
    return LogOptions(**{name: values[name] for name in LogOptions._fields})
