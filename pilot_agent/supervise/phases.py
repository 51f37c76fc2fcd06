"""How long each phase of a start took, counted from the start of the process itself."""

import time
from pathlib import Path


class Phases:
    """Seconds from the start of this process to the end of each phase of the start."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._zero = time.monotonic() - _process_age()

    def end(self, phase: str) -> float:
        self.seconds[phase] = time.monotonic() - self._zero
        return self.seconds[phase]

    def age(self) -> float:
        """Seconds since the start of this process."""
        return time.monotonic() - self._zero

    def __str__(self) -> str:
        return ", ".join(f"{phase} {seconds:.3f} s" for phase, seconds in self.seconds.items())


def _process_age() -> float:
    """Seconds since this process was started, to the kernel's tick of 10 ms."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / 100
