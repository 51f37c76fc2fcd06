"""What a bootstrap template may see: the documented variables, built from settings and node.

Plain data only, so that a template can't do more than print. The names are Istio's where Istio documents one.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pilot_agent.node.addresses import Family, family_of
from pilot_agent.node.metadata import Node
from pilot_agent.settings.model import Settings

CONNECTION_LIMIT_KEY = "overload.global_downstream_max_connections"
UNLIMITED_CONNECTIONS = 2147483647

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

RUNTIME_DEFAULTS: Mapping[str, object] = {
    "re2.max_program_size.error_level": "32768",
    "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst": True,
    "envoy.reloadable_features.http_reject_path_with_fragment": False,
    "envoy.reloadable_features.fixed_heap_use_allocated": True,
    "envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": False,
}


class LocalFiles(NamedTuple):
    """Where Envoy finds its listeners and clusters in local mode: absolute paths, each in a directory of its own."""

    lds_path: str
    lds_directory: str
    cds_path: str
    cds_directory: str


def build_context(settings: Settings, node: Node, local_files: LocalFiles | None = None) -> dict[str, Any]:
    """The template's variables. `local_files` is None in mesh mode."""
    environment, config = settings.environment, settings.proxy_config
    family = family_of(node.addresses, is_dual_stack=environment.flag("ISTIO_DUAL_STACK"))
    return {
        "nodeID": node.id,
        "nodeType": settings.flags.role,
        "cluster": node.cluster,
        "locality": node.locality,
        "metadata": node.metadata,
        "config": config_variables(settings),
        "log_json": settings.log_as_json,
        "xds_type": "DELTA_GRPC" if environment.flag("ISTIO_DELTA_XDS") else "GRPC",
        "metadata_discovery": has_metadata_discovery(settings, node),
        "runtime_flags": runtime_flags(settings),
        "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in stat_tags(config.extra_stat_tags)],
        "stats_patterns": stats_patterns(settings, node),
        "envoy_status_port": environment.number("ENVOY_STATUS_PORT"),
        "envoy_prometheus_port": environment.number("ENVOY_PROMETHEUS_PORT"),
        "envoy_status_port_enable_proxy_protocol": environment.flag("ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL"),
        "metrics_localhost_access_only": config.proxy_metadata.get("METRICS_LOCALHOST_ACCESS_ONLY") == "true",
        "envoy_metrics_stats_compression": config.stats_compression,
        "workload_identity_socket_file": environment.text("WORKLOAD_IDENTITY_SOCKET_FILE"),
        "outlier_log_path": settings.flags.outlier_log_path,
        "global_downstream_max_connections": connection_limit(settings),
        "local_files": local_files._asdict() if local_files else None,
        **family_variables(family),
    }


def config_variables(settings: Settings) -> dict[str, Any]:
    config = settings.proxy_config
    return {
        "configPath": config.config_path.rstrip("/"),
        "proxyAdminPort": config.admin_port,
        "statusPort": config.status_port,
        "discoveryAddress": str(config.values["discoveryAddress"]),
    }


def family_variables(family: Family) -> dict[str, Any]:
    return {
        "localhost": family.localhost,
        "wildcard": family.wildcard,
        "dns_lookup_family": family.dns_lookup_family,
        "additional_localhost": family.additional_localhost,
        "additional_wildcard": family.additional_wildcard,
    }


def has_metadata_discovery(settings: Settings, node: Node) -> bool:
    """Istio's own extension that finds peers' metadata; only over delta xDS, so never in local mode."""
    wanted = node.metadata.get("METADATA_DISCOVERY") == "true" or settings.flags.role == "waypoint"
    return wanted and settings.environment.flag("ISTIO_DELTA_XDS") and not settings.is_local


def stat_tags(extra: list[str]) -> list[tuple[str, str]]:
    names = dict.fromkeys(name.strip() for name in extra if name.strip())
    return [*STAT_TAGS, *((name, rf"({name}=\.=(.*?);\.;)") for name in names), *STAT_TAGS_AFTER_EXTRA]


def stats_patterns(settings: Settings, node: Node) -> list[dict[str, Any]]:
    """Envoy's stats inclusion list, in Istio's order; the configured entries come before the required ones."""
    matcher = settings.proxy_config.stats_matcher
    suffixes = list(REQUIRED_SUFFIXES)
    if settings.ends_on_zero_connections:
        suffixes.append("downstream_cx_active")
    prefixes = _for_each_address(matcher.get("inclusionPrefixes", []), node.addresses)
    patterns: list[dict[str, Any]] = [{"prefix": "reporter="}]
    patterns += [{"prefix": prefix} for prefix in (*prefixes, *REQUIRED_PREFIXES)]
    chosen_suffixes = _for_each_address(matcher.get("inclusionSuffixes", []), node.addresses)
    patterns += [{"suffix": suffix} for suffix in (*chosen_suffixes, *suffixes)]
    regexps = _for_each_address(matcher.get("inclusionRegexps", []), node.addresses)
    patterns += [{"safe_regex": {"regex": regexp}} for regexp in (*regexps, *REQUIRED_REGEXPS)]
    return [*patterns, {"prefix": "component"}, {"prefix": "istio"}]


def _for_each_address(entries: list[str], addresses: list[str]) -> list[str]:
    found = []
    for entry in entries:
        expanded = [entry.replace("{pod_ip}", address) for address in addresses] if "{pod_ip}" in entry else [entry]
        found += expanded
    return found


def runtime_flags(settings: Settings) -> dict[str, object]:
    """The static runtime layer: our defaults, then ProxyConfig's runtimeValues (an empty text deletes a key)."""
    layer = dict(RUNTIME_DEFAULTS)
    environment = settings.environment
    if environment.text("COMPLIANCE_POLICY") == "fips-140-2":
        layer["envoy.reloadable_features.google_grpc_disable_tls_13"] = True
    if not environment.flag("HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED"):
        layer["envoy.reloadable_features.http_strip_fragment_from_path_unsafe_if_disabled"] = "false"
    for key, value in settings.proxy_config.runtime_values.items():
        if value == "":
            layer.pop(key, None)
        else:
            layer[key] = {"true": True, "false": False}.get(value, value)
    return layer


def connection_limit(settings: Settings) -> int:
    config = settings.proxy_config
    limits = (
        config.proxy_metadata.get("ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS"),
        config.runtime_values.get(CONNECTION_LIMIT_KEY),
    )
    return next((int(limit) for limit in limits if limit and limit.isdigit()), UNLIMITED_CONNECTIONS)
