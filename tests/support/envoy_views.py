"""What the real Envoy under an agent says of itself, over its admin interface."""

import json
from typing import Any

from tests.support.agents import AgentProcess


def view(running: AgentProcess, path: str) -> str:
    status, body = running.fetch(path, port=running.ports.admin)
    assert status == 200, body
    return body


def listeners(running: AgentProcess) -> dict[str, int]:
    """Port by listener."""
    found = json.loads(view(running, "/listeners?format=json")).get("listener_statuses", [])
    return {each["name"]: each["local_address"]["socket_address"]["port_value"] for each in found}


def clusters(running: AgentProcess) -> set[str]:
    found = json.loads(view(running, "/clusters?format=json")).get("cluster_statuses", [])
    return {each["name"] for each in found}


def live_listener(running: AgentProcess, name: str) -> dict[str, Any]:
    """The configuration of a listener that came over LDS, as Envoy uses it."""
    dump = json.loads(view(running, "/config_dump?resource=dynamic_listeners"))
    states = {each["name"]: each["active_state"]["listener"] for each in dump["configs"]}
    found: dict[str, Any] = states[name]
    return found


def chain_clusters(listener: dict[str, Any]) -> dict[str, str]:
    """Cluster by filter chain, of the chains that end in a TCP proxy."""
    return {
        chain["name"]: proxy["typed_config"]["cluster"]
        for chain in listener["filter_chains"]
        for proxy in chain["filters"]
        if proxy["name"] == "envoy.filters.network.tcp_proxy"
    }


def epoch(running: AgentProcess) -> int:
    info = json.loads(view(running, "/server_info"))
    return int(info["command_line_options"]["restart_epoch"])


def stats(running: AgentProcess, pattern: str) -> dict[str, int]:
    lines = (line.rpartition(": ") for line in view(running, f"/stats?filter={pattern}").splitlines())
    return {name: int(value) for name, _, value in lines if value.isdigit()}
