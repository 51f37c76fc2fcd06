"""The node: its id, cluster, locality and metadata, as istiod reads them from Envoy's bootstrap.

Assembly follows Istio's order, later wins: proxyMetadata, ISTIO_META_*, ISTIO_METAJSON_*, then what the agent itself
knows. Empty values are left out of the typed part; raw keys that the typed part does not show are kept.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pilot_agent.errors import SettingsError
from pilot_agent.node.podinfo import PodInfo
from pilot_agent.settings.model import ProxyConfig, Settings
from pilot_agent.settings.proto_json import proxy_config_json
from pilot_agent.values import parse_bool

APP_LABELS = ("app", "app.kubernetes.io/name", "service.istio.io/canonical-name")
LOCALITY_LABELS = ("topology.istio.io/locality", "istio-locality")

BOOLEAN_KEYS = (
    "ENABLE_SELF_DISCOVERY DNS_CAPTURE DNS_AUTO_ALLOCATE ENABLE_HBONE DISABLE_HBONE_SEND "
    "EXIT_ON_ZERO_ACTIVE_CONNECTIONS "
    "INBOUND_LISTENER_EXACT_BALANCE OUTBOUND_LISTENER_EXACT_BALANCE ENVOY_SKIP_DEPRECATED_LOGS"
).split()
OBJECT_KEYS = "LABELS STATIC_LABELS ANNOTATIONS PLATFORM_METADATA".split()
OWN_TEXT_KEYS = {"POD_NAME": "NAME", "POD_NAMESPACE": "NAMESPACE", "SERVICE_ACCOUNT": "SERVICE_ACCOUNT"}
PORT_VARIABLES = (
    "ENVOY_STATUS_PORT ENVOY_PROMETHEUS_PORT ENVOY_SECURE_METRICS_PORT ENVOY_SECURE_MERGED_METRICS_PORT"
).split()


class Node(NamedTuple):
    """`locality` has region, zone and sub_zone, each only where known; `metadata` is ready for JSON."""

    id: str
    cluster: str
    locality: dict[str, str]
    metadata: dict[str, Any]
    addresses: list[str]


def build_node(settings: Settings, pod: PodInfo, addresses: list[str], version: str) -> Node:
    """Raises SettingsError naming the variable for a value of the wrong type."""
    metadata = build_metadata(settings, pod, addresses, version)
    environment = settings.environment
    first = addresses[0] if addresses else ""
    name = f"{environment.text('POD_NAME')}.{environment.text('POD_NAMESPACE')}"
    node_id = f"{settings.flags.role}~{first}~{name}~{settings.domain}"
    locality = _take_locality(metadata)
    return Node(node_id, cluster_name(settings.proxy_config, metadata), locality, metadata, addresses)


def build_metadata(settings: Settings, pod: PodInfo, addresses: list[str], version: str) -> dict[str, Any]:
    raw = _raw(settings)
    typed = _typed(raw)
    typed.setdefault("ISTIO_VERSION", version)
    typed |= _own(settings, addresses)
    static = {key: value if isinstance(value, str) else "" for key, value in _json_labels(settings).items()}
    labels = {**typed.pop("LABELS", {}), **static, **(pod.labels or {})}
    typed |= {"LABELS": labels, "STATIC_LABELS": static, "ANNOTATIONS": pod.annotations or {}}
    typed["METADATA_DISCOVERY"] = "true" if typed.get("ENABLE_HBONE") == "true" else "false"
    shown = {key: value for key, value in typed.items() if value not in ("", 0, {}, [], None)}
    return dict(sorted({**raw, **shown}.items()))


def _raw(settings: Settings) -> dict[str, Any]:
    prefix = "ISTIO_META_"
    environment = settings.environment
    config = settings.proxy_config.proxy_metadata
    raw: dict[str, Any] = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    raw.update(environment.with_prefix(prefix))
    for name, text in environment.with_prefix("ISTIO_METAJSON_"):
        raw.update(_json_object(f"ISTIO_METAJSON_{name}", text))
    if environment.text("DNS_PROXY_ADDR"):
        raw["DNS_PROXY_ADDR"] = environment.text("DNS_PROXY_ADDR")
    return raw


def _json_object(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise SettingsError(f"{name}: {text!r} is not a JSON object")
    return value


def _json_labels(settings: Settings) -> dict[str, Any]:
    for name, text in settings.environment.with_prefix("ISTIO_METAJSON_"):
        if name == "LABELS":
            return _json_object("ISTIO_METAJSON_LABELS", text)
    return {}


def _typed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The keys whose type Istio fixes, checked; others stay as they are."""
    typed = dict(raw)
    for key in BOOLEAN_KEYS:
        if key in typed:
            try:
                typed[key] = "true" if parse_bool(str(typed[key])) else ""
            except ValueError as error:
                raise SettingsError(f"ISTIO_META_{key}: {error}") from None
    for key in OBJECT_KEYS:
        if key in typed and not isinstance(typed[key], dict):
            raise SettingsError(f"ISTIO_META_{key}: {typed[key]!r} is not an object: use ISTIO_METAJSON_{key}")
    for key in PORT_VARIABLES:
        if key in typed and not isinstance(typed[key], int):
            raise SettingsError(f"ISTIO_META_{key}: {typed[key]!r} is not a number: set {key} instead")
    return typed


