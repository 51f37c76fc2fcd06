"""What a bootstrap template sees: the tags and patterns of statistics, runtime flags, limits, address families."""

from typing import Any

import pytest

from pilot_agent.bootstrap.runtime import CONNECTION_LIMIT_KEY, RUNTIME_DEFAULTS, UNLIMITED_CONNECTIONS
from pilot_agent.bootstrap.stats import REQUIRED_PREFIXES, REQUIRED_REGEXPS, REQUIRED_SUFFIXES
from pilot_agent.errors import SettingsError
from tests.unit.bootstrap.documents import LOCAL_FILES, context

# Statistics


def tags(extra: list[str] | None = None) -> dict[str, str]:
    found = context({"extraStatTags": extra or []})["stats_tags"]
    assert len({tag["tag_name"] for tag in found}) == len(found)
    return {tag["tag_name"]: tag["regex"] for tag in found}


def test_tags_in_istios_order() -> None:
    assert (
        list(tags())
        == (
            "cluster_name http_conn_manager_prefix thread_name tcp_prefix response_code response_code_class "
            "http_conn_manager_listener_prefix listener_address mongo_prefix "
            "cache component tag wasm_filter authz_enforce_result authz_dry_run_action authz_dry_run_result"
        ).split()
    )


def test_regular_expressions_of_tags_are_istios() -> None:
    found = tags()
    assert found["cluster_name"] == r"^cluster(\.(.+);)"
    assert found["http_conn_manager_prefix"] == (
        r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)"
    )
    assert found["listener_address"] == r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"
    assert found["authz_dry_run_action"] == r"(\.istio_dry_run_(allow|deny)_)"


def test_extra_tags_come_between_envoys_and_istios_own() -> None:
    found = tags(["mine", " yours ", "", "  ", "mine"])
    assert list(found)[9:11] == ["mine", "yours"]
    assert list(found)[8] == "mongo_prefix"
    assert list(found)[11] == "cache"
    assert found["yours"] == r"(yours=\.=(.*?);\.;)"


def patterns(
    matcher: dict[str, list[str]] | None = None,
    addresses: tuple[str, ...] = ("10.1.2.3",),
    env: dict[str, str] | None = None,
) -> list[tuple[str, str]]:
    """Pairs of kind and text."""
    found = context({"proxyStatsMatcher": matcher or {}}, addresses, env=env)["stats_patterns"]
    flat = []
    for pattern in found:
        ((kind, value),) = pattern.items()
        flat.append((kind, value["regex"] if kind == "safe_regex" else value))
    return flat


def test_patterns_that_are_always_there_in_istios_order() -> None:
    assert patterns() == [
        ("prefix", "reporter="),
        *(("prefix", prefix) for prefix in ("cluster_manager", "listener_manager", "server", "cluster.xds-grpc")),
        ("prefix", "wasm"),
        *(("suffix", suffix) for suffix in ("rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied")),
        ("safe_regex", r"vhost\..*\.route\..*"),
        ("prefix", "component"),
        ("prefix", "istio"),
    ]


def test_configured_patterns_come_before_the_required_ones_of_their_kind() -> None:
    found = patterns({"inclusionPrefixes": ["p1", "p2"], "inclusionSuffixes": ["s"], "inclusionRegexps": ["r.*"]})
    assert found == [
        ("prefix", "reporter="),
        *(("prefix", prefix) for prefix in ("p1", "p2", *REQUIRED_PREFIXES)),
        *(("suffix", suffix) for suffix in ("s", *REQUIRED_SUFFIXES)),
        *(("safe_regex", regexp) for regexp in ("r.*", *REQUIRED_REGEXPS)),
        ("prefix", "component"),
        ("prefix", "istio"),
    ]


