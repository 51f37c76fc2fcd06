"""The agent's own metrics in either format, by the table in `catalogue`.

Components keep plain numbers; `AgentFacts` carries them here at each scrape. prometheus_client is imported late.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pilot_agent.metrics.account import ScrapeAccount, SourceAccount
from pilot_agent.metrics.catalogue import BY_NAME, METRICS, MetricEntry

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

_PREFIX = "istio_agent_"
_BARE_COUNTERS = tuple(entry for entry in METRICS if entry.kind == "counter" and not entry.name.endswith("_total"))
_ERROR_CHARACTERS = 200


class Histogram(NamedTuple):
    """`counts` of the values up to each of `bounds`, not added up, and of those above; the `total` of all values."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


Values = float | Mapping[str, float] | Mapping[tuple[str, ...], float] | Histogram | None
"""Of a family without labels, with one label, with several; None and what is missing have no sample."""


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
    identity: Mapping[str, Values] = field(default_factory=dict)
    """Of certificates and SDS, by name without prefix; empty where this proxy has no identity."""
    xds: Mapping[str, Values] = field(default_factory=dict)
    """Of the streams between Envoy and istiod, likewise; empty in local mode."""


class OwnMetrics:
    """Renders at each call; keeps nothing but the registries."""

    def __init__(
        self, facts: Callable[[], AgentFacts], scrapes: ScrapeAccount, agent: SourceAccount | None = None
    ) -> None:
        """`agent`: what of our own part was dropped when it was joined with others'."""
        self._facts, self._scrapes, self._agent = facts, scrapes, agent
        self._registries: tuple[CollectorRegistry, CollectorRegistry, CollectorRegistry] | None = None

    def load(self) -> None:
        """Import prometheus_client (0.1 s) and set up the registries."""
        import prometheus_client.openmetrics.exposition  # noqa: F401
        from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
        from prometheus_client.registry import Collector

        class Part(Collector):
            def __init__(self, families: Callable[[], Iterator["Metric"]]) -> None:
                self._families = families

            def collect(self) -> Iterator["Metric"]:
                yield from self._families()

        process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=process)
        PlatformCollector(registry=process)
        facts, scrapes = CollectorRegistry(auto_describe=False), CollectorRegistry(auto_describe=False)
        facts.register(Part(self._of_facts))
        scrapes.register(Part(lambda: _of_scrapes(self._scrapes, self._agent)))
        self._registries = facts, process, scrapes

    def render(self) -> bytes:
        """Everything in text format 0.0.4."""
        return self.render_facts(is_openmetrics=False) + self.render_scrapes(is_openmetrics=False)

    def render_facts(self, *, is_openmetrics: bool) -> bytes:
        """What the agent's parts have counted, then what the process is. OpenMetrics comes without its `# EOF`."""
        return self._render(0, is_openmetrics) + self._render(1, is_openmetrics)

    def render_process(self, *, is_openmetrics: bool) -> bytes:
        """The families that every application with a metrics library has too."""
        return self._render(1, is_openmetrics)

    def render_scrapes(self, *, is_openmetrics: bool) -> bytes:
        """What became of the scrapes and their sources until now."""
        return self._render(2, is_openmetrics)

    def _render(self, part: int, is_openmetrics: bool) -> bytes:
        from prometheus_client import generate_latest
        from prometheus_client.openmetrics import exposition

        if self._registries is None:
            self.load()
        assert self._registries is not None
        if is_openmetrics:
            text: bytes = exposition.generate_latest(self._registries[part])  # type: ignore[no-untyped-call]
            return text.removesuffix(b"# EOF\n")
        text = generate_latest(self._registries[part])
        for entry in _BARE_COUNTERS if part == 0 else ():
            name = entry.name.encode()
            text = text.replace(b"# TYPE %b untyped\n" % name, b"# TYPE %b counter\n" % name)
        return text

    def _of_facts(self) -> Iterator["Metric"]:
        facts = self._facts()
        yield from _of_the_start(facts)
        yield from _of_envoy(facts)
        yield from _of_the_configuration(facts)
        yield _family("reaped_orphans_total", facts.reaped_orphans)
        for name, values in {**facts.identity, **facts.xds}.items():
            yield _family(name, values)


