"""Envoy's own log lines, brought into the agent's format.

The bootstrap gives Envoy the agent's format, but what it says before it has read the bootstrap, and when it crashes,
comes in its own. Such lines are read here and written again; the last telling ones are kept to explain an exit.
"""

import os
import re
from collections import deque

from pilot_agent.log import Level, Log

_EARLY = re.compile(
    rb"^\[[\d\- :.]+\]\[\d+\]\[(?P<level>\w+)\]\[(?P<name>\w+)\] (?:\[(?P<caller>[^\]]+)\] )?(?P<text>.*)$"
)
_OURS = re.compile(rb"^\d{4}-\d\d-\d\dT[\d:.]+Z\t(?P<level>\w+)\t(?P<scope>[^\t]*)\t(?P<text>[^\t]*)")
_OURS_JSON = re.compile(rb'^\{(?=.*"level":"(?P<level>\w+)")(?=.*"msg":"(?P<text>(?:[^"\\]|\\.)*)")')

_LEVELS = {
    b"trace": Level.debug,
    b"debug": Level.debug,
    b"info": Level.info,
    b"warning": Level.warn,
    b"warn": Level.warn,
    b"error": Level.error,
    b"critical": Level.error,
}
LONGEST_LINE = 64 * 1024
READ_SIZE = 64 * 1024


class Output:
    """Turns the bytes of one Envoy's standard error into log lines."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._rest = b""
        self._telling: deque[str] = deque(maxlen=3)

    @property
    def last_words(self) -> str:
        """The last errors Envoy logged, newest last; empty where it said nothing."""
        return "; ".join(self._telling)

    def read(self, descriptor: int) -> bool:
        """Take one portion of what is there now from a non-blocking descriptor; False when there was none."""
        try:
            data = os.read(descriptor, READ_SIZE)
        except BlockingIOError:
            return False
        self.feed(data)
        return bool(data)

    def feed(self, data: bytes) -> None:
        """Take bytes as they come; empty ones mean the end. A line that never ends is cut, not collected."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._rest and (not data or len(self._rest) > LONGEST_LINE):
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            if line.strip():
                self._line(line)

    def _line(self, line: bytes) -> None:
        match = _OURS_JSON.match(line) if line.startswith(b"{") else _OURS.match(line)
        if match:
            self._remember(match["level"], match["text"])
            self._log.write(line + b"\n")
            return
        match = _EARLY.match(line)
        if match:
            self._remember(match["level"], match["text"])
            self._emit(_LEVELS.get(match["level"], Level.warn), f"envoy {match['name'].decode()}", match["text"])
        else:
            self._emit(Level.warn, "envoy", line)

    def _remember(self, level: bytes, text: bytes) -> None:
        if level in (b"error", b"critical"):
            self._telling.append(_text(text)[:500])

    def _emit(self, level: Level, scope: str, text: bytes) -> None:
        self._log.emit(scope, level, _text(text), {})


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace").rstrip()