def test_the_pods_address_is_put_in_once_for_each() -> None:
    matcher = {"inclusionPrefixes": ["a", "listener.{pod_ip}_80", "b"], "inclusionSuffixes": ["{pod_ip}"]}
    found = patterns(matcher, ("10.1.2.3", "fd00::5"))
    assert found[1:5] == [
        ("prefix", "a"),
        ("prefix", "listener.10.1.2.3_80"),
        ("prefix", "listener.fd00::5_80"),
        ("prefix", "b"),
    ]
    assert [text for kind, text in found if kind == "suffix"][:3] == ["10.1.2.3", "fd00::5", "rbac.allowed"]


def test_without_an_address_such_a_pattern_is_dropped() -> None:
    assert patterns({"inclusionRegexps": ["{pod_ip}", "x"]}, ()) == patterns({"inclusionRegexps": ["x"]}, ())


def test_connections_are_counted_where_a_drain_ends_on_them() -> None:
    counted = ("suffix", "downstream_cx_active")
    assert counted not in patterns()
    found = patterns(env={"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true"})
    assert found.index(counted) == found.index(("suffix", "shadow_denied")) + 1
    local = context(config_dir="mesh")["stats_patterns"]
    assert {"suffix": "downstream_cx_active"} in local


# Runtime


def flags(values: dict[str, str] | None = None, env: dict[str, str] | None = None) -> dict[str, object]:
    found = context({"runtimeValues": values or {}}, env=env)["runtime_flags"]
    assert isinstance(found, dict)
    return found


def test_the_runtime_defaults() -> None:
    assert flags() == {
        "re2.max_program_size.error_level": "32768",
        "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst": True,
        "envoy.reloadable_features.http_reject_path_with_fragment": False,
        "envoy.reloadable_features.fixed_heap_use_allocated": True,
        "envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": False,
    }


def test_runtime_values_of_the_proxy_config() -> None:
    name = "envoy.reloadable_features.fixed_heap_use_allocated"
    found = flags({name: "", "a": "true", "b": "false", "c": "5", "d": "True", "e": "no", "unknown": ""})
    assert found == {
        **{key: value for key, value in RUNTIME_DEFAULTS.items() if key != name},
        "a": True,
        "b": False,
        "c": "5",
        "d": "True",
        "e": "no",
    }
    assert name in RUNTIME_DEFAULTS


@pytest.mark.parametrize(
    ("env", "added"),
    [
        (
            {"COMPLIANCE_POLICY": "fips-140-2"},
            {"envoy.reloadable_features.google_grpc_disable_tls_13": True},
        ),
        ({"COMPLIANCE_POLICY": "pqc"}, {}),
        (
            {"HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED": "false"},
            {"envoy.reloadable_features.http_strip_fragment_from_path_unsafe_if_disabled": "false"},
        ),
        ({"HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED": "true"}, {}),
    ],
)
def test_runtime_flags_of_variables(env: dict[str, str], added: dict[str, object]) -> None:
    assert flags(env=env) == {**RUNTIME_DEFAULTS, **added}


def test_runtime_values_come_over_those_of_variables() -> None:
    name = "envoy.reloadable_features.google_grpc_disable_tls_13"
    assert flags({name: "false"}, {"COMPLIANCE_POLICY": "fips-140-2"})[name] is False


METADATA_LIMIT = {"ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": "20000"}


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({}, UNLIMITED_CONNECTIONS),
        ({"runtimeValues": {CONNECTION_LIMIT_KEY: "5000"}}, 5000),
        ({"proxyMetadata": METADATA_LIMIT}, 20000),
        ({"proxyMetadata": METADATA_LIMIT, "runtimeValues": {CONNECTION_LIMIT_KEY: "5000"}}, 20000),
        ({"connectionSettings": {"globalDownstreamConnectionLimit": 15000}}, 15000),
        (
            {"connectionSettings": {"globalDownstreamConnectionLimit": 25000}, "proxyMetadata": METADATA_LIMIT},
            25000,
        ),
    ],
)
def test_the_limit_of_connections(config: dict[str, Any], limit: int) -> None:
    assert context(config)["global_downstream_max_connections"] == limit


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"proxyMetadata": {**METADATA_LIMIT, "ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": "x"}}, "proxyMetadata"),
        ({"runtimeValues": {CONNECTION_LIMIT_KEY: "-1"}}, "runtimeValues"),
    ],
)
def test_a_limit_that_is_no_number_is_told_with_its_place(config: dict[str, Any], place: str) -> None:
    with pytest.raises(SettingsError, match=rf"{place}\..*: '(x|-1)' is not a number of connections above 0"):
        context(config)


