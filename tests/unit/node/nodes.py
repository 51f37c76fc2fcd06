"""Nodes as `build_node` makes them, from inputs that are the same everywhere."""

from typing import Any

from pilot_agent.node.metadata import Node, build_node
from pilot_agent.node.podinfo import PodInfo
from pilot_agent.node.surroundings import NOTHING_AROUND, Surroundings
from tests.unit.settings.told import told

NO_POD = PodInfo(None, None)
ADDRESSES = ["10.1.2.3", "fd00::5"]


def node(
    config: dict[str, Any] | None = None,
    pod: PodInfo = NO_POD,
    addresses: list[str] | None = None,
    env: dict[str, str] | None = None,
    around: Surroundings = NOTHING_AROUND,
    **flags: Any,
) -> Node:
    settings = told(config or {}, env=env, **flags)
    return build_node(settings, pod, ADDRESSES if addresses is None else addresses, "9.8.7", around)


def metadata(**env: str) -> dict[str, Any]:
    return node(env=env).metadata
