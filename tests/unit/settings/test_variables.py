"""The tables of variables: whole, and honest about what this version reads."""

import re
from pathlib import Path

import pytest

import pilot_agent
from pilot_agent.settings.environment import NAMED_META, OVERRIDES, PREFIXES, VARIABLES, Environment, Variable

PARTS = {"bootstrap", "node", "envoy", "status", "metrics", "identity", "xds", "dns", "wasm", "cloud"}
PACKAGE = Path(pilot_agent.__file__).parent
TABLE = PACKAGE / "settings" / "environment.py"
WARNED_OF = {"XDS_AUTH_PROVIDER"}
"""Read only to say that it does nothing."""


@pytest.fixture(scope="module")
def names_in_the_code() -> set[str]:
    """Every word in capitals between quotes, but for the table itself and docstrings of one line."""
    files = [file for file in PACKAGE.rglob("*.py") if file != TABLE]
    return {name for file in files for name in re.findall(r"\"([A-Z][A-Z0-9_]+)\"", file.read_text())}


@pytest.mark.parametrize(
    "variable",
    [variable for variable in VARIABLES if variable.part != "cloud"],  # those are read by the names of a tuple's fields
    ids=lambda variable: str(variable.name),
)
def test_a_variable_is_called_used_exactly_where_code_reads_it(variable: Variable, names_in_the_code: set[str]) -> None:
    assert variable.is_used == (variable.name in names_in_the_code - WARNED_OF)


def test_every_part_is_one_of_the_agents() -> None:
    assert {variable.part for variable in VARIABLES} == PARTS
    assert {prefix.part for prefix in PREFIXES} <= PARTS


def test_every_named_metadata_variable_has_one_of_the_prefixes_and_an_effect() -> None:
    assert len({name for name, _ in NAMED_META}) == len(NAMED_META)
    for name, effect in NAMED_META:
        assert name.startswith(tuple(prefix.name for prefix in PREFIXES)) and effect


def test_every_prefix_that_code_reads_is_called_used() -> None:
    code = "".join(file.read_text() for file in PACKAGE.rglob("*.py") if file.parent.name != "settings")
    assert {prefix.name: prefix.is_used for prefix in PREFIXES} == {
        prefix.name: f'"{prefix.name}"' in code for prefix in PREFIXES
    }


def test_the_variables_with_a_third_state_are_known() -> None:
    assert set(OVERRIDES) <= {variable.name for variable in VARIABLES}


@pytest.mark.parametrize("raw", ["1_000", " 5", "5 ", "٣", "0x10", "1e3", str(2**63), "9" * 5000, "--5", "+"])
def test_only_gos_decimals_are_integers(raw: str) -> None:
    environment = Environment({"ISTIO_CPU_LIMIT": raw})
    assert environment.number("ISTIO_CPU_LIMIT") == 0
    assert environment.warnings == [f"ISTIO_CPU_LIMIT={raw!r} is not an integer: using the default, 0"]


@pytest.mark.parametrize(("raw", "value"), [("+5", 5), ("-5", -5), ("007", 7), (str(2**63 - 1), 2**63 - 1)])
def test_signs_and_zeros_in_front_are_read(raw: str, value: int) -> None:
    assert Environment({"ISTIO_CPU_LIMIT": raw}).number("ISTIO_CPU_LIMIT") == value


def test_a_key_in_the_place_of_its_format_stays_out_of_the_warning() -> None:
    (warning,) = Environment({"PKCS8_KEY": "MIIEvQIBADANBg"}).warnings
    assert warning == "PKCS8_KEY=(hidden) is not a boolean: using the default, false"


def test_the_raw_value_is_there_for_any_name() -> None:
    environment = Environment({"SOMETHING_ELSE": "x"})
    assert environment.raw("SOMETHING_ELSE") == "x"
    assert environment.raw("POD_NAME") is None


def test_a_duration_that_never_ends_is_no_reason_to_end() -> None:
    environment = Environment({"MINIMUM_DRAIN_DURATION": "9" * 400 + "s"})
    assert str(environment.duration("MINIMUM_DRAIN_DURATION")) == "5s"
    assert len(environment.warnings) == 1
