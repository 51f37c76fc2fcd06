"""Whatever a document says: settings that can be written as JSON, or one line that says what is wrong."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilot_agent.errors import SettingsError
from pilot_agent.settings.mesh import Layers
from pilot_agent.settings.proto_json import proxy_config_json
from pilot_agent.settings.schema import MESSAGES, PROXY_CONFIG_FIELDS, Field
from pilot_agent.values import Duration
from tests.unit.settings.told import told

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
durations = st.integers(-(10**12), 10**15).map(lambda count: str(Duration(count)))
addresses = st.sampled_from(["a:1", "b.example.com:65535", "[::1]:9", "10.0.0.1:80"])


def fitting(field: Field) -> st.SearchStrategy[Any]:
    """Values of the field's type, which still may not pass the checks."""
    simple: dict[str, st.SearchStrategy[Any]] = {
        "text": st.text(max_size=6) | addresses,
        "integer": st.integers(*field.bounds) | st.integers(*field.bounds).map(str),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
        "duration": durations,
        "enum": st.sampled_from([*(field.choices or ("",)), 0, 1]),
        "list": st.lists(st.sampled_from(field.choices) if field.choices else st.text(max_size=4), max_size=2),
        "map": st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
        "free": st.dictionaries(st.text(max_size=4), anything, max_size=2),
    }
    if field.kind == "message":
        return message(MESSAGES[field.message])
    if field.kind == "messages":
        return st.dictionaries(st.text(max_size=4), message(MESSAGES[field.message]), max_size=2)
    return simple[field.kind]


def message(fields: tuple[Field, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={field.name: fitting(field) for field in fields})


FIELDS = tuple(PROXY_CONFIG_FIELDS.values())
documents = message(FIELDS)


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(sorted(PROXY_CONFIG_FIELDS)), anything, max_size=4) | documents)
def test_the_agent_starts_or_says_why_not_in_one_line(document: dict[str, Any]) -> None:
    try:
        config = told(json.dumps(document)).proxy_config
    except SettingsError as refused:
        assert len(str(refused).splitlines()) == 1
        return
    json.dumps(proxy_config_json(config), allow_nan=False)
    assert config.discovery_address.port > 0
    assert config.drain_duration.seconds >= 1


@settings(max_examples=100)
@given(st.lists(documents, min_size=1, max_size=3), st.booleans())
def test_what_is_written_is_read_as_the_same(said: list[dict[str, Any]], is_deep: bool) -> None:
    layers, again = Layers(is_deep=is_deep), Layers()
    for number, document in enumerate(said):
        layers.add(document, str(number))
    shown = proxy_config_json(layers.result())
    again.add(json.loads(json.dumps(shown)), "again")
    assert again.warnings == []
    # Zeros that were said are not written, and a default takes their place.
    written = {name for name in shown if name != "tracingServiceName"}
    assert {name: proxy_config_json(again.result())[name] for name in written} == {
        name: shown[name] for name in written
    }
