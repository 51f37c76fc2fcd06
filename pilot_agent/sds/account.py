"""What the SDS server has counted, by the names of Istio's agent. Data only."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

SEND_SECONDS = (0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0)
"""Upper bounds of the histogram (reference status.md, own metrics)."""


@dataclass(slots=True)
class SdsAccount:
    """Counters only grow, but for `streams`. `send_counts` has one more element, for what took longer."""

    streams: int = 0
    pushes: int = 0
    rejects: int = 0
    expired_nonces: Counter[str] = field(default_factory=Counter)
    write_timeouts: int = 0
    internal_errors: int = 0
    largest_request: int = 0
    send_counts: list[int] = field(default_factory=lambda: [0] * (len(SEND_SECONDS) + 1))
    send_seconds: float = 0.0

    def sent(self, seconds: float) -> None:
        self.pushes += 1
        self.send_seconds += seconds
        self.send_counts[bisect_left(SEND_SECONDS, seconds)] += 1
