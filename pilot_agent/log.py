"""Istio's log lines, plain and JSON, with a level per scope (reference: Istio's --log_* flags).

Not `logging`: that costs 20 ms before Envoy is spawned, and cannot print tab-separated Istio lines without a formatter
of the same size as this file. Once asyncio is loaded, `adopt_stdlib` sends the records of libraries here too.
"""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

from pilot_agent.errors import SettingsError


class Level(IntEnum):
    none = 0
    fatal = 1
    error = 2
    warn = 3
    info = 4
    debug = 5


SCOPES = (
    "ads ca cache citadelclient default dns gcecred grpc healthcheck klog mockcred monitoring probes "
    "sds security spiffe validation wasm xdsproxy"
).split()
DEFAULT_LEVELS = {"grpc": Level.none}


class LogOptions(NamedTuple):
    """What the --log_* flags say. `targets` are paths, `stdout` or `stderr`; the maps are by scope."""

    as_json: bool = False
    targets: tuple[str, ...] = ("stdout",)
    levels: str = ""
    stacktrace_levels: str = "default:none"
    callers: str = ""


def parse_levels(text: str, flag: str) -> dict[str, Level]:
    """`scope:level,...` to a map; a bare `level` is for scope `default`. Raises SettingsError for an unknown level."""
    levels: dict[str, Level] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        scope, _, name = entry.rpartition(":")
        if name not in Level.__members__:
            names = ", ".join(reversed(Level.__members__))
            raise SettingsError(f"{flag}: unknown level {name!r} in {entry!r}; use one of {names}")
        levels[scope or "default"] = Level[name]
    return levels


def _effective(text: str, flag: str, base: Mapping[str, Level], default: Level) -> dict[str, Level]:
    given = parse_levels(text, flag)
    levels = dict.fromkeys(SCOPES, default) | dict(base)
    if "all" in given:
        levels = dict.fromkeys(levels, given["all"])
    # Scopes Istio knows and we do not log to are accepted in silence, as Istio does.
    return levels | {scope: level for scope, level in given.items() if scope != "all"}


class Log:
    """Where log lines go. Made once by a command and handed down; `scope(name)` is what components keep."""

    def __init__(self, options: LogOptions) -> None:
        """Raises SettingsError for an unknown level or a target that can't be opened."""
        self.as_json = options.as_json
        self._levels = _effective(options.levels, "--log_output_level", DEFAULT_LEVELS, Level.info)
        self._stacks = _effective(options.stacktrace_levels, "--log_stacktrace_level", {}, Level.none)
        self._callers = frozenset(filter(None, options.callers.split(",")))
        self._descriptors = [_open_target(target) for target in options.targets]
        self.lost_lines = 0
        self._scopes: dict[str, Scope] = {}

    def scope(self, name: str = "default") -> "Scope":
        if name not in self._scopes:
            self._scopes[name] = Scope(self, name, self._level_of(name))
        return self._scopes[name]

    def set_levels(self, levels: str, what: str) -> None:
        """Other levels from now on, in every scope. Raises SettingsError naming `what` for an unknown one."""
        self._levels = _effective(levels, what, DEFAULT_LEVELS, Level.info)
        for name, scope in self._scopes.items():
            scope.level = self._level_of(name)

    def _level_of(self, scope: str) -> Level:
        return self._levels.get(scope, self._levels["default"])

    def write(self, line: bytes) -> None:
        """Send one finished line (with its newline) to every target."""
        for descriptor in self._descriptors:
            try:
                os.write(descriptor, line)
            except OSError:
                # Nobody reads us any more (a closed pipe, a full disk): the agent goes on, and counts what was lost.
                self.lost_lines += 1

    def emit(self, scope: str, level: Level, message: str, labels: Mapping[str, object], depth: int = 1) -> None:
        moment = timestamp(time.time())
        caller = _caller(depth + 1) if {scope, "all"} & self._callers else ""
        stack = _stack(depth + 1) if level <= self._stacks.get(scope, Level.none) else ""
        if self.as_json:
            line = _json_line(moment, level, scope, caller, message, labels, stack)
        else:
            line = _plain_line(moment, level, scope, caller, message, labels, stack)
        self.write(line.encode(errors="replace") + b"\n")

    def adopt_stdlib(self) -> None:
        """Send warnings and errors of `logging` (asyncio, aiohttp, ...) to scope `default`. Imports `logging`."""
        import logging

        default = self.scope()

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                level = Level.error if record.levelno >= logging.ERROR else Level.warn
                text = record.getMessage()
                if record.exc_info and record.exc_info[1] is not None:
                    text += f": {record.exc_info[1]!r}"
                default.at(level, text, logger=record.name)

        root = logging.getLogger()
        root.handlers[:] = [Handler(logging.WARNING)]


