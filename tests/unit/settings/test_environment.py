"""Environment variables: their types, and that a bad value is a warning and never the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.settings.environment import VARIABLES, Environment
from pilot_agent.values import FALSE_WORDS, TRUE_WORDS, Duration


def test_without_any_variable_every_default_counts() -> None:
    environment = Environment({})
    assert environment.warnings == []
    readers = {
        str: environment.text,
        bool: environment.flag,
        int: environment.number,
        Duration: environment.duration,
    }
    for variable in VARIABLES:
        assert readers[type(variable.default)](variable.name) == variable.default
        assert not environment.is_set(variable.name)


def test_each_type_is_read() -> None:
    environment = Environment(
        {
            "POD_NAME": "web-0",
            "ENVOY_STATUS_PORT": "16021",
            "ISTIO_DUAL_STACK": "true",
            "MINIMUM_DRAIN_DURATION": "1m30s",
        }
    )
    assert environment.text("POD_NAME") == "web-0"
    assert environment.number("ENVOY_STATUS_PORT") == 16021
    assert environment.flag("ISTIO_DUAL_STACK") is True
    assert environment.duration("MINIMUM_DRAIN_DURATION") == Duration.of(90)
    assert environment.warnings == []
    assert environment.is_set("POD_NAME")


@pytest.mark.parametrize(
    ("words", "expected"), [(sorted(TRUE_WORDS), True), (sorted(FALSE_WORDS), False)], ids=["true", "false"]
)
def test_booleans_are_gos(words: list[str], expected: bool) -> None:
    for word in words:
        # One variable of each default, so that falling back to it would show.
        environment = Environment({"ISTIO_DUAL_STACK": word, "ISTIO_DELTA_XDS": word})
        assert (environment.flag("ISTIO_DUAL_STACK"), environment.flag("ISTIO_DELTA_XDS")) == (expected, expected)
        assert environment.warnings == []


@pytest.mark.parametrize(
    ("name", "raw", "warning"),
    [
        ("ISTIO_DELTA_XDS", "yes", "ISTIO_DELTA_XDS='yes' is not a boolean: using the default, true"),
        ("ISTIO_DUAL_STACK", "", "ISTIO_DUAL_STACK='' is not a boolean: using the default, false"),
        ("ENVOY_STATUS_PORT", "http", "ENVOY_STATUS_PORT='http' is not an integer: using the default, 15021"),
        ("ENVOY_STATUS_PORT", "", "ENVOY_STATUS_PORT='' is not an integer: using the default, 15021"),
        ("ENVOY_STATUS_PORT", "1.5", "ENVOY_STATUS_PORT='1.5' is not an integer: using the default, 15021"),
        ("MINIMUM_DRAIN_DURATION", "5", "MINIMUM_DRAIN_DURATION='5' is not a duration: using the default, 5s"),
        ("MINIMUM_DRAIN_DURATION", "", "MINIMUM_DRAIN_DURATION='' is not a duration: using the default, 5s"),
    ],
)
def test_a_bad_value_is_a_warning_and_the_default_counts(name: str, raw: str, warning: str) -> None:
    environment = Environment({name: raw})
    default = next(variable.default for variable in VARIABLES if variable.name == name)
    values = {bool: environment.flag, int: environment.number, Duration: environment.duration}
    assert environment.warnings == [warning]
    assert values[type(default)](name) == default
    assert environment.is_set(name), "it was set, if badly"


def test_an_empty_text_counts_as_set() -> None:
    environment = Environment({"DNS_PROXY_ADDR": ""})
    assert environment.text("DNS_PROXY_ADDR") == ""
    assert environment.warnings == []


def test_several_bad_values_are_all_told() -> None:
    environment = Environment({"ISTIO_CPU_LIMIT": "many", "ISTIO_DELTA_XDS": "perhaps"})
    assert sorted(warning.partition("=")[0] for warning in environment.warnings) == [
        "ISTIO_CPU_LIMIT",
        "ISTIO_DELTA_XDS",
    ]


def test_variables_by_prefix_come_sorted_and_whole() -> None:
    environment = Environment({"ISTIO_META_B": "2", "ISTIO_META_A": "=1=", "ISTIO_META_": "x", "OTHER": "y"})
    assert list(environment.with_prefix("ISTIO_META_")) == [("A", "=1="), ("B", "2")]


def test_the_table_names_each_variable_once() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len(names) == len(set(names))
    assert all(variable.effect for variable in VARIABLES)


@given(st.dictionaries(st.sampled_from([variable.name for variable in VARIABLES]), st.text(max_size=12)))
def test_no_value_whatsoever_is_fatal(variables: dict[str, str]) -> None:
    environment = Environment(variables)
    told = {warning.partition("=")[0] for warning in environment.warnings}
    assert told <= set(variables)
    for variable in VARIABLES:
        if isinstance(variable.default, str):
            assert environment.text(variable.name) == variables.get(variable.name, variable.default)


@pytest.mark.parametrize(
    ("raw", "value", "warnings"),
    [
        (None, None, 0),
        ("", False, 0),
        ("true", True, 0),
        ("0", False, 0),
        ("maybe", False, 1),
    ],
)
def test_a_boolean_with_a_third_state(raw: str | None, value: bool | None, warnings: int) -> None:
    environment = Environment({} if raw is None else {"PEER_METADATA_DISCOVERY": raw})
    assert environment.override("PEER_METADATA_DISCOVERY") is value
    assert len(environment.warnings) == warnings
    assert environment.raw("PEER_METADATA_DISCOVERY") == raw


def test_every_variable_says_what_it_is_for() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len(set(names)) == len(names)
    assert all(variable.effect and variable.part for variable in VARIABLES)


@pytest.mark.parametrize("raw", ["-1", "65536", "70000"])
def test_a_port_out_of_range_is_a_warning(raw: str) -> None:
    environment = Environment({"ENVOY_STATUS_PORT": raw})
    assert environment.number("ENVOY_STATUS_PORT") == 15021
    assert environment.warnings == [f"ENVOY_STATUS_PORT={raw!r} is not a port: using the default, 15021"]
