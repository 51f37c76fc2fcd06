"""Which source wins, which is named, and what ends the agent."""

import json
from pathlib import Path
from typing import Any

import pytest

from pilot_agent.errors import SettingsError
from pilot_agent.settings.model import MeshSettings, ProxyFlags, Settings
from pilot_agent.settings.sources import (
    CONFIG_ANNOTATION,
    DISCOVERY_ANNOTATION,
    STATUS_PORT_ANNOTATION,
    load,
    read_mesh_file,
)
from pilot_agent.values import Duration
from tests.unit.settings.told import NO_MESH_FILE, told


def with_mesh_file(
    directory: Path, text: str, variables: dict[str, str] | None = None, annotations: dict[str, str] | None = None
) -> Settings:
    path = directory / "mesh"
    path.write_text(text)
    return load(ProxyFlags(mesh_config=str(path)), variables or {}, annotations or {})


def test_each_source_lies_above_the_one_before(tmp_path: Path) -> None:
    mesh = "defaultConfig: {statusPort: 1, proxyAdminPort: 1, concurrency: 1, meshId: file}"
    environment = {"PROXY_CONFIG": "{statusPort: 2, proxyAdminPort: 2, concurrency: 2}"}
    annotations = {CONFIG_ANNOTATION: "{statusPort: 3, concurrency: 3}", STATUS_PORT_ANNOTATION: "4"}
    config = with_mesh_file(tmp_path, mesh, environment, annotations).proxy_config
    shown = {name: (config.values[name], config.sources[name]) for name in config.values}
    assert shown["statNameLength"] == (189, "default")
    assert shown["meshId"] == ("file", f"mesh file {tmp_path}/mesh")
    assert shown["proxyAdminPort"] == (2, "PROXY_CONFIG")
    assert shown["concurrency"] == (3, f"annotation {CONFIG_ANNOTATION}")
    assert shown["statusPort"] == (4, f"annotation {STATUS_PORT_ANNOTATION}")


def test_flags_lie_above_the_documents() -> None:
    settings = told({"concurrency": 3, "proxyBootstrapTemplatePath": "/a"}, concurrency=7, template_file="/b")
    config = settings.proxy_config
    assert (config.concurrency, config.sources["concurrency"]) == (7, "flag --concurrency")
    assert (config.template_path, config.sources["proxyBootstrapTemplatePath"]) == ("/b", "flag --templateFile")
    assert settings.warnings == ("--concurrency is a legacy flag: set concurrency in the proxy configuration instead",)


@pytest.mark.parametrize(
    ("config", "limit", "flag", "concurrency", "source"),
    [
        ({}, None, 0, None, None),
        ({}, "0", 0, None, None),
        ({}, "4", 0, 4, "ISTIO_CPU_LIMIT"),
        ({"concurrency": 0}, "4", 0, 0, "PROXY_CONFIG"),
        ({"concurrency": 2}, "4", 0, 2, "PROXY_CONFIG"),
        ({"concurrency": 2}, "4", 8, 8, "flag --concurrency"),
        ({}, "4", 8, 8, "flag --concurrency"),
    ],
)
def test_concurrency(
    config: dict[str, Any], limit: str | None, flag: int, concurrency: int | None, source: str | None
) -> None:
    found = told(config, env={} if limit is None else {"ISTIO_CPU_LIMIT": limit}, concurrency=flag).proxy_config
    assert (found.concurrency, found.sources.get("concurrency")) == (concurrency, source)


def test_a_custom_config_file_makes_the_template_flag_void() -> None:
    config = told({"customConfigFile": "/c"}, template_file="/t").proxy_config
    assert (config.template_path, config.custom_config_file) == ("", "/c")


def test_the_service_cluster_flag_counts_only_for_an_explicitly_empty_name() -> None:
    assert told(service_cluster="flag").proxy_config.service_cluster == "istio-proxy"
    assert told({"serviceCluster": "mine"}, service_cluster="flag").proxy_config.service_cluster == "mine"
    given = told({"serviceCluster": ""}, service_cluster="flag").proxy_config
    assert (given.service_cluster, given.sources["serviceCluster"]) == ("flag", "flag --serviceCluster")
    traced = told({"tracingServiceName": "CANONICAL_NAME_ONLY"}, service_cluster="flag").proxy_config
    assert traced.service_cluster == ""


# Annotations that come last


def test_the_discovery_annotation() -> None:
    config = told({"discoveryAddress": "a:1"}, annotations={DISCOVERY_ANNOTATION: "[::1]:2"}).proxy_config
    assert (config.discovery_address.host, config.discovery_address.port) == ("::1", 2)
    assert config.sources["discoveryAddress"] == f"annotation {DISCOVERY_ANNOTATION}"
    assert told({"discoveryAddress": "a:1"}, annotations={DISCOVERY_ANNOTATION: ""}).proxy_config.values[
        "discoveryAddress"
    ] == ("a:1")


