"""What scrapes and their sources did: plain numbers that sources write and `own` shows as metrics."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class SourceAccount:
    """What one source did. `problem`: of its last scrape; `last_error`: the last there was; the rest, of its last."""

    name: str
    kind: str
    failures: int = 0
    problem: str | None = None
    last_error: str | None = None
    seconds: float = 0.0
    bytes: int = 0


@dataclass(slots=True)
class ScrapeAccount:
    """Counts since the agent's start."""

    scrapes: int = 0
    agent_failures: int = 0
    sources: list[SourceAccount] = field(default_factory=list)

    def failures(self, kind: str) -> int:
        return sum(source.failures for source in self.sources if source.kind == kind)