class Scope:
    """The log of one component. Labels are printed `key=value` after the message, or as keys of the JSON object."""

    def __init__(self, log: Log, name: str, level: Level) -> None:
        self._log, self._name, self.level = log, name, level

    def is_enabled(self, level: Level) -> bool:
        return level <= self.level

    def at(self, level: Level, message: str, **labels: object) -> None:
        if level <= self.level:
            self._log.emit(self._name, level, message, labels)

    def debug(self, message: str, **labels: object) -> None:
        if self.level >= Level.debug:
            self._log.emit(self._name, Level.debug, message, labels)

    def info(self, message: str, **labels: object) -> None:
        if self.level >= Level.info:
            self._log.emit(self._name, Level.info, message, labels)

    def warn(self, message: str, **labels: object) -> None:
        if self.level >= Level.warn:
            self._log.emit(self._name, Level.warn, message, labels)

    def error(self, message: str, **labels: object) -> None:
        if self.level >= Level.error:
            self._log.emit(self._name, Level.error, message, labels)


def timestamp(wall: float) -> str:
    """UTC with exactly six fractional digits and a Z, as Istio's and Envoy's lines have it."""
    whole, micro = divmod(int(wall * 1_000_000), 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{micro:06d}Z"


def _open_target(target: str) -> int:
    if target == "stdout":
        return 1
    if target == "stderr":
        return 2
    try:
        return os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SettingsError(
            f"--log_target {target}: {error.strerror}; give a writable path, stdout or stderr"
        ) from None


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return f"[{' '.join(_plain(item) for item in value)}]"
    return str(value)


def _plain_line(
    moment: str, level: Level, scope: str, caller: str, message: str, labels: Mapping[str, object], stack: str
) -> str:
    columns = [moment, level.name]
    if scope != "default":
        columns.append(scope)
    if caller:
        columns.append(caller)
    text = message.replace("\n", "\\n")
    columns.append(
        "\t".join([text, " ".join(f"{key}={_plain(value)}" for key, value in labels.items())]) if labels else text
    )
    return "\t".join(columns) + (f"\n{stack}" if stack else "")


def _json_line(
    moment: str, level: Level, scope: str, caller: str, message: str, labels: Mapping[str, object], stack: str
) -> str:
    import json

    record: dict[str, object] = {"level": level.name, "time": moment}
    if scope != "default":
        record["scope"] = scope
    if caller:
        record["caller"] = caller
    record["msg"] = message
    record.update(labels)
    if stack:
        record["stack"] = stack
    return json.dumps(record, separators=(",", ":"), default=_jsonable, ensure_ascii=False)


def _jsonable(value: object) -> object:
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return list(value)
    return str(value)


def _caller(depth: int) -> str:
    frame = sys._getframe(depth + 1)
    return f"{'/'.join(frame.f_code.co_filename.split('/')[-2:])}:{frame.f_lineno}"


def _stack(depth: int) -> str:
    import traceback

    return "".join(traceback.format_stack(sys._getframe(depth + 1))).rstrip()
