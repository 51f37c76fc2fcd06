"""ProxyConfig as proto3 JSON, the form in which Envoy's node metadata carries it to istiod (reference, section 4.2)."""

from collections.abc import Iterable, Mapping
from typing import Any

from pilot_agent.settings.model import ProxyConfig
from pilot_agent.settings.schema import MESSAGES, PROXY_CONFIG_FIELDS, Field

_FIRST_WITH_EXPONENT = 10**21


def proxy_config_json(config: ProxyConfig) -> dict[str, Any]:
    """camelCase names, zero values left out, durations as `45s`, 64-bit integers as texts, empty messages kept."""
    return _message(PROXY_CONFIG_FIELDS.values(), config.values)


def _message(fields: Iterable[Field], values: Mapping[str, Any]) -> dict[str, Any]:
    shown = {}
    for field in fields:
        value = values.get(field.name)
        if value is not None and not _is_zero(field, value):
            shown[field.name] = _shown(field, value)
    return shown


def _is_zero(field: Field, value: Any) -> bool:
    """What proto3 does not write: the zero of a plain field. Messages and wrappers (durations too) are written."""
    if field.is_wrapper or field.kind in ("message", "duration", "free"):
        return False
    if field.kind == "enum":
        return bool(value == field.choices[0])
    return not value


def _shown(field: Field, value: Any) -> Any:
    if field.kind == "message":
        return _message(MESSAGES[field.message], value)
    if field.kind == "messages":
        return {name: _message(MESSAGES[field.message], entry) for name, entry in value.items()}
    if field.kind == "duration" or field.is_64_bit:
        return str(value)
    if field.kind == "number" and float(value).is_integer() and abs(value) < _FIRST_WITH_EXPONENT:
        return int(value)  # protobuf writes 100, not 100.0
    return value
