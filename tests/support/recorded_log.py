"""A log that tests can read: every line as `level message`."""

from collections.abc import Mapping
from typing import cast

from pilot_agent.log import Level, Log, Scope


class RecordedLog:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.scope = Scope(cast(Log, self), "default", Level.debug)

    def emit(self, scope: str, level: Level, message: str, labels: Mapping[str, object]) -> None:
        self.lines.append(f"{level.name} {message}")
