"""Resources as JSON: the names protobuf itself gives them, and keys of data as they are."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format

from pilot_agent.inspect import config_dump, documents
from pilot_agent.inspect.config_dump import Dump
from pilot_agent.inspect.fields import Message
from tests.support.dumps import recorded

_TYPES = """
config.accesslog.v3.accesslog config.bootstrap.v3.bootstrap config.cluster.v3.cluster config.listener.v3.listener
config.route.v3.route extensions.access_loggers.file.v3.file
extensions.compression.brotli.compressor.v3.brotli extensions.compression.gzip.compressor.v3.gzip
extensions.compression.zstd.compressor.v3.zstd extensions.filters.http.compressor.v3.compressor
extensions.filters.http.cors.v3.cors extensions.filters.http.fault.v3.fault
extensions.filters.http.grpc_stats.v3.config extensions.filters.http.router.v3.router
extensions.filters.listener.http_inspector.v3.http_inspector
extensions.filters.listener.original_dst.v3.original_dst extensions.filters.listener.tls_inspector.v3.tls_inspector
extensions.filters.network.http_connection_manager.v3.http_connection_manager
extensions.filters.network.tcp_proxy.v3.tcp_proxy extensions.request_id.uuid.v3.uuid
extensions.resource_monitors.downstream_connections.v3.downstream_connections
extensions.retry.host.previous_hosts.v3.previous_hosts extensions.transport_sockets.raw_buffer.v3.raw_buffer
extensions.transport_sockets.tls.v3.tls extensions.upstreams.http.v3.http_protocol_options
"""
"""The modules of every message in the recorded dump; protobuf must know them to read an Any."""


@pytest.fixture(scope="module")
def messages() -> dict[str, Any]:
    modules = {name.rpartition(".")[2]: importlib.import_module(f"envoy.{name}_pb2") for name in _TYPES.split()}
    importlib.import_module("udpa.type.v1.typed_struct_pb2")
    return {
        "clusters": modules["cluster"].Cluster,
        "listeners": modules["listener"].Listener,
        "routes": modules["route"].RouteConfiguration,
        "bootstrap": modules["bootstrap"].Bootstrap,
    }


def bootstraps(dump: Dump) -> list[Message]:
    return [dump.section("BootstrapConfigDump")["bootstrap"]]


@pytest.mark.parametrize(
    ("kind", "resources"),
    [
        ("clusters", config_dump.clusters),
        ("listeners", config_dump.listeners),
        ("routes", config_dump.routes),
        ("bootstrap", bootstraps),
    ],
)
def test_the_names_are_protobufs_own(
    kind: str, resources: Callable[[Dump], list[Message]], messages: dict[str, Any]
) -> None:
    found = resources(config_dump.parse(recorded("config_dump.json").encode(), "it"))
    for each in map(documents.without_type, found):
        expected = json_format.MessageToDict(json_format.ParseDict(each, messages[kind]()))
        assert documents.renamed(each) == expected
    assert found


@pytest.mark.parametrize(
    "kept",
    [
        {"filterMetadata": {"istio": {"some_key": {"other_key": 1}}}},
        {"transportSocketMatches": [{"name": "a", "match": {"tls_mode": "istio"}}]},
        {"typedPerFilterConfig": {"envoy.filters.http.a_b": {"@type": "x", "statPrefix": "y"}}},
        {"typedConfig": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "value": {"a_b": 1}}},
        {"rules": {"policies": {"ns[a_b]-policy[c_d]": {"principals": []}}}},
        {"keyValues": {"SOME_NAME": "x"}, "staticLayer": {"envoy.a_b": True}, "attributes": {"a_b": "c"}},
        {"logFormat": {"jsonFormat": {"start_time": "%START_TIME%"}}},
        {"node": {"metadata": {"ISTIO_VERSION": "1", "a_b": {"c_d": 1}}}},
        {"exactMatchMap": {"map": {"10.0.0.1_x": {"action": {"name": "a_b"}}}}},
    ],
    ids=lambda kept: next(iter(kept)),
)
def test_keys_that_are_data_stay(kept: dict[str, Any]) -> None:
    def snake(value: Any) -> Any:
        if isinstance(value, list):
            return [snake(each) for each in value]
        if not isinstance(value, dict):
            return value
        return {
            "".join(f"_{c.lower()}" if c.isupper() else c for c in k) if k[0].islower() else k: snake(v)
            for k, v in value.items()
        }

    assert documents.renamed(snake(kept)) == kept


def test_fields_of_the_same_names_elsewhere_are_fields() -> None:
    tag = {"custom_tags": [{"metadata": {"metadata_key": {"key": "a_b"}}}], "match": {"safe_regex": {}}}
    assert documents.renamed(tag) == {
        "customTags": [{"metadata": {"metadataKey": {"key": "a_b"}}}],
        "match": {"safeRegex": {}},
    }


def test_yaml_says_the_same_as_json() -> None:
    import yaml

    value = [{"name": "on", "weight": 1, "ok": True, "text": "grüße\n", "@type": "x", "long": "y" * 300}]
    assert yaml.safe_load(documents.as_yaml(value)) == value
    assert "grüße" in documents.as_json(value)
