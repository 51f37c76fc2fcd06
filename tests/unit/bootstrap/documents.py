"""Bootstraps as the agent renders them, from inputs that are the same everywhere."""

from collections.abc import Sequence
from typing import Any

from pilot_agent.bootstrap.context import Context, LocalFiles, build_context
from pilot_agent.bootstrap.render import Renderer
from pilot_agent.node.metadata import Node, build_node
from pilot_agent.node.podinfo import PodInfo
from pilot_agent.settings.model import Settings
from tests.unit.settings.told import told

TEMPLATE = "bootstrap.json.j2"
ADDRESSES = ("10.1.2.3",)
LOCAL_FILES = LocalFiles(
    "/run/proxy/xds/lds/lds.json", "/run/proxy/xds/lds", "/run/proxy/xds/cds/cds.json", "/run/proxy/xds/cds"
)


def node_of(
    settings: Settings,
    addresses: Sequence[str] = ADDRESSES,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> Node:
    return build_node(settings, PodInfo(labels, annotations), list(addresses), "9.8.7")


def built(settings: Settings, node: Node, *, is_stock: bool = False) -> Context:
    return build_context(settings, node, LOCAL_FILES if settings.is_local else None, is_stock=is_stock)


def context_of(settings: Settings, addresses: Sequence[str] = ADDRESSES, **pod: dict[str, str]) -> dict[str, Any]:
    return built(settings, node_of(settings, addresses, **pod)).variables


def context(
    config: dict[str, Any] | None = None, addresses: Sequence[str] = ADDRESSES, **settings: Any
) -> dict[str, Any]:
    """What a template sees; `settings` as `told` takes them."""
    return context_of(told(config or {}, **settings), addresses)


def rendered(config: dict[str, Any] | None = None, addresses: Sequence[str] = ADDRESSES, **settings: Any) -> Any:
    return Renderer().render(TEMPLATE, context(config, addresses, **settings))
