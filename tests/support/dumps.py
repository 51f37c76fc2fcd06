"""Dumps of Envoy's admin interface: the recorded ones with what istioctl prints for them, and ones made by hand."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).resolve().parent.parent / "golden" / "views"
RECORDED_AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
"""When istioctl was asked: its certificates are valid for a day."""

_TYPE = "type.googleapis.com/envoy.admin.v3."


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def dump(**sections: dict[str, Any]) -> bytes:
    """An answer of /config_dump: `Listeners={"static_listeners": [...]}` becomes the section ListenersConfigDump."""
    configs = [{"@type": f"{_TYPE}{name}ConfigDump", **section} for name, section in sections.items()]
    return json.dumps({"configs": configs}).encode()


def listeners(*made: dict[str, Any]) -> bytes:
    states = [{"name": each.get("name", ""), "active_state": {"listener": each}} for each in made]
    return dump(Listeners={"dynamic_listeners": states})


def routes(*made: dict[str, Any]) -> bytes:
    return dump(Routes={"dynamic_route_configs": [{"route_config": each} for each in made]})


def clusters(*made: dict[str, Any]) -> bytes:
    return dump(Clusters={"dynamic_active_clusters": [{"cluster": each} for each in made]})


def at(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def http(**config: Any) -> dict[str, Any]:
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def tcp(cluster: str = "", **config: Any) -> dict[str, Any]:
    named = {"cluster": cluster} if cluster else {}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": {**named, **config}}


def chain(*filters: dict[str, Any], **match: Any) -> dict[str, Any]:
    return {"filter_chain_match": match, "filters": list(filters)}


def managed(kind: str, name: str, namespace: str = "demo", version: str = "v1alpha3") -> dict[str, Any]:
    """The metadata by which istiod says of which document a resource is."""
    path = f"/apis/networking.istio.io/{version}/namespaces/{namespace}/{kind}/{name}"
    return {"filter_metadata": {"istio": {"config": path}}}
