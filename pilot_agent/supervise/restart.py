"""When to start Envoy again after a crash, and when to give up. Pure: time comes in, a decision goes out."""

from collections import deque

from pilot_agent.clock import Backoff

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 15.0
STABLE_AFTER_S = 60.0


class RestartPolicy:
    """At once the first time, then 0.1 s doubling to 15 s with jitter; a run of 60 s starts the sequence anew.

    `max_crashes` within `window` seconds mean giving up.
    """

    def __init__(self, max_crashes: int, window: float) -> None:
        self._max_crashes, self._window = max_crashes, window
        self._crashes: deque[float] = deque()
        self._backoff = Backoff(FIRST_DELAY_S, LONGEST_DELAY_S)
        self._is_first = True

    def next_delay(self, now: float, uptime: float) -> float | None:
        """Seconds to wait before the restart after a crash at `now` (monotonic) that followed `uptime` seconds.

        None: give up.
        """
        self._crashes.append(now)
        while self._crashes[0] <= now - self._window:
            self._crashes.popleft()
        if len(self._crashes) >= self._max_crashes:
            return None
        if uptime >= STABLE_AFTER_S:
            self._backoff.reset()
            self._is_first = True
        if self._is_first:
            self._is_first = False
            return 0.0
        return self._backoff.next()

    @property
    def crashes_in_window(self) -> int:
        return len(self._crashes)
