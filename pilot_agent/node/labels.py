"""The node's labels and what they say: its locality, and the name of its cluster.

Owns which source of labels counts over which and Istio's fallbacks for both names. `metadata` calls it.
"""

from collections.abc import Mapping
from typing import Any

from pilot_agent.node.podinfo import PodInfo
from pilot_agent.node.surroundings import Platform
from pilot_agent.settings.model import ProxyConfig

APP_LABELS = ("app", "app.kubernetes.io/name", "service.istio.io/canonical-name")
LOCALITY_LABELS = ("topology.istio.io/locality", "istio-locality")


def add_labels(typed: dict[str, Any], told: dict[str, str], pod: PodInfo, platform: Platform) -> None:
    """Put LABELS and STATIC_LABELS into `typed`. Labels of a file come over static ones; only Kubernetes has files.

    Without a file, told labels are one mapping under both names, as in Istio: the locality that is written into the
    one shows in the other, and instance labels join both.
    """
    static = dict(told or typed.get("STATIC_LABELS", {}))
    if not platform.is_kubernetes:
        static |= platform.labels
    labels = static if told else dict(typed.get("LABELS", {}))
    if pod.labels is not None:
        labels = {**static, **pod.labels}
    typed |= {"LABELS": labels, "STATIC_LABELS": static}


def take_locality(labels: dict[str, str], platform: Platform) -> dict[str, str]:
    """Region, zone and sub_zone by label, else the platform's. `istio-locality` becomes the label, written with `/`."""
    label = next((labels[name] for name in LOCALITY_LABELS if labels.get(name)), "")
    if not label:
        return {name: value for name, value in platform.locality.items() if value}
    text = label if "/" in label else label.replace(".", "/")
    labels["istio-locality"] = text
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
        return f"{app}.{namespace}"  # with a trailing dot where there is no namespace: istiod and traces know it so
    if workload:
        return f"{workload}.{namespace}"
    return f"istio-proxy.{namespace}" if namespace else "istio-proxy"