@pytest.mark.parametrize(
    ("annotations", "error"),
    [
        ({STATUS_PORT_ANNOTATION: "http"}, f"annotation {STATUS_PORT_ANNOTATION}: 'http' is not a port number"),
        ({STATUS_PORT_ANNOTATION: ""}, f"annotation {STATUS_PORT_ANNOTATION}: '' is not a port number"),
        ({STATUS_PORT_ANNOTATION: "²"}, f"annotation {STATUS_PORT_ANNOTATION}: '²' is not a port number"),
        (
            {STATUS_PORT_ANNOTATION: "0"},
            f"failed to get proxy config: statusPort (from annotation {STATUS_PORT_ANNOTATION}): "
            "0 is not a port: ports go from 1 to 65535",
        ),
        (
            {DISCOVERY_ANNOTATION: "nowhere"},
            f"failed to get proxy config: discoveryAddress (from annotation {DISCOVERY_ANNOTATION}): "
            "'nowhere' is not an address: write host:port",
        ),
        ({CONFIG_ANNOTATION: "a: b: c"}, f"annotation {CONFIG_ANNOTATION}: not valid YAML: line 1, column 5: "),
        (
            {CONFIG_ANNOTATION: "statusPort: x"},
            f"annotation {CONFIG_ANNOTATION}: statusPort: 'x' is not an integer",
        ),
    ],
)
def test_a_bad_annotation_is_fatal_and_named(annotations: dict[str, str], error: str) -> None:
    with pytest.raises(SettingsError) as refused:
        told(annotations=annotations)
    assert str(refused.value).startswith(error)


# The mesh file


def test_a_missing_mesh_file_is_no_error(tmp_path: Path) -> None:
    assert read_mesh_file(str(tmp_path / "no" / "mesh")) == {}


def test_a_mesh_file_that_cannot_be_read_is_fatal(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read: Is a directory"):
        read_mesh_file(str(tmp_path))
    (tmp_path / "mesh").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="can't be read: 'utf-8' codec can't decode"):
        read_mesh_file(str(tmp_path / "mesh"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("defaultConfig: x", "defaultConfig: expected a mapping, got 'x'"),
        ("default_config: [1]", "defaultConfig: expected a mapping, got [1]"),
        ("defaultConfig: {statusPort: x}", "statusPort: 'x' is not an integer"),
        ("proxyListenPort: 0", "proxyListenPort: 0 is not a port: ports go from 1 to 65535"),
        ("proxy_listen_port: 70000", "proxyListenPort: 70000 is not a port: ports go from 1 to 65535"),
        ("proxyInboundListenPort: x", "proxyInboundListenPort: 'x' is not a port number"),
        ("accessLogFile: 5", "accessLogFile: 5 is not a path"),
        ("- a", "expected a mapping of fields, got list"),
    ],
)
def test_a_bad_mesh_file_is_fatal_and_named(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(SettingsError) as refused:
        with_mesh_file(tmp_path, text)
    assert str(refused.value) == f"mesh file {tmp_path}/mesh: {error}"


@pytest.mark.parametrize("name", ["defaultConfig", "default_config"])
def test_the_default_config_of_the_mesh_file(tmp_path: Path, name: str) -> None:
    assert with_mesh_file(tmp_path, f"{name}: {{status_port: 16020}}").proxy_config.status_port == 16020
    assert with_mesh_file(tmp_path, f"{name}:").proxy_config.status_port == 15020


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", MeshSettings(15001, 15006, "")),
        (
            "proxyListenPort: 1\nproxyInboundListenPort: '2'\naccessLogFile: /dev/stdout",
            MeshSettings(1, 2, "/dev/stdout"),
        ),
        ("proxy_listen_port: 1\nproxy_inbound_listen_port: 2\naccess_log_file: /x", MeshSettings(1, 2, "/x")),
        ("proxyListenPort: null\nproxyInboundListenPort:", MeshSettings(15001, 15006, "")),
        ("trustDomain: example.com\nrootNamespace: x", MeshSettings(root_namespace="x")),
        ("outboundTrafficPolicy: {mode: REGISTRY_ONLY}", MeshSettings(outbound_policy="REGISTRY_ONLY")),
        ("enableAutoMtls: false", MeshSettings(has_auto_mtls=False)),
        ("accessLogFormat: '%REQ(:PATH)%'", MeshSettings(access_log_format="%REQ(:PATH)%\n")),
        (
            'accessLogEncoding: JSON\naccessLogFormat: \'{"path": "%REQ(:PATH)%"}\'',
            MeshSettings(access_log_is_json=True, access_log_format={"path": "%REQ(:PATH)%"}),
        ),
    ],
)
def test_what_local_mode_takes_from_the_mesh_file(tmp_path: Path, text: str, expected: MeshSettings) -> None:
    assert with_mesh_file(tmp_path, text).mesh == expected


