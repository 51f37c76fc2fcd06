"""The bootstrap override: what of a file reaches Envoy's command line, and what is only a warning."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.bootstrap.override import read_override
from pilot_agent.bootstrap.validate import LONGEST_ARGUMENT
from pilot_agent.errors import SettingsError

PROCESS_LOCAL: dict[str, Any] = {"admin": {"address": {"socket_address": {"address": "$(HOST_IP)", "port_value": 1}}}}


def read(path: Path, text: str, host_ip: str = "") -> tuple[Any, list[str]]:
    """The override as a document, None for none; and the warnings."""
    path.write_text(text)
    warnings: list[str] = []
    found = read_override(str(path), host_ip, warnings)
    return (None if found is None else json.loads(found)), warnings


@pytest.mark.parametrize("text", ['{"admin": {"profile_path": "/p"}}', "admin:\n  profile_path: /p\n"])
def test_yaml_and_json_become_json(tmp_path: Path, text: str) -> None:
    assert read(tmp_path / "override", text) == ({"admin": {"profile_path": "/p"}}, [])


def test_nothing_in_the_file_is_no_override(tmp_path: Path) -> None:
    assert read(tmp_path / "override", "  \n") == (None, [])


def test_a_missing_file_is_a_warning_that_names_it(tmp_path: Path) -> None:
    warnings: list[str] = []
    assert read_override(str(tmp_path / "none"), "", warnings) is None
    assert warnings == [
        f"ISTIO_BOOTSTRAP_OVERRIDE is ignored: {tmp_path}/none can't be read: No such file or directory"
    ]


@pytest.mark.parametrize(
    ("text", "reason"), [("[1]", "expected a mapping"), ("a: {b", "not valid YAML"), ("- x", "list")]
)
def test_what_is_no_mapping_is_a_warning(tmp_path: Path, text: str, reason: str) -> None:
    document, warnings = read(tmp_path / "override", text)
    assert document is None
    assert len(warnings) == 1
    assert str(tmp_path / "override") in warnings[0]
    assert reason in warnings[0]


@pytest.mark.parametrize(
    ("host_ip", "text", "shown"),
    [
        ("10.0.0.1", "$(HOST_IP)", "10.0.0.1"),
        ("10.0.0.1", "tcp://$(HOST_IP):80", "tcp://10.0.0.1:80"),
        ("fd00::1", "$(HOST_IP)", "fd00::1"),
        ("[fd00::1]", "$(HOST_IP)", "fd00::1"),
        ("fd00::1", "$(HOST_IP):80", "[fd00::1]:80"),
        ("fd00::1", "[$(HOST_IP)]:80", "[fd00::1]:80"),
        ("", "$(HOST_IP):80", "$(HOST_IP):80"),
    ],
)
@pytest.mark.parametrize("as_yaml", [False, True])
def test_the_hosts_address_is_put_in(tmp_path: Path, host_ip: str, text: str, shown: str, as_yaml: bool) -> None:
    written = f"a:\n- b: {text}\n" if as_yaml and not text.startswith("[") else json.dumps({"a": [{"b": text}]})
    assert read(tmp_path / "override", written, host_ip) == ({"a": [{"b": shown}]}, [])


def test_one_too_long_for_a_command_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"too many for a command line.*use a template of your own"):
        read(tmp_path / "override", json.dumps({"a": "x" * LONGEST_ARGUMENT}))


texts = st.text(st.characters(codec="utf-8"), max_size=20)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)
)


@given(st.dictionaries(texts, documents, min_size=1))
def test_any_json_object_goes_through_unchanged(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "override-of-a-property"
    assert read(path, json.dumps(value)) == (value, [])
