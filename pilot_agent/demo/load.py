"""Clients that ask without a pause for as long as a step lasts, and what they got."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType

from pilot_agent.demo.http_request import Answer

CLIENTS = 3
PAUSE_S = 0.002


class Load:
    """`ask` is one request. Use it as a context: the clients are gone behind it."""

    def __init__(self, place: Callable[[Callable[[], None]], None], ask: Callable[[], Answer]) -> None:
        self._place, self._ask = place, ask
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self.answers: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        self._place(self._go_on)

    def _go_on(self) -> None:
        while not self._is_over.is_set():
            status = self._ask().status
            with self._lock:
                self.answers[status] += 1
            time.sleep(PAUSE_S)

    @property
    def requests(self) -> int:
        with self._lock:
            return self.answers.total()

    @property
    def failed(self) -> dict[int, int]:
        """By status, 0 for no answer at all."""
        with self._lock:
            return {status: count for status, count in sorted(self.answers.items()) if status != 200}
