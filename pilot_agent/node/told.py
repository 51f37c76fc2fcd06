"""What the user told of the node: proxyMetadata, ISTIO_META_* and ISTIO_METAJSON_* variables, each with its origin.

Owns the order in which they overlay each other and the reading of JSON. What the values must look like is `typed`'s
business, what the agent knows by itself `metadata`'s.
"""

import json
from typing import Any, NamedTuple

from pilot_agent.settings.model import Settings

PREFIX = "ISTIO_META_"
JSON_PREFIX = "ISTIO_METAJSON_"
LABELS_VARIABLE = "LABELS"

# Envoy 1.40 reads objects up to about 100 levels deep and refuses the whole bootstrap for more.
MAX_DEPTH = 64
MAX_SHOWN = 120


class Told(NamedTuple):
    """`values` by metadata key, `origins` what to call them in an error; `labels` are ISTIO_METAJSON_LABELS."""

    values: dict[str, Any]
    origins: dict[str, str]
    labels: dict[str, str]
    warnings: list[str]

    def add(self, key: str, value: object, origin: str) -> None:
        self.values[key] = value
        self.origins[key] = origin


def read_told(settings: Settings) -> Told:
    """Later wins: proxyMetadata, ISTIO_META_*, ISTIO_METAJSON_*, DNS_PROXY_ADDR. No JSON object: a warning."""
    told = Told({}, {}, {}, [])
    environment = settings.environment
    for name, text in settings.proxy_config.proxy_metadata.items():
        if name.startswith(PREFIX) and name != PREFIX:
            told.add(name.removeprefix(PREFIX), text, f"proxyMetadata.{name}")
    for name, text in environment.with_prefix(PREFIX):
        told.add(name, text, f"{PREFIX}{name}")
    for name, text in environment.with_prefix(JSON_PREFIX):
        _spread(told, name, text)
    if environment.text("DNS_PROXY_ADDR"):
        told.add("DNS_PROXY_ADDR", environment.text("DNS_PROXY_ADDR"), "DNS_PROXY_ADDR")
    return told


def _spread(told: Told, name: str, text: str) -> None:
    """An object's keys go to the top, whatever the variable is called; only LABELS means more."""
    variable = f"{JSON_PREFIX}{name}"
    try:
        found = read_object(text)
    except ValueError as error:
        told.warnings.append(f"{variable} is ignored: it is not a JSON object: {error}")
        return
    for key, value in found.items():
        told.add(key, value, f"{variable}: {key}")
    if name == LABELS_VARIABLE:
        for key, value in found.items():
            told.labels[key] = value if isinstance(value, str) else ""
            if not isinstance(value, str):
                told.warnings.append(f"{variable}: {key} is not a text: the label is empty")


def read_object(text: str) -> dict[str, Any]:
    """A JSON object as Envoy can read it: no NaN, no number beyond a double, not too deep. Raises ValueError."""
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_double, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is {json_name(value)}")
    if _is_deeper_than(MAX_DEPTH, value):
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _double(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {shown(text)} is too big")
    return number


def _integer(text: str) -> int:
    _double(text)
    return int(text)


def _is_deeper_than(levels: int, value: object) -> bool:
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper_than(levels - 1, item) for item in items)


def json_name(value: object) -> str:
    """What JSON calls a value of this type, with its article."""
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a text", dict: "an object", list: "a list"}
    return names.get(type(value), "a number")


def shown(value: object) -> str:
    """The value as an error shows it, on one line and not too long."""
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def without_lone_surrogates(value: Any) -> Any:
    """The same with U+FFFD for what is no character: bytes of a variable that are no UTF-8, half a pair in JSON.

    Envoy refuses a whole bootstrap for one of them; Istio's agent replaces them as well.
    """
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {without_lone_surrogates(key): without_lone_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_lone_surrogates(item) for item in value]
    return value
