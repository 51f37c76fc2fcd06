"""Parsing a ProxyConfig document, and laying it over what is below it, field by field.

Istio's rules: a layer replaces whole fields, except `proxyMetadata` (by key) and some of `proxyHeaders`; null leaves a
field alone. What a replaced message loses is a warning; --deepMerge merges messages instead.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pilot_agent.errors import SettingsError
from pilot_agent.settings.model import ProxyConfig
from pilot_agent.settings.reading import Reader
from pilot_agent.settings.schema import MESSAGES, ONE_OFS, PROXY_CONFIG_FIELDS
from pilot_agent.values import camel_case

KEPT_HEADERS = ("forwardedClientCert", "requestId", "attemptCount", "server", "envoyDebugHeaders")
"""Fields of proxyHeaders that a layer without them leaves as they were."""


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
        except RecursionError:
            raise SettingsError(f"{where}: nested too deeply") from None
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return _mapping(yaml.load(text, Loader=loader), where)  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: not valid YAML: {_one_line(error)}") from None
    except RecursionError:
        raise SettingsError(f"{where}: nested too deeply") from None


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

    def __init__(self, *, is_deep: bool = False) -> None:
        self.warnings: list[str] = []
        self._is_deep = is_deep
        self._values = {name: field.default for name, field in PROXY_CONFIG_FIELDS.items() if field.default is not None}
        self._sources: dict[str, str] = {}

    def add(self, document: Mapping[str, Any], source: str) -> None:
        """Lay `document` over what is there. Raises SettingsError for a value of the wrong type."""
        reader = Reader(source, self.warnings)
        for key, value in document.items():
            field = PROXY_CONFIG_FIELDS.get(camel_case(key))
            if field is None:
                reader.unknown(key, PROXY_CONFIG_FIELDS)
            elif value is not None:
                self.set(field.name, reader.value(field, value), source)

    def set(self, name: str, value: Any, source: str) -> None:
        if name == "tracingServiceName":
            self._values["serviceCluster"] = ""  # one-of: the later of the two counts
        if name == "serviceCluster":
            self._values.pop("tracingServiceName", None)
        before = self._values.get(name)
        if name == "proxyMetadata":
            self._sources |= {f"{name}.{key}": source for key in value}
        if self._is_deep and PROXY_CONFIG_FIELDS[name].kind == "message":
            self._sources |= {".".join((name, *path)): source for path in _leaves(value)}
        if isinstance(before, dict) and isinstance(value, dict):
            value = self._merged(name, before, value, source)
        self._values[name] = value
        self._sources[name] = source

    def _merged(self, name: str, before: dict[str, Any], value: dict[str, Any], source: str) -> dict[str, Any]:
        if name == "proxyMetadata":
            return {**before, **value}
        field = PROXY_CONFIG_FIELDS[name]
        if field.kind != "message":
            return value
        if name == "proxyHeaders" and value.get("forwardedClientCert") == "UNDEFINED":
            value = {key: item for key, item in value.items() if key != "forwardedClientCert"}
        kept = _deeply(field.message, before, value)
        if self._is_deep:
            return kept
        if name == "proxyHeaders":
            value = {**{key: before[key] for key in KEPT_HEADERS if key in before}, **value}
        lost = [path for path in _leaves(kept) if not _has(value, path)]
        if lost:
            self.warnings.append(
                f"{source}: {name} replaces the one of {self._sources[name]}: {', '.join(map('.'.join, lost))} "
                f"{'is' if len(lost) == 1 else 'are'} lost; --deepMerge keeps what a layer does not name"
            )
        return value

    def result(self) -> ProxyConfig:
        dotted = {name: source for name, source in self._sources.items() if "." in name}
        return ProxyConfig(
            self._values, {**{name: self._sources.get(name, "default") for name in self._values}, **dotted}
        )


def _deeply(message: str, before: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """Messages merged field by field, all the way down; lists and everything else are replaced, so are one-ofs."""
    displaced = {
        name for group in ONE_OFS.get(message, ()) if any(each in value for each in group) for name in group
    } - set(value)
    merged = {key: item for key, item in before.items() if key not in displaced}
    for field in MESSAGES[message]:
        if field.name not in value:
            continue
        old, item = merged.get(field.name, {}), value[field.name]
        if field.kind == "message":
            item = _deeply(field.message, old, item)
        elif field.kind == "messages":
            item = old | {name: _deeply(field.message, old.get(name, {}), entry) for name, entry in item.items()}
        merged[field.name] = item
    return merged


def _leaves(message: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in message.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


def _has(message: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(message, dict) or key not in message:
            return False
        message = message[key]
    return True
