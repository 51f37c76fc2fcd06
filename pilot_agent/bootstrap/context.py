"""What a bootstrap template may see: the documented variables, built from settings and node.

Plain data only, so that a template can't do more than print. The names are Istio's where Istio documents one.
"""

import json
from typing import Any, NamedTuple

from pilot_agent.bootstrap.runtime import connection_limit, runtime_flags
from pilot_agent.bootstrap.stats import extra_tags, histogram_buckets, inclusions, intervals, stat_tags
from pilot_agent.errors import SettingsError
from pilot_agent.node.addresses import Family, family_of
from pilot_agent.node.metadata import Node
from pilot_agent.settings.model import Settings
from pilot_agent.settings.paths import FILES_SDS_SOCKET, LIGHTSTEP_TOKEN_NAME, WORKLOAD_SDS_DIRECTORY
from pilot_agent.settings.proto_json import proxy_config_json


class LocalFiles(NamedTuple):
    """Where Envoy finds its listeners and clusters in local mode: absolute paths, each in a directory of its own."""

    lds_path: str
    lds_directory: str
    cds_path: str
    cds_directory: str


class Context(NamedTuple):
    """`istio_parts`: what is in `variables` that only Istio's build of Envoy can load, by name."""

    variables: dict[str, Any]
    warnings: tuple[str, ...]
    istio_parts: tuple[str, ...]


def build_context(
    settings: Settings, node: Node, local_files: LocalFiles | None = None, *, is_stock: bool = False
) -> Context:
    """The template's variables. `local_files` is None in mesh mode; `is_stock` leaves Istio's own parts out.

    Raises SettingsError for a value no bootstrap can be made of.
    """
    warnings: list[str] = []
    variables = {
        **_node_variables(settings, node),
        **_settings_variables(settings),
        **_family_variables(family_of(node.addresses, is_dual_stack=settings.environment.flag("ISTIO_DUAL_STACK"))),
        **_upstream_variables(settings, node, warnings),
        **_mesh_only_variables(settings, node, warnings),
        "metadata_discovery": _wants_metadata_discovery(settings, node, warnings),
        "local_files": local_files._asdict() if local_files else None,
    }
    istio_parts = [part for part in ("metadata_discovery", "lightstep") if variables[part]]
    if is_stock:
        for part in istio_parts:
            warnings.append(
                f"{part} is left out: this Envoy is not Istio's build and can't load it (--stockEnvoy=false keeps it)"
            )
            variables[part] = None
        istio_parts = []
    variables |= _stats_variables(settings, node, bool(variables["metadata_discovery"]), warnings)
    return Context(variables, tuple(warnings), tuple(istio_parts))


def _node_variables(settings: Settings, node: Node) -> dict[str, Any]:
    metadata = node.metadata
    platform = metadata.get("PLATFORM_METADATA", {})
    return {
        "nodeID": node.id,
        "nodeType": settings.flags.role,
        "cluster": node.cluster,
        "locality": node.locality,
        "region": node.locality.get("region", ""),
        "zone": node.locality.get("zone", ""),
        "sub_zone": node.locality.get("sub_zone", ""),
        "metadata": metadata,
        "meta_json_str": json.dumps(metadata, separators=(",", ":"), ensure_ascii=False),
        "pilot_SAN": metadata.get("PILOT_SAN", []),
        "sts": bool(settings.flags.sts_port),
        "sts_port": str(settings.flags.sts_port) if settings.flags.sts_port else "",
        "gcp_project_id": platform.get("gcp_project", ""),
        "gcp_project_number": platform.get("gcp_project_number", ""),
    }


def _settings_variables(settings: Settings) -> dict[str, Any]:
    environment, config = settings.environment, settings.proxy_config
    discovery = config.discovery_address
    return {
        "config": {
            **proxy_config_json(config),
            "configPath": config.config_path.rstrip("/"),
            "proxyAdminPort": config.admin_port,
            "statusPort": config.status_port,
            "discoveryAddress": str(config.values["discoveryAddress"]),
        },
        "custom_file_path": config.custom_config_file,
        "discovery_address": str(discovery),
        "discovery_host": discovery.host,
        "pilot_grpc_address": str(discovery),
        "xds_root_cert": environment.text("XDS_ROOT_CA"),
        "log_json": settings.log_as_json,
        "xds_type": "DELTA_GRPC" if _uses_delta(settings) else "GRPC",
        "runtime_flags": runtime_flags(settings),
        "envoy_status_port": environment.number("ENVOY_STATUS_PORT"),
        "envoy_prometheus_port": environment.number("ENVOY_PROMETHEUS_PORT"),
        "envoy_status_port_enable_proxy_protocol": environment.flag("ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL"),
        "metrics_localhost_access_only": config.proxy_metadata.get("METRICS_LOCALHOST_ACCESS_ONLY") == "true",
        "envoy_metrics_stats_compression": config.stats_compression,
        "workload_identity_socket_file": environment.text("WORKLOAD_IDENTITY_SOCKET_FILE"),
        "workload_sds_socket": f"{WORKLOAD_SDS_DIRECTORY}/{environment.text('WORKLOAD_IDENTITY_SOCKET_FILE')}",
        "outlier_log_path": settings.flags.outlier_log_path,
        "global_downstream_max_connections": connection_limit(settings),
    }