def _own(settings: Settings, addresses: list[str]) -> dict[str, Any]:
    environment = settings.environment
    own: dict[str, Any] = {key: environment.text(variable) for variable, key in OWN_TEXT_KEYS.items()}
    own |= {name: environment.number(name) for name in PORT_VARIABLES}
    own["INSTANCE_IPS"] = ",".join(dict.fromkeys(addresses))
    own["STS_PORT"] = str(settings.flags.sts_port) if settings.flags.sts_port else ""
    own["OUTLIER_LOG_PATH"] = settings.flags.outlier_log_path
    own["WORKLOAD_IDENTITY_SOCKET_FILE"] = environment.text("WORKLOAD_IDENTITY_SOCKET_FILE")
    own["EXIT_ON_ZERO_ACTIVE_CONNECTIONS"] = "true" if settings.ends_on_zero_connections else ""
    own["ENVOY_SKIP_DEPRECATED_LOGS"] = "true" if environment.flag("ENVOY_SKIP_DEPRECATED_LOGS") else ""
    own["PROXY_CONFIG"] = proxy_config_json(settings.proxy_config)
    if settings.proxy_config.uses_mutual_tls and not settings.is_local:
        host = settings.proxy_config.discovery_address.host
        own["PILOT_SAN"] = ["istiod.istio-system.svc" if host == "localhost" else host]
    return own


def _take_locality(metadata: dict[str, Any]) -> dict[str, str]:
    labels = metadata.get("LABELS", {})
    label = next((labels[name] for name in LOCALITY_LABELS if labels.get(name)), "")
    if not label:
        return {}
    text = label if "/" in label else label.replace(".", "/")
    metadata["LABELS"] = {**labels, "istio-locality": text}
    parts = dict(zip(("region", "zone", "sub_zone"), text.split("/"), strict=False))
    return {name: value for name, value in parts.items() if value}


def cluster_name(config: ProxyConfig, metadata: Mapping[str, Any]) -> str:
    """`node.cluster` by Istio's fallbacks: configured name, app label, workload name, `istio-proxy`."""
    labels = metadata.get("LABELS", {})
    namespace = metadata.get("NAMESPACE", "")
    workload = metadata.get("WORKLOAD_NAME", "")
    app = next((labels[name] for name in APP_LABELS if labels.get(name)), "")
    canonical = next((labels[name] for name in reversed(APP_LABELS) if labels.get(name)), workload or "istio-proxy")
    if config.tracing_service_name == "CANONICAL_NAME_ONLY":
        return _fallback(canonical, app, workload, namespace)
    if config.tracing_service_name == "CANONICAL_NAME_AND_NAMESPACE":
        return f"{canonical}.{namespace}" if namespace else _fallback(canonical, app, workload, namespace)
    return _fallback(config.service_cluster, app, workload, namespace)


def _fallback(name: str, app: str, workload: str, namespace: str) -> str:
    if name and name != "istio-proxy":
        return name
    if app:
        return f"{app}.{namespace}"
    if workload:
        return f"{workload}.{namespace}"
    return f"istio-proxy.{namespace}" if namespace else "istio-proxy"
