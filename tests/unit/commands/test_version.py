"""`pilot-agent version`: Istio's words and key names, and where the values come from."""

import json
import platform
from pathlib import Path

import pytest
import yaml

from pilot_agent import __version__
from pilot_agent.commands.version import BUILD_FILE, BuildInfo, build_info, describe
from tests.unit.commands.runner import run

PYTHON = f"CPython {platform.python_version()}"
CHECKOUT = BuildInfo(__version__, "unknown", PYTHON, "unknown", "unknown")


def test_text_is_istios_dump() -> None:
    fields = f'Version:"{__version__}", GitRevision:"unknown", GolangVersion:"{PYTHON}", BuildStatus:"unknown"'
    assert run("version") == (0, f'client version: version.BuildInfo{{{fields}, GitTag:"unknown"}}\n', "")


def test_short_is_the_number_alone() -> None:
    assert run("version", "-s") == run("version", "--short") == (0, f"{__version__}\n", "")


def test_json_has_istios_keys_in_istios_order() -> None:
    ended = run("version", "-o", "json")
    assert json.loads(ended.out) == {"clientVersion": CHECKOUT._asdict()}
    assert list(json.loads(ended.out)["clientVersion"]) == ["version", "revision", "golang_version", "status", "tag"]
    assert ended.out.startswith('{\n  "clientVersion": {\n    "version": ')
    assert ended.out.endswith("}\n\n")


def test_yaml_has_the_same_values() -> None:
    ended = run("version", "--output=yaml")
    assert yaml.safe_load(ended.out) == {"clientVersion": CHECKOUT._asdict()}


def test_other_outputs_are_refused() -> None:
    ended = run("version", "-o", "xml")
    assert (ended.code, ended.out) == (255, "")
    assert "'xml'" in ended.err


def test_the_build_file_fills_in_what_git_knew(tmp_path: Path) -> None:
    (tmp_path / BUILD_FILE).write_text('{"revision": "abc", "status": "Clean", "tag": "v1"}')
    assert build_info(tmp_path) == BuildInfo(__version__, "abc", PYTHON, "Clean", "v1")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"revision": ""}', "null"])
def test_a_build_file_without_sense_is_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / BUILD_FILE).write_text(content)
    assert build_info(tmp_path) == CHECKOUT


def test_a_version_that_looks_like_a_number_stays_text_in_yaml() -> None:
    info = CHECKOUT._replace(version="1.10", tag="true")
    assert yaml.safe_load(describe(info, "yaml")) == {"clientVersion": info._asdict()}
