"""Envoy's stats: which exist (inclusion list), how names become tags, histogram buckets, how often they are flushed.

The lists are Istio's, in Istio's order (reference, section 5.6); what the pod's annotations and ProxyConfig add goes
where Istio puts it. A bad annotation is a warning and left out: it must not keep the proxy from starting.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pilot_agent.settings.model import Settings
from pilot_agent.values import Duration

ANNOTATION_PREFIX = "sidecar.istio.io/"

STAT_TAGS = (
    ("cluster_name", r"^cluster(\.(.+);)"),
    ("http_conn_manager_prefix", r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)"),
    ("thread_name", r"^server(\.(.+))\.watchdog"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    (
        "http_conn_manager_listener_prefix",
        r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    ("listener_address", r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("mongo_prefix", r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$"),
)
STAT_TAGS_AFTER_EXTRA = (
    ("cache", r"(cache\.(.+?)\.)"),
    ("component", r"(component\.(.+?)\.)"),
    ("tag", r"(tag\.(.+?);\.)"),
    ("wasm_filter", r"(wasm_filter\.(.+?)\.)"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"),
)
REQUIRED_PREFIXES = ("cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm")
REQUIRED_SUFFIXES = ("rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied")
REQUIRED_REGEXPS = (r"vhost\..*\.route\..*",)
ZERO_CONNECTIONS_SUFFIX = "downstream_cx_active"
"""What a drain that ends on zero connections counts."""

REQUESTS_SUFFIX = "downstream_rq_total"
"""What the status page draws. In a mesh Istio's own list stands, and Istio's Envoy counts requests by itself."""

ENVOYS_FLUSH_INTERVAL = Duration.parse("5s")
SHORTEST_FLUSH, LONGEST_FLUSH = Duration.parse("1ms"), Duration.parse("5m")
"""Envoy's own bounds of `stats_flush_interval` (config.bootstrap.v3.Bootstrap): the longest is excluded."""


class Inclusions(NamedTuple):
    """The three parts of the inclusion list that can be configured, each with Istio's own entries behind."""

    prefixes: list[str]
    suffixes: list[str]
    regexps: list[str]


class Intervals(NamedTuple):
    """As Envoy reads durations (`90s`); None leaves Envoy's own."""

    flush: str | None
    eviction: str | None


def extra_tags(settings: Settings) -> list[str]:
    """ProxyConfig's extraStatTags, then the annotation's, each once."""
    names = (*settings.proxy_config.extra_stat_tags, *_listed(settings, "extraStatTags"))
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


def stat_tags(extra: Iterable[str]) -> list[tuple[str, str]]:
    return [*STAT_TAGS, *((name, rf"({name}=\.=(.*?);\.;)") for name in extra), *STAT_TAGS_AFTER_EXTRA]


def inclusions(settings: Settings, addresses: list[str]) -> Inclusions:
    """An annotation's list replaces ProxyConfig's of the same kind; an entry with {pod_ip} is there once an address."""
    matcher = settings.proxy_config.stats_matcher
    suffixes = list(REQUIRED_SUFFIXES)
    suffixes += [ZERO_CONNECTIONS_SUFFIX] if settings.ends_on_zero_connections else []
    suffixes += [REQUESTS_SUFFIX] if settings.is_local else []

    def chosen(annotation: str, field: str) -> list[str]:
        return _for_each_address(_listed(settings, annotation) or matcher.get(field, []), addresses)

    return Inclusions(
        [*chosen("statsInclusionPrefixes", "inclusionPrefixes"), *REQUIRED_PREFIXES],
        [*chosen("statsInclusionSuffixes", "inclusionSuffixes"), *suffixes],
        [*chosen("statsInclusionRegexps", "inclusionRegexps"), *REQUIRED_REGEXPS],
    )


def _listed(settings: Settings, annotation: str) -> list[str]:
    return [
        entry for entry in settings.annotations.get(f"{ANNOTATION_PREFIX}{annotation}", "").split(",") if entry.strip()
    ]


def _for_each_address(entries: Iterable[str], addresses: list[str]) -> list[str]:
    found: list[str] = []
    for entry in entries:
        found += [entry.replace("{pod_ip}", address) for address in addresses] if "{pod_ip}" in entry else [entry]
    return found


def histogram_buckets(settings: Settings, warnings: list[str]) -> list[dict[str, Any]]:
    """The annotation's `{"prefix": [bounds]}` as Envoy's `histogram_bucket_settings`, sorted by prefix."""
    name = f"{ANNOTATION_PREFIX}statsHistogramBuckets"
    text = settings.annotations.get(name, "")
    if not text:
        return []
    try:
        return _bucket_settings(json.loads(text))
    except ValueError as error:
        warnings.append(f"annotation {name} is ignored: {text!r}: {error}")
        return []


def _bucket_settings(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, dict):
        raise ValueError('write an object of lists of numbers, such as {"istiocustom": [1, 5, 10]}')
    for prefix, bounds in value.items():
        if not isinstance(bounds, list) or not bounds or not all(_is_bound(bound) for bound in bounds):
            raise ValueError(f"the bounds of {prefix!r} are not a list of numbers above 0")
        if sorted(set(bounds)) != bounds:
            raise ValueError(f"the bounds of {prefix!r} do not rise from one to the next")
    return [{"match": {"prefix": prefix}, "buckets": value[prefix]} for prefix in sorted(value)]


def _is_bound(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def intervals(annotations: Mapping[str, str], warnings: list[str]) -> Intervals:
    """Flush and eviction intervals of the annotations; eviction happens at flushes, so it must be a multiple."""
    flush = _duration(annotations, "statsFlushInterval", warnings)
    if flush is not None and not SHORTEST_FLUSH <= flush < LONGEST_FLUSH:
        warnings.append(
            f"annotation {ANNOTATION_PREFIX}statsFlushInterval is ignored: {flush} is not from 1ms to just under 300s"
        )
        flush = None
    eviction = _duration(annotations, "statsEvictionInterval", warnings)
    step = flush or ENVOYS_FLUSH_INTERVAL
    if eviction is not None and (eviction.nanoseconds <= 0 or eviction.nanoseconds % step.nanoseconds):
        warnings.append(
            f"annotation {ANNOTATION_PREFIX}statsEvictionInterval is ignored: {eviction} is not a multiple of the "
            f"flush interval, {step}"
        )
        eviction = None
    return Intervals(str(flush) if flush else None, str(eviction) if eviction else None)


def _duration(annotations: Mapping[str, str], name: str, warnings: list[str]) -> Duration | None:
    text = annotations.get(f"{ANNOTATION_PREFIX}{name}", "")
    if not text:
        return None
    try:
        return Duration.parse(text)
    except ValueError as error:
        warnings.append(f"annotation {ANNOTATION_PREFIX}{name} is ignored: {error}")
        return None
