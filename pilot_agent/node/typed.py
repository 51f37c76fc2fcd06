"""Reading what was told of the node as the record istiod knows: each key of `keys` in its JSON type, or an error.

istiod decodes the same record from Envoy's bootstrap and refuses the proxy for one value of the wrong type, so a
wrong value ends the agent's start. A value that is empty in its type (false, 0, an empty list) is left out.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from pilot_agent.errors import SettingsError
from pilot_agent.node import keys
from pilot_agent.node.told import JSON_PREFIX, Told, json_name, shown
from pilot_agent.values import parse_bool


def read_typed(told: Told) -> dict[str, Any]:
    """The keys of `METADATA_KEYS` that were told. Raises SettingsError naming the variable and the value."""
    typed: dict[str, Any] = {}
    for key in keys.METADATA_KEYS:
        value = told.values.get(key.name)
        if key.name not in told.values or (value is None and key.json_type != keys.BOOLEAN):
            continue  # null says nothing in every type but the boolean text, which istiod can't read it as
        try:
            typed[key.name] = _READERS[key.json_type](key.name, value)
        except ValueError as error:
            raise SettingsError(f"{told.origins[key.name]}: {error}") from None
    return typed


def without_empty(typed: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in typed.items() if value not in ("", 0, {}, [], None)}


def as_flag(is_on: bool) -> str:
    """The typed form of a boolean: off is the empty text, which is left out."""
    return "true" if is_on else ""


def _text(_: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is {json_name(value)}, not a text: put it in quotes")
    return value


def _boolean(_: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f'{shown(value)} is {json_name(value)}, not a text: write "true" or "false", in quotes')
    return as_flag(parse_bool(value))


def _number(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not a number: set {name} instead")
    return value


def _comma_list(_: str, value: object) -> str:
    if isinstance(value, list):
        return ",".join(_text("", item) for item in value)
    return _text("", value)


def _text_map(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is not an object: {_json_hint(name)}")
    for key, item in value.items():
        if item is not None and not isinstance(item, str):
            raise ValueError(f"{key}: {shown(item)} is {json_name(item)}, not a text: put it in quotes")
    return {key: item or "" for key, item in value.items()}


def _json_hint(name: str) -> str:
    if name in ("LABELS", "STATIC_LABELS"):
        return f'use {JSON_PREFIX}LABELS={{"name": "value"}}'
    return f'use {JSON_PREFIX}X={{"{name}": ...}}'


def _names(name: str, value: object) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"{shown(value)} is not a list: {_json_hint(name)}")
    return [_text(name, item) for item in value]


def _object(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is not an object: {_json_hint(name)}")
    return value


def _ports(_: str, value: object) -> str:
    """Compact JSON of the ports with the three fields istiod reads; empty for none."""
    ports = value
    if isinstance(value, str):
        try:
            ports = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"{shown(value)} is not a JSON list of ports") from None
    if ports is None:
        return ""
    if not isinstance(ports, list):
        raise ValueError(f"{shown(value)} is not a JSON list of ports")
    return json.dumps([_port(port) for port in ports], separators=(",", ":"), ensure_ascii=False) if ports else ""


def _port(port: object) -> dict[str, object]:
    if not isinstance(port, dict):
        raise ValueError(f"{shown(port)} is not a port: write an object with name, containerPort and protocol")
    number = port.get("containerPort")
    if number is None:
        number = 0
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError(f"containerPort: {shown(number)} is not a number")
    name, protocol = (_port_text(field, port.get(field)) for field in ("name", "protocol"))
    return {**({"name": name} if name else {}), "containerPort": number, "protocol": protocol}


def _port_text(field: str, value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{field}: {shown(value)} is not a text: put it in quotes")
    return value or ""


_READERS: Mapping[str, Callable[[str, object], Any]] = {
    keys.TEXT: _text,
    keys.BOOLEAN: _boolean,
    keys.NUMBER: _number,
    keys.COMMA_LIST: _comma_list,
    keys.PORTS: _ports,
    keys.TEXT_MAP: _text_map,
    keys.NAMES: _names,
    keys.OBJECT: _object,
}
