"""The record istiod knows of a node: which values its keys take, and what is said of the others."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.errors import SettingsError
from pilot_agent.node.keys import BOOLEAN, METADATA_KEYS, NUMBER, TEXT, TEXT_MAP, keys_of
from tests.unit.node.nodes import metadata, node

OWN_FLAGS = ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "ENVOY_SKIP_DEPRECATED_LOGS", "METADATA_DISCOVERY")


def refusal(**env: str) -> str:
    with pytest.raises(SettingsError) as refused:
        metadata(**env)
    return str(refused.value)


def from_json(key: str, value: object) -> dict[str, Any]:
    return metadata(ISTIO_METAJSON_X=json.dumps({key: value}))


def refusal_of_json(key: str, value: object) -> str:
    return refusal(ISTIO_METAJSON_X=json.dumps({key: value}))


@pytest.mark.parametrize("key", sorted(set(keys_of(BOOLEAN)) - set(OWN_FLAGS)))
def test_booleans_are_texts_in_any_spelling_of_true(key: str) -> None:
    for word in ("1", "t", "T", "true", "TRUE", "True"):
        assert metadata(**{f"ISTIO_META_{key}": word})[key] == "true"
    assert from_json(key, "T")[key] == "true"


@pytest.mark.parametrize("word", ["0", "f", "F", "false", "FALSE", "False"])
def test_a_false_boolean_shows_as_it_was_written(word: str) -> None:
    assert metadata(ISTIO_META_ENABLE_HBONE=word)["ENABLE_HBONE"] == word


@pytest.mark.parametrize("key", keys_of(BOOLEAN))
@pytest.mark.parametrize("word", ["", "yes", "2", " true"])
def test_another_word_is_fatal(key: str, word: str) -> None:
    text = refusal(**{f"ISTIO_META_{key}": word})
    assert text == f"ISTIO_META_{key}: {word!r} is not a boolean: write true or false"


@pytest.mark.parametrize(("value", "name"), [(True, "a boolean"), (1, "a number"), (None, "null")])
def test_a_boolean_that_is_no_text_is_fatal_for_istiod_could_not_read_it(value: object, name: str) -> None:
    text = refusal_of_json("DNS_CAPTURE", value)
    shown = json.dumps(value)
    assert text == f'ISTIO_METAJSON_X: DNS_CAPTURE: {shown} is {name}, not a text: write "true" or "false", in quotes'


@pytest.mark.parametrize("key", sorted(set(keys_of(TEXT)) - {"DNS_PROXY_ADDR"}))  # its own variable comes over it
def test_a_text_that_is_none_is_fatal(key: str) -> None:
    text = refusal_of_json(key, 5)
    assert text == f"ISTIO_METAJSON_X: {key}: 5 is a number, not a text: put it in quotes"
    assert from_json(key, None).get(key) == metadata().get(key)


@pytest.mark.parametrize("key", keys_of(NUMBER))
@pytest.mark.parametrize("value", ["1", True, 1.5, [1]])
def test_a_number_that_is_none_is_fatal(key: str, value: object) -> None:
    assert refusal_of_json(key, value).endswith(f" is not a number: set {key} instead")


def test_numbers_are_the_agents_own() -> None:
    assert from_json("ENVOY_STATUS_PORT", 1)["ENVOY_STATUS_PORT"] == 15021


@pytest.mark.parametrize("key", keys_of(TEXT_MAP))
@pytest.mark.parametrize(("value", "shown"), [("x", "'x'"), ([], "[]"), (5, "5")])
def test_an_object_that_is_none_is_fatal(key: str, value: object, shown: str) -> None:
    text = refusal_of_json(key, value)
    assert text.startswith(f"ISTIO_METAJSON_X: {key}: {shown} is not an object: use ISTIO_METAJSON_")


def test_an_object_holds_texts() -> None:
    text = refusal_of_json("PLATFORM_METADATA", {"zone": 1})
    assert text == "ISTIO_METAJSON_X: PLATFORM_METADATA: zone: 1 is a number, not a text: put it in quotes"
    assert from_json("PLATFORM_METADATA", {"a": "b", "c": None})["PLATFORM_METADATA"] == {"a": "b", "c": ""}
    assert from_json("PLATFORM_METADATA", {})["PLATFORM_METADATA"] == {}


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        ("DNS_CAPTURE", "", "'' is not a boolean: write true or false"),
        ("LABELS", "x", """'x' is not an object: use ISTIO_METAJSON_LABELS={"name": "value"}"""),
        ("ENVOY_STATUS_PORT", "1", "'1' is not a number: set ENVOY_STATUS_PORT instead"),
        ("POD_PORTS", "x", "'x' is not a JSON list of ports"),
        ("PROXY_CONFIG", "x", """'x' is not an object: use ISTIO_METAJSON_X={"PROXY_CONFIG": ...}"""),
        ("PILOT_SAN", "x", """'x' is not a list: use ISTIO_METAJSON_X={"PILOT_SAN": ...}"""),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(variable: str, value: str, error: str) -> None:
    assert refusal(**{f"ISTIO_META_{variable}": value}) == f"ISTIO_META_{variable}: {error}"


def test_a_wrong_value_of_the_proxy_config_is_told_with_its_field() -> None:
    with pytest.raises(SettingsError) as refused:
        node({"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "on"}})
    assert str(refused.value) == "proxyMetadata.ISTIO_META_DNS_CAPTURE: 'on' is not a boolean: write true or false"


def test_a_value_that_another_one_hides_is_not_judged() -> None:
    env = {"ISTIO_META_DNS_CAPTURE": "true"}
    assert node({"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "on"}}, env=env).metadata["DNS_CAPTURE"] == "true"


def test_a_long_value_is_cut() -> None:
    assert len(refusal(ISTIO_META_LABELS="x" * 5000)) < 300


# Lists


def test_lists_are_joined_by_commas() -> None:
    assert metadata(ISTIO_META_REQUESTED_NETWORK_VIEW="a,b")["REQUESTED_NETWORK_VIEW"] == "a,b"
    assert from_json("REQUESTED_NETWORK_VIEW", ["a", "b"])["REQUESTED_NETWORK_VIEW"] == "a,b"
    assert refusal_of_json("REQUESTED_NETWORK_VIEW", [1]).endswith("1 is a number, not a text: put it in quotes")


def test_an_empty_list_of_ports_shows_as_it_was_written() -> None:
    assert metadata(ISTIO_META_POD_PORTS="[]")["POD_PORTS"] == "[]"
    assert metadata(ISTIO_META_POD_PORTS=" [ ]\n")["POD_PORTS"] == " [ ]\n"
    assert metadata(ISTIO_META_POD_PORTS="null")["POD_PORTS"] == "null"


PORTS = '[\n  {"containerPort": 80, "name": "http", "protocol": "TCP", "hostPort": 8080},\n  {"containerPort": 53}\n]'
COMPACT = '[{"name":"http","containerPort":80,"protocol":"TCP"},{"containerPort":53,"protocol":""}]'


def test_ports_are_compact_json_of_the_fields_istiod_reads() -> None:
    assert metadata(ISTIO_META_POD_PORTS=PORTS)["POD_PORTS"] == COMPACT
    assert from_json("POD_PORTS", json.loads(PORTS))["POD_PORTS"] == COMPACT


@pytest.mark.parametrize(
    ("ports", "error"),
    [
        ("", "'' is not a JSON list of ports"),
        ("{}", "'{}' is not a JSON list of ports"),
        ("[1]", "1 is not a port: write an object with name, containerPort and protocol"),
        ('[{"containerPort": "80"}]', "containerPort: '80' is not a number"),
        ('[{"containerPort": true}]', "containerPort: true is not a number"),
        ('[{"containerPort": 80, "name": 5}]', "name: 5 is not a text: put it in quotes"),
        ("[" * 50_000, " is not a JSON list of ports"),
    ],
)
def test_ports_that_are_none_are_fatal(ports: str, error: str) -> None:
    text = refusal(ISTIO_META_POD_PORTS=ports)
    assert text.startswith("ISTIO_META_POD_PORTS: ")
    assert text.endswith(error)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"containerPort": st.integers(0, 65535), "protocol": st.sampled_from(["TCP", "UDP"])},
            optional={"name": st.text(st.characters(exclude_categories=["Cs"]), min_size=1)},
        ),
        min_size=1,
    )
)
def test_ports_keep_what_they_say(ports: list[dict[str, object]]) -> None:
    shown = metadata(ISTIO_META_POD_PORTS=json.dumps(ports, indent=1))["POD_PORTS"]
    assert json.loads(shown) == ports


def test_every_key_is_in_the_table_once() -> None:
    names = [key.name for key in METADATA_KEYS]
    assert len(names) == len(set(names))
    assert all(key.source and key.effect for key in METADATA_KEYS)
