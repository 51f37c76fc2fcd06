"""The agent's own metrics in text form, under Istio's names where Istio has one.

Components keep plain numbers; `AgentFacts` carries them here at each scrape. prometheus_client is imported late.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_PREFIX = "istio_agent_"


@dataclass(frozen=True, slots=True)
class EnvoyExit:
    """The last end of an Envoy. `code`: its exit code, or 128 + n when signal n ended it; `signal`: such as `SIGKILL`,
    empty for none; `reason`: one of the reasons of `AgentFacts.envoy_restarts`."""

    code: int
    signal: str
    reason: str


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What the agent's parts have counted. A fact that does not exist yet is None and has no sample."""

    is_ready: bool = False
    startup_seconds: float | None = None
    """From the start of the agent's process to its first ready."""
    start_phase_seconds: Mapping[str, float] = field(default_factory=dict)
    """From the start of the agent's process to the end of each phase, by phase."""
    envoy_epoch: int = 0
    envoy_restarts: Mapping[str, int] = field(default_factory=dict)
    """Times Envoy was started again, by reason; every reason is there from the start."""
    envoy_last_exit: EnvoyExit | None = None
    envoy_hung_checks: int = 0
    """Checks that Envoy's admin interface did not answer in time."""
    reaped_orphans: int = 0
    """Zombies that were not the agent's own children."""
    broken_files: tuple[str, ...] = ()
    """Local configuration files that are refused now."""
    config_reloads_accepted: int = 0
    config_reloads_refused: int = 0


class Scrapes(Protocol):
    """What `account.ScrapeAccount` tells of scrapes."""

    scrapes: int
    agent_failures: int

    def failures(self, kind: str) -> int: ...


class OwnMetrics:
    """Renders at each call; keeps nothing but the registry."""

    def __init__(self, facts: Callable[[], AgentFacts], scrapes: Scrapes) -> None:
        self._facts, self._scrapes = facts, scrapes
        self._registry: CollectorRegistry | None = None

    def load(self) -> None:
        """Import prometheus_client (0.1 s) and set up the registry."""
        from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
        from prometheus_client.registry import Collector

        families = self._families

        class Agent(Collector):
            def collect(self) -> Iterator["Metric"]:
                yield from families()

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Agent())
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._registry = registry

    def render(self) -> bytes:
        """Text format 0.0.4, families sorted by name within their collector."""
        from prometheus_client import generate_latest

        if self._registry is None:
            self.load()
        assert self._registry is not None
        return generate_latest(self._registry)

    def _families(self) -> Iterator["Metric"]:
        facts = self._facts()
        yield from self._of_scrapes()
        yield from _of_the_start(facts)
        yield from _of_envoy(facts)
        yield from _of_the_configuration(facts)
        yield _counter("reaped_orphans", "Zombies reaped that were not children of the agent.", facts.reaped_orphans)

    def _of_scrapes(self) -> Iterator["Metric"]:
        yield _counter("scrapes", "The total number of scrapes.", self._scrapes.scrapes)
        failures = {
            "envoy": self._scrapes.failures("envoy"),
            "application": self._scrapes.failures("application"),
            "agent": self._scrapes.agent_failures,
        }
        yield _counter("scrape_failures", "The total number of failed scrapes.", failures, "type")


def _of_the_start(facts: AgentFacts) -> Iterator["Metric"]:
    yield _gauge("ready", "1 while the proxy is ready for traffic.", int(facts.is_ready))
    started = facts.startup_seconds
    yield _gauge("startup_duration_seconds", "The time from the process starting to being marked ready.", started)
    phases = facts.start_phase_seconds
    yield _gauge("start_phase_seconds", "The time from the process starting to the end of a phase.", phases, "phase")


def _of_envoy(facts: AgentFacts) -> Iterator["Metric"]:
    yield _gauge("envoy_epoch", "The restart epoch of the Envoy that serves.", facts.envoy_epoch)
    yield _counter("envoy_restarts", "Starts of Envoy after the first.", facts.envoy_restarts, "reason")
    hung = facts.envoy_hung_checks
    yield _counter("envoy_hung_checks", "Checks that Envoy's admin interface did not answer in time.", hung)
    last = facts.envoy_last_exit
    code = None if last is None else last.code
    yield _gauge("envoy_last_exit_code", "How the last Envoy ended: its code, or 128 + its signal.", code)
    info = _gauge("envoy_last_exit_info", "How the last Envoy ended.", {}, "code", "signal", "reason")
    if last is not None:
        info.add_metric([str(last.code), last.signal, last.reason], 1)
    yield info


def _of_the_configuration(facts: AgentFacts) -> Iterator["Metric"]:
    broken = dict.fromkeys(facts.broken_files, 1)
    yield _gauge("config_errors", "1 for each local configuration file that is refused.", broken, "file")
    reloads = {"accepted": facts.config_reloads_accepted, "refused": facts.config_reloads_refused}
    yield _counter("config_reloads", "Changed configurations by what became of them.", reloads, "result")


def _counter(name: str, help_: str, value: float | Mapping[str, float], *labels: str) -> "CounterMetricFamily":
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(_PREFIX + name, help_, labels=labels)
    _fill(family, value)
    return family


def _gauge(name: str, help_: str, value: float | Mapping[str, float] | None, *labels: str) -> "GaugeMetricFamily":
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(_PREFIX + name, help_, labels=labels)
    _fill(family, value)
    return family


def _fill(family: "CounterMetricFamily | GaugeMetricFamily", value: float | Mapping[str, float] | None) -> None:
    if isinstance(value, Mapping):
        for label, number in value.items():
            family.add_metric([label], number)
    elif value is not None:
        family.add_metric([], value)
