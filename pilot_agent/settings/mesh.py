"""Reading one ProxyConfig document and laying it over what is below it, field by field.

Istio's rules: a layer replaces whole fields, except `proxyMetadata` (by key) and `proxyHeaders` (by sub-field); null
leaves a field alone; names in camelCase or snake_case; unknown fields are warnings.
"""

import json
from collections.abc import Mapping
from typing import Any

from pilot_agent.errors import SettingsError
from pilot_agent.settings.model import PROXY_CONFIG_FIELDS, Field, ProxyConfig
from pilot_agent.values import Duration

MERGED_BY_KEY = ("proxyMetadata", "proxyHeaders")


def parse_document(text: str, where: str) -> dict[str, Any]:
    """A YAML or JSON document whose top is a mapping; {} for an empty one. Raises SettingsError."""
    stripped = text.strip()
    if not stripped:
        return {}
    if stripped.startswith("{"):
        # The injector writes JSON: reading it as such keeps PyYAML out of the start of most pods.
        try:
            return _mapping(json.loads(stripped), where)
        except ValueError:
            pass
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return _mapping(yaml.load(text, Loader=loader), where)  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: not valid YAML: {_one_line(error)}") from None


def _mapping(document: object, where: str) -> dict[str, Any]:
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"{where}: expected a mapping of fields, got {type(document).__name__}")
    return {str(key): value for key, value in document.items()}


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else " ".join(str(problem).split())


class Layers:
    """ProxyConfig under construction: starts with the defaults, takes layers from low to high."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._values = {name: field.default for name, field in PROXY_CONFIG_FIELDS.items() if field.default is not None}
        self._sources: dict[str, str] = {}

    def add(self, document: Mapping[str, Any], source: str) -> None:
        """Lay `document` over what is there. Raises SettingsError for a value of the wrong type."""
        for key, value in document.items():
            field = self._field(key, source)
            if field is not None and value is not None:
                self.set(field.name, read_value(field, value, source), source)

    def set(self, name: str, value: object, source: str) -> None:
        if name in MERGED_BY_KEY and isinstance(value, dict):
            value = {**self._values.get(name, {}), **value}
        if name == "tracingServiceName":
            self._values["serviceCluster"] = ""  # one-of: the later of the two counts
        if name == "serviceCluster":
            self._values.pop("tracingServiceName", None)
        self._values[name] = value
        self._sources[name] = source

    def result(self) -> ProxyConfig:
        return ProxyConfig(self._values, {name: self._sources.get(name, "default") for name in self._values})

    def _field(self, key: str, source: str) -> Field | None:
        name = camel_case(key)
        field = PROXY_CONFIG_FIELDS.get(name)
        if field is None:
            self.warnings.append(f"{source}: unknown ProxyConfig field {key!r} is ignored{nearest(name)}")
        return field


def nearest(name: str, known: Mapping[str, object] = PROXY_CONFIG_FIELDS) -> str:
    """`; did you mean X?` where a known name is close to `name`, else nothing."""
    import difflib

    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""


def camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def read_value(field: Field, value: object, source: str) -> object:
    """`value` as the field's type. Raises SettingsError naming source, field and value."""
    try:
        return _READERS[field.kind](field, value)
    except ValueError as error:
        raise SettingsError(f"{source}: {field.name}: {error}") from None


def _text(_: Field, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text: put it in quotes")
    return value


def _integer(_: Field, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is not an integer")
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{value!r} is not an integer") from None


def _boolean(_: Field, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not a boolean: write true or false")
    return value


def _duration(_: Field, value: object) -> Duration:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a duration: write a number with a unit in quotes, such as 5s")
    return Duration.parse(value)


def _enum(field: Field, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(field.choices):
        return field.choices[value]
    if value not in field.choices:
        raise ValueError(f"{value!r} is unknown; use one of {', '.join(field.choices)}")
    return str(value)


def _map(_: Field, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a mapping")
    for key, item in value.items():
        if not isinstance(item, str):
            shown = str(item).lower() if isinstance(item, bool) else item
            raise ValueError(f"value {shown} of {key!r} is not a text: put it in quotes")
    return {str(key).lower() if isinstance(key, bool) else str(key): item for key, item in value.items()}


def _list(_: Field, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{value!r} is not a list of texts")
    return value


def _message(_: Field, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a mapping")
    return value


_READERS = {
    "text": _text,
    "integer": _integer,
    "boolean": _boolean,
    "duration": _duration,
    "enum": _enum,
    "map": _map,
    "list": _list,
    "message": _message,
}