def test_the_limit_of_the_runtime_stays_in_the_runtime() -> None:
    assert flags({CONNECTION_LIMIT_KEY: "5000"})[CONNECTION_LIMIT_KEY] == "5000"


def test_the_bare_variable_is_no_limit() -> None:
    assert context(env=METADATA_LIMIT)["global_downstream_max_connections"] == UNLIMITED_CONNECTIONS


# The rest


@pytest.mark.parametrize(
    ("settings", "addresses", "expected"),
    [
        ({}, ["10.1.2.3"], ("127.0.0.1", "0.0.0.0", "V4_ONLY", None, None)),
        ({}, ["fd00::5"], ("::1", "::", "V6_ONLY", None, None)),
        ({}, ["fd00::5", "10.1.2.3"], ("127.0.0.1", "0.0.0.0", "V4_ONLY", None, None)),
        (
            {"env": {"ISTIO_DUAL_STACK": "true"}},
            ["fd00::5", "10.1.2.3"],
            ("::1", "::", "ALL", "127.0.0.1", "0.0.0.0"),
        ),
    ],
)
def test_address_families(settings: dict[str, Any], addresses: list[str], expected: tuple[str | None, ...]) -> None:
    found = context(None, addresses, **settings)
    names = ("localhost", "wildcard", "dns_lookup_family", "additional_localhost", "additional_wildcard")
    assert tuple(found[name] for name in names) == expected


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, False),
        ({"env": {"ISTIO_META_ENABLE_HBONE": "true"}}, True),
        ({"env": {"ISTIO_META_ENABLE_HBONE": "true", "ISTIO_DELTA_XDS": "false"}}, False),
        ({"env": {"ISTIO_META_ENABLE_HBONE": "true"}, "config_dir": "mesh"}, False),
        ({"role": "waypoint"}, True),
    ],
)
def test_metadata_discovery(settings: dict[str, Any], wanted: bool) -> None:
    assert context(**settings)["metadata_discovery"] is wanted


def test_variables_named_as_istio_documents_them() -> None:
    found = context(
        {"configPath": "/run/proxy/", "statusPort": 1, "proxyAdminPort": 2, "serviceCluster": "mine"},
        env={"POD_NAME": "p", "POD_NAMESPACE": "n", "ISTIO_DELTA_XDS": "false", "ENVOY_STATUS_PORT": "3"},
        role="router",
        outlier_log_path="/o",
        log_as_json=True,
    )
    expected = {
        "nodeID": "router~10.1.2.3~p.n~n.svc.cluster.local",
        "nodeType": "router",
        "cluster": "mine",
        "xds_type": "GRPC",
        "log_json": True,
        "outlier_log_path": "/o",
        "envoy_status_port": 3,
        "envoy_prometheus_port": 15090,
        "local_files": None,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["config"]["configPath"] == "/run/proxy"
    assert (found["config"]["proxyAdminPort"], found["config"]["statusPort"]) == (2, 1)
    assert found["config"]["discoveryAddress"] == "istiod.istio-system.svc:15012"
    assert context()["xds_type"] == "DELTA_GRPC"


def test_local_mode_has_its_files() -> None:
    assert context(config_dir="mesh")["local_files"] == LOCAL_FILES._asdict()


@pytest.mark.parametrize(("value", "wanted"), [("true", True), ("false", False), ("True", False), (None, False)])
def test_metrics_for_the_own_host_only(value: str | None, wanted: bool) -> None:
    metadata = {} if value is None else {"METRICS_LOCALHOST_ACCESS_ONLY": value}
    assert context({"proxyMetadata": metadata})["metrics_localhost_access_only"] is wanted