# The rest


@pytest.mark.parametrize("role", ["sidecar", "router", "waypoint"])
def test_roles(role: str) -> None:
    assert told(role=role).is_sidecar == (role == "sidecar")


@pytest.mark.parametrize("role", ["ztunnel", "", "Sidecar"])
def test_other_roles_are_refused(role: str) -> None:
    with pytest.raises(SettingsError) as refused:
        told(role=role)
    assert str(refused.value) == f"invalid proxy Type: {role}; use one of sidecar, router, waypoint"


def test_warnings_of_every_source_are_kept_in_order(tmp_path: Path) -> None:
    settings = told(
        "{unheardOf: 1}",
        env={"ISTIO_DELTA_XDS": "maybe"},
        annotations={CONFIG_ANNOTATION: "{statusPortt: 1}"},
        sts_port=5,
        token_manager_plugin="x",
    )
    assert settings.warnings == (
        "ISTIO_DELTA_XDS='maybe' is not a boolean: using the default, true",
        "PROXY_CONFIG: unknown ProxyConfig field 'unheardOf' is ignored",
        f"annotation {CONFIG_ANNOTATION}: unknown ProxyConfig field 'statusPortt' is ignored; did you mean statusPort?",
        "--stsPort only becomes node metadata: there is no STS server any more",
        "--tokenManagerPlugin has no effect",
    )


@pytest.mark.parametrize(
    ("flags", "env", "ends", "minimum"),
    [
        ({}, {}, False, 5),
        ({}, {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true"}, True, 5),
        ({}, {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true", "MINIMUM_DRAIN_DURATION": "1s"}, True, 1),
        ({"config_dir": "d"}, {}, True, 0),
        ({"config_dir": "d"}, {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "false"}, False, 0),
        ({"config_dir": "d"}, {"MINIMUM_DRAIN_DURATION": "2s"}, True, 2),
    ],
)
def test_how_a_drain_ends(flags: dict[str, Any], env: dict[str, str], ends: bool, minimum: int) -> None:
    settings = told(env=env, **flags)
    assert settings.ends_on_zero_connections is ends
    assert settings.minimum_drain == Duration.of(minimum)
    assert settings.is_local == bool(flags)


def test_the_domain_follows_the_namespace_unless_a_flag_says_otherwise() -> None:
    assert told().domain == ".svc.cluster.local"
    assert told(env={"POD_NAMESPACE": "shop"}).domain == "shop.svc.cluster.local"
    assert told(env={"POD_NAMESPACE": "shop"}, domain="example.com").domain == "example.com"


# Worker threads


def threads(config: dict[str, Any], limit: str = "", flag: int = 0) -> tuple[int | None, str]:
    """Concurrency and its source, where the cgroup allows 3."""
    env = {"PROXY_CONFIG": json.dumps(config), **({"ISTIO_CPU_LIMIT": limit} if limit else {})}
    flags = ProxyFlags(mesh_config=NO_MESH_FILE, concurrency=flag)
    found = load(flags, env, {}, cpu_allowance=lambda: (3, "cgroup: CPU quota")).proxy_config
    return found.concurrency, found.sources.get("concurrency", "default")


@pytest.mark.parametrize(
    ("config", "limit", "flag", "wanted"),
    [
        ({}, "", 0, (3, "cgroup: CPU quota")),
        ({}, "0", 0, (3, "cgroup: CPU quota")),
        ({}, "2", 0, (2, "ISTIO_CPU_LIMIT")),
        ({"concurrency": 0}, "2", 0, (0, "PROXY_CONFIG")),
        ({"concurrency": 4}, "2", 0, (4, "PROXY_CONFIG")),
        ({"concurrency": 4}, "2", 5, (5, "flag --concurrency")),
        ({}, "", -1, (-1, "flag --concurrency")),
    ],
)
def test_what_decides_the_number_of_worker_threads(
    config: dict[str, Any], limit: str, flag: int, wanted: tuple[int, str]
) -> None:
    assert threads(config, limit, flag) == wanted


def test_without_any_limit_the_number_stays_unset() -> None:
    assert told().proxy_config.concurrency is None


def test_all_cpus_although_the_container_may_use_fewer_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    said = told({"concurrency": 0}, env={"ISTIO_CPU_LIMIT": "2"})
    assert any("container may use 2 (ISTIO_CPU_LIMIT)" in warning for warning in said.warnings)
    assert not told({"concurrency": 0}, env={"ISTIO_CPU_LIMIT": "8"}).warnings
    assert not told(env={"ISTIO_CPU_LIMIT": "2"}).warnings
