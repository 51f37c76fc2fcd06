"""What scrapes and their sources did: plain numbers that sources write and `own` shows as metrics."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class SourceAccount:
    """What one source did. `problem`: of its last scrape; `last_error`: the last there was; the rest, of its last.

    `name`: for people; `kind`: agent, envoy or application; `label`: what metrics call it. `is_text_only`: it answered
    text though OpenMetrics was asked for.
    """

    name: str
    kind: str
    failures: int = 0
    problem: str | None = None
    last_error: str | None = None
    seconds: float = 0.0
    bytes: int = 0
    label: str = ""
    scrapes: int = 0
    """How many of its answers have ended, well or not."""
    is_text_only: bool = False
    dropped_families: int = 0
    dropped_samples: int = 0
    dropped_lines: int = 0
    is_garbled: bool = False
    """Its last answer had lines, but not one sample."""

    @property
    def is_up(self) -> bool:
        return self.scrapes > 0 and self.problem is None and not self.is_garbled


@dataclass(slots=True)
class ScrapeAccount:
    """Counts since the agent's start."""

    scrapes: int = 0
    agent_failures: int = 0
    sources: list[SourceAccount] = field(default_factory=list)
    in_flight: int = 0
    refused: int = 0

    def failures(self, kind: str) -> int:
        return sum(source.failures for source in self.sources if source.kind == kind)
