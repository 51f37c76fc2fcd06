"""How much of what costs the peer nothing is put up with: a bucket of tokens for each kind of flood.

Resets (CVE-2023-44487), frames that want an answer (CVE-2019-9512, 9515), frames that say nothing (9518). Over it, the
connection ends with ENHANCE_YOUR_CALM.
"""

from collections.abc import Callable

from pilot_agent.http2.frames import ConnectionFault, ErrorCode


class Budget:
    """`burst` at once, and `rate` a second in the long run, by a clock in seconds."""

    def __init__(self, what: str, burst: int, rate: float, clock: Callable[[], float]) -> None:
        self._what, self._burst, self._rate, self._clock = what, burst, rate, clock
        self._left, self._since = float(burst), clock()

    def spend(self) -> None:
        """Raises ConnectionFault when there is none left."""
        self._left -= 1
        if self._left >= 0:
            return
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._since) * self._rate)
        self._since = now
        if self._left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many {self._what}")
