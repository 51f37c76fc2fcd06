"""A stock Envoy refuses what an unmodified istiod pushes, and takes it once Istio's parts are out of it."""

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf import json_format

from pilot_agent.envoy.build import extensions_argv, read_build
from pilot_agent.xds.stock import StockFilter
from tests.support.envoy_binary import envoy_binary
from tests.support.pushed import CLUSTER, LISTENER, cluster, listener
from tests.support.recorded_log import RecordedLog


@pytest.fixture(scope="module")
def binary() -> Path:
    return envoy_binary()


@pytest.fixture
def stock(binary: Path) -> StockFilter:
    """Told what is missing by what the binary itself lists."""
    answer = subprocess.run(extensions_argv(binary), capture_output=True, text=True, check=True, timeout=30)
    build = read_build(binary, answer.stderr)
    assert build.is_known
    return StockFilter(lambda name: name not in build.extensions, Counter(), RecordedLog().scope)


def verdict(binary: Path, directory: Path, listeners: list[Any], clusters: list[Any]) -> tuple[int, str]:
    """Exit code and log of a validation. The bootstrap is binary: JSON can't name messages this Envoy doesn't know."""
    sds = {
        "name": "sds",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    bootstrap: Any = json_format.ParseDict(
        {"node": {"id": "a", "cluster": "b"}, "static_resources": {"clusters": [sds]}}, bootstrap_pb2.Bootstrap()
    )
    bootstrap.static_resources.listeners.extend(listeners)
    bootstrap.static_resources.clusters.extend(clusters)
    path = directory / "bootstrap.pb"
    path.write_bytes(bootstrap.SerializeToString())
    argv = [str(binary), "--mode", "validate", "-c", str(path), "-l", "error"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr


def inbound() -> Any:
    return cluster_pb2.Cluster(name="inbound|8080||", type=cluster_pb2.Cluster.STATIC)


def test_a_listener_of_istiods_is_refused_and_accepted_after_the_filter(
    binary: Path, stock: StockFilter, tmp_path: Path
) -> None:
    pushed = listener()
    code, log = verdict(binary, tmp_path, [pushed], [inbound()])
    assert code != 0
    assert "Didn't find a registered implementation for 'istio." in log
    left = listener_pb2.Listener.FromString(stock.resource(LISTENER, pushed.SerializeToString()))
    assert verdict(binary, tmp_path, [left], [inbound()]) == (0, "")


def test_a_cluster_of_istiods_is_refused_and_accepted_after_the_filter(
    binary: Path, stock: StockFilter, tmp_path: Path
) -> None:
    pushed = cluster()
    code, log = verdict(binary, tmp_path, [], [pushed])
    assert code != 0
    assert "Didn't find a registered" in log
    left = cluster_pb2.Cluster.FromString(stock.resource(CLUSTER, pushed.SerializeToString()))
    assert verdict(binary, tmp_path, [], [left]) == (0, "")


def test_overrides_of_a_filter_that_is_not_there_are_refused_too(
    binary: Path, stock: StockFilter, tmp_path: Path
) -> None:
    """It is not enough to take the filters out of the chain: the routes of a listener name them again."""
    code, log = verdict(binary, tmp_path, [with_overrides_only()], [inbound()])
    assert code != 0
    assert "istio.stats" in log


def with_overrides_only() -> Any:
    made = listener(is_stock=True)
    packed = made.filter_chains[0].filters[0].typed_config
    manager = http_connection_manager_pb2.HttpConnectionManager.FromString(packed.value)
    original = listener().filter_chains[0].filters[1].typed_config.value
    manager.route_config.CopyFrom(http_connection_manager_pb2.HttpConnectionManager.FromString(original).route_config)
    packed.value = manager.SerializeToString()
    return made