def _uses_delta(settings: Settings) -> bool:
    return settings.environment.flag("ISTIO_DELTA_XDS") or settings.flags.role == "waypoint"


def _family_variables(family: Family) -> dict[str, Any]:
    return {
        "localhost": family.localhost,
        "wildcard": family.wildcard,
        "dns_lookup_family": family.dns_lookup_family,
        "dual_stack": family.additional_localhost is not None,
        "additional_localhost": family.additional_localhost,
        "additional_wildcard": family.additional_wildcard,
    }


def _wants_metadata_discovery(settings: Settings, node: Node, warnings: list[str]) -> bool:
    """Istio's own extension that finds peers' metadata; only over delta xDS, so never in local mode."""
    if settings.is_local:
        return False
    if settings.flags.role == "waypoint":
        return True
    wanted = node.metadata.get("METADATA_DISCOVERY") == "true"
    if wanted and not _uses_delta(settings):
        warnings.append("metadata discovery is off: it needs delta xDS, and ISTIO_DELTA_XDS is false")
        return False
    return wanted


def _stats_variables(settings: Settings, node: Node, has_discovery: bool, warnings: list[str]) -> dict[str, Any]:
    extra, lists = extra_tags(settings), inclusions(settings, node.addresses)
    every = intervals(settings.annotations, warnings)
    patterns: list[dict[str, Any]] = [{"prefix": "reporter="}]
    patterns += [{"prefix": "workload_discovery"}] if has_discovery else []
    patterns += [{"prefix": prefix} for prefix in lists.prefixes]
    patterns += [{"suffix": suffix} for suffix in lists.suffixes]
    patterns += [{"safe_regex": {"regex": regexp}} for regexp in lists.regexps]
    return {
        "extraStatTags": extra,
        "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in stat_tags(extra)],
        "inclusionPrefix": lists.prefixes,
        "inclusionSuffix": lists.suffixes,
        "inclusionRegexps": lists.regexps,
        "stats_patterns": [*patterns, {"prefix": "component"}, {"prefix": "istio"}],
        "histogram_buckets": histogram_buckets(settings, warnings),
        "stats_flush_interval": every.flush,
        "stats_eviction_interval": every.eviction,
    }


def _upstream_variables(settings: Settings, node: Node, warnings: list[str]) -> dict[str, Any]:
    values = settings.proxy_config.values
    names = ("zipkin", "lightstep", "datadog", "tracing_tls", "statsd", "lightstepToken", "stackdriver")
    services = ("envoy_metrics_service", "envoy_accesslog_service")
    found: dict[str, Any] = dict.fromkeys(names)
    found |= {f"{name}_{part}": None for name in services for part in ("address", "tls", "tcp_keepalive")}
    fields = ("tracing", "statsdUdpAddress", "envoyMetricsService", "envoyAccessLogService")
    if not any(values.get(field) for field in fields):
        return found
    from pilot_agent.bootstrap.upstreams import Upstreams  # most proxies call nothing of the kind

    upstreams = Upstreams(settings, node, warnings)
    chosen = upstreams.tracer()
    if chosen is not None:
        name, found[chosen[0]] = chosen
        found["tracing_tls"] = upstreams.tracing_tls(name)
    found["lightstepToken"] = f"{settings.proxy_config.config_path.rstrip('/')}/{LIGHTSTEP_TOKEN_NAME}"
    found["stackdriver"] = (values.get("tracing") or {}).get("stackdriver")
    found["statsd"] = upstreams.statsd()
    for name, field in zip(services, ("envoyMetricsService", "envoyAccessLogService"), strict=True):
        service = upstreams.service(field, name)
        if service is not None:
            found[f"{name}_address"], found[f"{name}_tls"] = service.address, service.tls
            found[f"{name}_tcp_keepalive"] = service.keepalive
    return found


def _mesh_only_variables(settings: Settings, node: Node, warnings: list[str]) -> dict[str, Any]:
    """What needs istiod or the mesh's certificates; local mode has neither, and says so."""
    environment, metadata = settings.environment, node.metadata
    wanted: dict[str, Any] = {
        "secure_metrics_port": environment.number("ENVOY_SECURE_METRICS_PORT"),
        "secure_merged_metrics_port": environment.number("ENVOY_SECURE_MERGED_METRICS_PORT"),
        "enable_self_discovery": metadata.get("ENABLE_SELF_DISCOVERY") == "true",
        "load_stats_config": _load_stats_config(metadata.get("LOAD_STATS_CONFIG_JSON")),
        "has_workload_sds": metadata.get("file-credential") == "true",
    }
    if settings.is_local:
        for name in [name for name, value in wanted.items() if value]:
            warnings.append(f"{name} is left out: it needs istiod, and there is none in local mode")
            wanted[name] = type(wanted[name])()
    shown = wanted["load_stats_config"]
    return wanted | {
        "load_stats_config_json_str": json.dumps(shown) if shown else "",
        "files_sds_socket": FILES_SDS_SOCKET,
    }


def _load_stats_config(text: Any) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise SettingsError(f"ISTIO_META_LOAD_STATS_CONFIG_JSON is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise SettingsError("ISTIO_META_LOAD_STATS_CONFIG_JSON is not a JSON object (an ApiConfigSource)")
    return value
