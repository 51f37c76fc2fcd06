"""Whole bootstraps, compared with the documents in tests/golden, each of which the real Envoy accepts.

After a wanted change of the template, write them anew with PILOT_AGENT_UPDATE_GOLDEN=1 and read the difference:
the tests then fail once for each document that changed.
"""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pilot_agent.bootstrap.validate import validation_argv
from tests.support.envoy_binary import envoy_binary
from tests.unit.bootstrap.documents import LOCAL_FILES, context_of, rendered
from tests.unit.settings.told import told

GOLDEN = Path(__file__).resolve().parents[2] / "golden"

# As it was at the start of this process: tests run in an environment that has been emptied.
UPDATE = b"PILOT_AGENT_UPDATE_GOLDEN=1" in Path("/proc/self/environ").read_bytes().split(b"\0")

POD = {
    "POD_NAME": "web-0",
    "POD_NAMESPACE": "shop",
    "SERVICE_ACCOUNT": "web",
    "ISTIO_META_CLUSTER_ID": "Kubernetes",
    "ISTIO_META_WORKLOAD_NAME": "web",
    "ISTIO_METAJSON_LABELS": '{"app": "web", "istio-locality": "region.zone.rack"}',
}


class Case(NamedTuple):
    config: dict[str, Any]
    addresses: tuple[str, ...] = ("10.1.2.3",)
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed


CASES = {
    "mesh": Case({}, settings={"env": POD}),
    "local": Case(
        {"configPath": "/run/proxy", "extraStatTags": ["shop"], "runtimeValues": {"mine": "true"}},
        settings={"config_dir": "mesh"},
    ),
    "mesh-json-log": Case(
        {
            "concurrency": 2,
            "proxyMetadata": {"ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": "10000"},
            "proxyStatsMatcher": {"inclusionPrefixes": ["listener.{pod_ip}_80"], "inclusionRegexps": ["a'b\"c.*"]},
            "statsCompression": False,
        },
        settings={
            "env": POD
            | {
                "ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL": "true",
                "EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true",
                "ISTIO_DELTA_XDS": "false",
            },
            "log_as_json": True,
            "role": "router",
            "outlier_log_path": "/dev/stdout",
        },
    ),
    "dual-stack": Case({}, ("fd00::5", "10.1.2.3"), {"env": POD | {"ISTIO_DUAL_STACK": "true"}}),
    "ipv6": Case({}, ("fd00::5",), {"env": POD}),
}


def golden(name: str) -> Path:
    return GOLDEN / f"bootstrap-{name}.json"


@pytest.mark.parametrize("name", CASES)
def test_the_bootstrap_is_the_golden_one(name: str) -> None:
    case = CASES[name]
    document = rendered(case.config, case.addresses, **case.settings)
    text = json.dumps(document, indent=2) + "\n"
    if UPDATE and (not golden(name).exists() or golden(name).read_text() != text):
        golden(name).write_text(text)
        pytest.fail(f"{golden(name).name} was written anew: look at what changed")
    assert document == json.loads(golden(name).read_text())


@pytest.mark.parametrize("name", CASES)
def test_keys_come_in_istios_order(name: str) -> None:
    wanted = (
        "application_log_config node layered_runtime bootstrap_extensions stats_config admin dynamic_resources "
        "static_resources overload_manager cluster_manager deferred_stat_options"
    ).split()
    case = CASES[name]
    document = rendered(case.config, case.addresses, **case.settings)
    assert list(document) == [key for key in wanted if key in document]
    assert set(wanted) - set(document) <= {"cluster_manager"}


@pytest.mark.parametrize("name", CASES)
def test_envoy_accepts_the_golden_bootstrap(name: str, tmp_path: Path) -> None:
    binary = envoy_binary()
    text = golden(name).read_text()
    for kind in ("lds", "cds"):
        directory = tmp_path / kind
        directory.mkdir()
        (directory / f"{kind}.json").write_text('{"resources": []}')
        text = text.replace(f"{Path(LOCAL_FILES.lds_directory).parent}/{kind}", str(directory))
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_text(text)
    argv = validation_argv([str(binary), "-c", str(bootstrap), "-l", "warning", "--skip-deprecated-logs"])
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"configuration '{bootstrap}' OK" in done.stdout


def test_every_golden_bootstrap_belongs_to_a_case() -> None:
    assert sorted(GOLDEN.glob("bootstrap-*.json")) == sorted(map(golden, CASES))


def test_the_inputs_are_the_same_on_every_machine() -> None:
    """Nothing of this host may get into the documents: rendered from the same inputs, twice the same."""
    settings = told(env=POD)
    assert context_of(settings) == context_of(settings)
