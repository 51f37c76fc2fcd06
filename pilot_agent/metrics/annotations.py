"""Which ports of the application to scrape: reads ISTIO_PROMETHEUS_ANNOTATIONS, which Istio's injector writes.

Imports only json: it runs before Envoy is spawned, where a mistake can still end the agent. Called by settings' caller.
"""

import json
from typing import NamedTuple

from pilot_agent.errors import SettingsError
from pilot_agent.values import parse_port

VARIABLE = "ISTIO_PROMETHEUS_ANNOTATIONS"

_PROXY_PORTS = {
    15000: "Envoy's admin interface",
    15001: "Envoy's outbound listener",
    15004: "the agent's debug port",
    15006: "Envoy's inbound listener",
    15008: "Envoy's HBONE listener",
    15020: "the agent's own metrics",
    15021: "Envoy's health check",
    15053: "the agent's DNS server",
    15090: "Envoy's own metrics",
}


class AppTarget(NamedTuple):
    """One metrics endpoint of the application: plain HTTP on localhost. `path` starts with a slash."""

    port: int
    path: str

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}{self.path}"


def parse_annotations(text: str, status_port: int) -> tuple[AppTarget, ...]:
    """The targets in their order, each once; none when `scrape` is exactly `"false"`.

    Raises SettingsError for anything but an object of strings, and for a port that is no port or one of the proxy's
    own. Unlike Istio's agent, with one entry in `targets` that entry is scraped, not the unchecked port beside it
    (reference: status port, metrics merge).
    """
    config = _decode(text)
    entries = config.pop("targets", None) or []
    fields = _strings(config, VARIABLE)
    if not isinstance(entries, list):
        raise SettingsError(f"{VARIABLE}: targets is {entries!r}; write a list of objects with port and path")
    targets = [_strings(entry, f"{VARIABLE}: targets[{index}]") for index, entry in enumerate(entries)]
    if fields.get("scrape") == "false":
        return ()
    if not targets:
        return (_target(fields.get("port") or "80", fields.get("path", ""), status_port, "port"),)
    found = [
        _target(each.get("port", ""), each.get("path", ""), status_port, f"targets[{index}].port")
        for index, each in enumerate(targets)
    ]
    return tuple(dict.fromkeys(found))  # the same endpoint twice would repeat its families and spoil the whole scrape


def _decode(text: str) -> dict[str, object]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{VARIABLE}: {text[:200]!r} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise SettingsError(f"{VARIABLE}: {text[:200]!r} is not a JSON object")
    return config


def _strings(entry: object, where: str) -> dict[str, str]:
    if not isinstance(entry, dict):
        raise SettingsError(f"{where}: {entry!r} is not a JSON object")
    for key in ("scrape", "port", "path"):
        if not isinstance(entry.get(key, ""), str | None):
            raise SettingsError(f"{where}: {key} is {entry[key]!r}; all values are strings, write it in quotes")
    return {key: value for key, value in entry.items() if isinstance(value, str)}


def _target(port_text: str, path: str, status_port: int, where: str) -> AppTarget:
    try:
        port = parse_port(port_text)
    except ValueError as error:
        raise SettingsError(f"{VARIABLE}: {where}: {error}") from None
    owner = "the agent's own metrics" if port == status_port else _PROXY_PORTS.get(port)
    if owner is not None:
        raise SettingsError(f"{VARIABLE}: {where}: {port} belongs to {owner}; name a port of the application")
    path = path or "/metrics"
    return AppTarget(port, path if path.startswith("/") else f"/{path}")
