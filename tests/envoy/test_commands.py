"""`pilot-agent bootstrap --check` with the real Envoy: what it accepts, and what it refuses in which words."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.agents import PROJECT
from tests.support.envoy_binary import envoy_binary

COMMAND = (sys.executable, "-m", "pilot_agent.commands.main", "bootstrap", "--check")


def checked(directory: Path, *args: str, **fields: object) -> "subprocess.CompletedProcess[str]":
    config = json.dumps({"binaryPath": str(envoy_binary()), **fields})
    return subprocess.run(
        [*COMMAND, *args],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "PROXY_CONFIG": config, "INSTANCE_IP": "10.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("args", [(), ("--configDir", "mesh"), ("router", "--stockEnvoy")], ids=" ".join)
def test_our_own_bootstrap_is_valid(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = checked(tmp_path, *args)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"bootstrap is valid ({envoy_binary()}, version: ")
    assert list(tmp_path.iterdir()) == []


def test_a_custom_file_with_a_wrong_type_is_refused_with_its_field(tmp_path: Path) -> None:
    custom = tmp_path / "custom.json"
    custom.write_text(json.dumps({"admin": {"profile_path": ["not a text"]}}))
    done = checked(tmp_path, customConfigFile=str(custom))
    assert (done.returncode, done.stdout) == (255, "")
    assert done.stderr.startswith("Error: Envoy refuses the bootstrap (exit code 1): ")
    assert "profile_path" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_override_that_does_not_fit_is_refused_with_its_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    override = tmp_path / "override.json"
    override.write_text('{"admin": {"address": "nowhere"}}')
    monkeypatch.setenv("ISTIO_BOOTSTRAP_OVERRIDE", str(override))
    done = checked(tmp_path)
    assert done.returncode == 255
    assert "address" in done.stderr


def test_istios_own_parts_are_refused_by_this_envoy_when_they_are_kept(tmp_path: Path) -> None:
    done = checked(
        tmp_path, "--stockEnvoy=false", tracing={"lightstep": {"address": "a.b:80", "accessToken": "secret"}}
    )
    assert done.returncode == 255
    assert "lightstep" in done.stderr
    assert "secret" not in done.stderr
