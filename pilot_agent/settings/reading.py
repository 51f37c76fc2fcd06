"""One value of a document as the type of its field, nested messages included; what does not fit is told with its path.

Istio's rules: names in camelCase or snake_case; null leaves a field unset; integers may be quoted; enums go by name (or
number); durations are Go's or protobuf's; unknown fields are warnings.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pilot_agent.errors import SettingsError
from pilot_agent.settings.environment import parse_integer
from pilot_agent.settings.redaction import HIDDEN, redacted
from pilot_agent.settings.schema import MESSAGES, ONE_OFS, PROXY_CONFIG_FIELDS, Field
from pilot_agent.values import Duration, camel_case


def nearest(name: str, known: Iterable[str] = PROXY_CONFIG_FIELDS) -> str:
    """`; did you mean X?` where a known name is close to `name`, else nothing."""
    import difflib

    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""


class Reader:
    """Reads the values of one document; `warnings` collects what is ignored."""

    def __init__(self, source: str, warnings: list[str]) -> None:
        self._source, self._warnings = source, warnings

    def value(self, field: Field, value: object, path: str = "") -> Any:
        """`value` as the field's type. Raises SettingsError naming source, path and value."""
        path = path or field.name
        if field.kind == "message":
            return self._message(field.message, _mapping(value, path, self._source), path)
        if field.kind == "messages":
            entries = _mapping(value, path, self._source)
            return {
                str(name): self._message(
                    field.message, _mapping(entry, f"{path}.{name}", self._source), f"{path}.{name}"
                )
                for name, entry in entries.items()
            }
        try:
            return _READERS[field.kind](field, value)
        except ValueError as error:
            quoted, said = repr(value), str(error)
            if quoted in said:
                said = said.replace(quoted, shown(path, value))
            raise SettingsError(f"{self._source}: {path}: {said}") from None

    def _message(self, name: str, document: Mapping[object, object], path: str) -> dict[str, Any]:
        fields = {field.name: field for field in MESSAGES[name]}
        found: dict[str, Any] = {}
        for key, value in document.items():
            field = fields.get(camel_case(str(key)))
            if field is None:
                self.unknown(str(key), fields, f"{path}.")
            elif value is not None:
                found[field.name] = self.value(field, value, f"{path}.{field.name}")
        for group in ONE_OFS.get(name, ()):
            self._keep_last(found, group, path)
        return found

    def _keep_last(self, found: dict[str, Any], group: tuple[str, ...], path: str) -> None:
        given = [name for name in found if name in group]
        for name in given[:-1]:
            del found[name]
            self._warnings.append(f"{self._source}: {path}.{name} is ignored: {path}.{given[-1]} stands beside it")

    def unknown(self, key: str, known: Iterable[str], prefix: str = "") -> None:
        where = f"{prefix}{key}"
        self._warnings.append(
            f"{self._source}: unknown ProxyConfig field {where!r} is ignored{nearest(camel_case(key), known)}"
        )


def _mapping(value: object, path: str, source: str) -> Mapping[object, object]:
    if not isinstance(value, dict):
        raise SettingsError(f"{source}: {path}: {shown(path, value)} is not a mapping")
    return value


def shown(path: str, value: object) -> str:
    """`value` as an error may quote it: what is secret inside is hidden."""
    try:
        safe = redacted(path, value)
    except RecursionError:  # YAML's anchors can put a value into itself
        return "a value that never ends"
    return HIDDEN if safe == HIDDEN else repr(safe)


_BEYOND = float("inf")


def _text(_: Field, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text: put it in quotes")
    return value


def _integer(field: Field, value: object) -> int:
    is_float = isinstance(value, float) and value.is_integer()  # YAML's 1e3, JSON's 5.0: integers to protobuf
    if isinstance(value, bool) or not (is_float or isinstance(value, int | str)):
        raise ValueError(f"{value!r} is not an integer")
    try:
        number = parse_integer(value) if isinstance(value, str) else int(value)  # type: ignore[call-overload]
    except ValueError:
        raise ValueError(f"{value!r} is not an integer") from None
    least, most = field.bounds
    if not least <= number <= most:
        raise ValueError(f"{number} is out of range: {least} to {most}")
    return number


def _number(_: Field, value: object) -> float:
    if isinstance(value, str):
        try:
            value = float(value)  # protobuf's JSON takes quoted numbers too
        except ValueError:
            raise ValueError(f"{value!r} is not a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    if not -_BEYOND < value < _BEYOND:  # NaN is not either
        raise ValueError(f"{value!r} is not a finite number")
    return value


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
            safe = str(item).lower() if isinstance(item, bool) else redacted(str(key), item)
            raise ValueError(f"value {safe} of {key!r} is not a text: put it in quotes")
    return {str(key).lower() if isinstance(key, bool) else str(key): item for key, item in value.items()}


def _list(field: Field, value: object) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list of texts")
    if field.choices:
        return [_enum(field, item) for item in value]
    if not all(isinstance(item, str) for item in value):
        raise ValueError(f"{value!r} is not a list of texts")
    return value


def _free(_: Field, value: object) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a mapping")
    import json

    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (ValueError, TypeError, RecursionError):  # YAML has dates, and values inside themselves
        raise ValueError("there is something in it that JSON can't say, such as a date: put it in quotes") from None


_READERS: dict[str, Callable[[Field, object], Any]] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "duration": _duration,
    "enum": _enum,
    "map": _map,
    "list": _list,
    "free": _free,
}