def _of_scrapes(scrapes: ScrapeAccount, agent: SourceAccount | None) -> Iterator["Metric"]:
    yield _family("scrapes_total", scrapes.scrapes)
    failures = {kind: scrapes.failures(kind) for kind in ("envoy", "application")}
    yield _family("scrape_failures_total", failures | {"agent": scrapes.agent_failures})
    yield _family("scrapes_in_flight", scrapes.in_flight)
    yield _family("scrapes_refused_total", scrapes.refused)
    sources = scrapes.sources
    # Before the first answer a source is neither up nor down.
    yield _family("scrape_source_up", {each.label: int(each.is_up) for each in sources if each.scrapes})
    yield _family("scrape_source_duration_seconds", {each.label: each.seconds for each in sources})
    yield _family("scrape_source_bytes", {each.label: each.bytes for each in sources})
    yield _family("scrape_source_failures_total", {each.label: each.failures for each in sources})
    errors: dict[tuple[str, ...], float] = {
        (each.label, each.last_error[:_ERROR_CHARACTERS]): 1.0 for each in sources if each.last_error
    }
    yield _family("scrape_source_last_error_info", errors)
    joined = [agent, *sources] if agent else sources
    yield _family("scrape_dropped_families_total", {each.label: each.dropped_families for each in joined})
    yield _family("scrape_dropped_samples_total", {each.label: each.dropped_samples for each in joined})
    yield _family("scrape_dropped_lines_total", {each.label: each.dropped_lines for each in joined})


def _of_the_start(facts: AgentFacts) -> Iterator["Metric"]:
    yield _family("ready", int(facts.is_ready))
    yield _family("startup_duration_seconds", facts.startup_seconds)
    yield _family("start_phase_seconds", facts.start_phase_seconds)


def _of_envoy(facts: AgentFacts) -> Iterator["Metric"]:
    yield _family("envoy_epoch", facts.envoy_epoch)
    yield _family("envoy_restarts_total", facts.envoy_restarts)
    yield _family("envoy_hung_checks_total", facts.envoy_hung_checks)
    last = facts.envoy_last_exit
    yield _family("envoy_last_exit_code", None if last is None else last.code)
    how: dict[tuple[str, ...], float] = {(str(last.code), last.signal, last.reason): 1.0} if last else {}
    yield _family("envoy_last_exit_info", how)


def _of_the_configuration(facts: AgentFacts) -> Iterator["Metric"]:
    yield _family("config_errors", dict.fromkeys(facts.broken_files, 1.0))
    reloads = {"accepted": facts.config_reloads_accepted, "refused": facts.config_reloads_refused}
    yield _family("config_reloads_total", reloads)


def _family(name: str, values: Values) -> "Metric":
    """The family that the table has under `name`, which stands without its prefix here."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    entry = BY_NAME[_PREFIX + name]
    if isinstance(values, Histogram):
        return _histogram(entry, values)
    if entry in _BARE_COUNTERS:
        return _bare_counter(entry, values)
    make = CounterMetricFamily if entry.kind == "counter" else GaugeMetricFamily
    family = make(entry.name, entry.meaning, labels=entry.labels)
    if isinstance(values, Mapping):
        for labels, number in values.items():
            family.add_metric([labels] if isinstance(labels, str) else list(labels), number)
    elif values is not None:
        family.add_metric([], values)
    return family


def _bare_counter(
    entry: MetricEntry, values: float | Mapping[str, float] | Mapping[tuple[str, ...], float] | None
) -> "Metric":
    """Istio's name for it, which does not end in _total: prometheus_client would put that behind it."""
    from prometheus_client.core import Metric

    family = Metric(entry.name, entry.meaning, "unknown")
    by_labels = values if isinstance(values, Mapping) else {} if values is None else {(): values}
    for labels, number in by_labels.items():
        texts = (labels,) if isinstance(labels, str) else labels
        family.add_sample(entry.name, dict(zip(entry.labels, texts, strict=True)), number)
    return family


def _histogram(entry: MetricEntry, values: Histogram) -> "Metric":
    from prometheus_client.core import HistogramMetricFamily

    reached, buckets = 0, []
    for bound, count in zip([*map(str, values.bounds), "+Inf"], values.counts, strict=True):
        reached += count
        buckets.append((bound, reached))
    return HistogramMetricFamily(entry.name, entry.meaning, buckets=buckets, sum_value=values.total)
