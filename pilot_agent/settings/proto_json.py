"""ProxyConfig as proto3 JSON, the form in which Envoy's node metadata carries it to istiod."""

from typing import Any

from pilot_agent.settings.model import PROXY_CONFIG_FIELDS, ProxyConfig
from pilot_agent.values import Duration


def proxy_config_json(config: ProxyConfig) -> dict[str, Any]:
    """proto3 JSON of the ProxyConfig: camelCase, zero values left out, durations as `45s`, empty messages kept."""
    shown: dict[str, Any] = {}
    for name, value in config.values.items():
        field = PROXY_CONFIG_FIELDS[name]
        if field.kind == "message" or value not in ("", 0, None, [], {}, False):
            shown[name] = str(value) if isinstance(value, Duration) else value
        if field.kind == "enum" and field.choices and value == field.choices[0]:
            shown.pop(name, None)  # the zero of the enum
    if config.concurrency is not None:
        shown["concurrency"] = config.concurrency  # a wrapper type: an explicit 0 says something
    return shown
