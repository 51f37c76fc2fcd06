"""`pilot-agent demo`: the story of two pods, told as it happens. Owns flags, signals and the exit code."""

import signal
import sys
from types import FrameType

from pilot_agent.commands.parsing import Parsed
from pilot_agent.demo import story
from pilot_agent.demo.network import missing_for_namespaces
from pilot_agent.demo.stage import ENDINGS
from pilot_agent.errors import EXIT_OK, EXIT_SIGNAL_BASE


def run(parsed: Parsed) -> int:
    """Raises DemoError when a step did not happen."""
    ending = _Ending()
    values = parsed.values
    wishes = story.Wishes(
        is_isolated=not values["unprivileged"] and _can_isolate(),
        mode=values["mode"],
        pause=_pause if values["step"] and sys.stdin.isatty() else None,
        look_around=_look_around if values["keep"] else None,
    )
    try:
        story.tell(wishes, _say)
    except KeyboardInterrupt:
        _say("interrupted: everything that was started is stopped, everything that was made is gone")
        return EXIT_SIGNAL_BASE + ending.signal
    return EXIT_OK


def _say(text: str) -> None:
    print(text, flush=True)


def _can_isolate() -> bool:
    problem = missing_for_namespaces()
    if problem is not None:
        _say(f"without network namespaces: {problem}")
    return problem is None


def _pause() -> None:
    input("[Enter]")


def _look_around(commands: list[str]) -> None:
    """Until a signal, which is how this is meant to end."""
    _say("the pods are left running until Ctrl-C; in another terminal:")
    for command in commands:
        _say(f"   {command}")
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass


class _Ending:
    """The first signal interrupts what goes on; another one must not interrupt the clearing away."""

    def __init__(self) -> None:
        self.signal = 0
        for number in ENDINGS:
            signal.signal(number, self._end)

    def _end(self, number: int, _: FrameType | None) -> None:
        if not self.signal:
            self.signal = number
            raise KeyboardInterrupt
