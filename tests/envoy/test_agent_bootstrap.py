"""The bootstrap of the mesh form, judged by the real Envoy."""

import subprocess
from pathlib import Path

import pytest

from pilot_agent.bootstrap.validate import validation_argv
from pilot_agent.settings.model import ProxyFlags
from pilot_agent.supervise.desired import Inputs, config_directory, work_out
from tests.support.envoy_binary import envoy_binary

VARIABLES = {"POD_NAME": "app-1", "POD_NAMESPACE": "demo", "INSTANCE_IP": "10.0.0.7", "ISTIO_META_CLUSTER_ID": "one"}


@pytest.mark.parametrize("role", ["sidecar", "router"])
@pytest.mark.parametrize("log_as_json", [False, True], ids=["plain", "json"])
def test_envoy_accepts_the_mesh_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str, log_as_json: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    mesh_file = tmp_path / "mesh"
    mesh_file.write_text(f"defaultConfig: {{binaryPath: {envoy_binary()}}}")
    flags = ProxyFlags(role=role, mesh_config=str(mesh_file))
    desired = work_out(Inputs(flags, VARIABLES, log_as_json))
    assert b'"xds-grpc"' in desired.document and not desired.settings.is_local
    directory = config_directory(desired.settings)
    directory.mkdir(parents=True)
    desired.config_file.write_bytes(desired.document)
    answer = subprocess.run(
        validation_argv(desired.argv), capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path
    )
    assert answer.returncode == 0, answer.stderr
    complaints = [line for line in answer.stderr.splitlines() if "nknown field" in line or "deprecated" in line]
    assert complaints == []
