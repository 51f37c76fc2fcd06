"""Signals: caught from the first moment, handled later. A handler only notes what came (table in docs/lifecycle.md)."""

import signal
from collections.abc import Callable
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT)
HANDLED = (*STOP, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)


class EarlySignals:
    """Notes signals before there is an event loop: SIGTERM during the start must not kill the agent half-made."""

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        for number in HANDLED:
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received.append(signal.Signals(number))

    @property
    def stop(self) -> str | None:
        """The name of the first signal that asked to stop."""
        return next((each.name for each in self.received if each in (*STOP, signal.SIGQUIT)), None)

    def hand_over(self, add_handler: Callable[..., None], handle: Callable[[signal.Signals], None]) -> None:
        """Give the signals to the event loop (`add_handler` is its add_signal_handler), what came before included."""
        for number in HANDLED:
            add_handler(number, handle, number)
        for number in self.received:
            handle(number)
        self.received.clear()


def restore_defaults() -> None:
    """Undo all of it, for the last moments of the process."""
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
