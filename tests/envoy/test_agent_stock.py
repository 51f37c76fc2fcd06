"""A stock Envoy under an unmodified istiod, through the agent: it serves, and hears of nothing it can't load."""

from collections.abc import Callable
from typing import Any

import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from google.protobuf import json_format

from tests.support import pushed
from tests.support.agents import AgentProcess
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS, LDS, RDS, cluster, listener, route
from tests.support.fake_istiod import FakeIstiod
from tests.support.meshes import get, in_mesh, one_service, xds
from tests.support.ports import free_port

MakeAgent = Callable[..., AgentProcess]
LISTENER = "envoy.config.listener.v3.Listener"


def as_istiod_has_it(port: int, *more: Any) -> Any:
    """The listener of `one_service` with Istio's own filters in it."""
    made = listener("app-listener", port, "app-route")
    packed = made.filter_chains[0].filters[0].typed_config
    manager = hcm.HttpConnectionManager.FromString(packed.value)
    own = [json_format.ParseDict(each, hcm.HttpFilter()) for each in (pushed.http_metadata(), pushed.stats())]
    own.append(hcm.HttpFilter(name="istio.alpn", typed_config=pushed.ALPN))
    filters = [*own, *more, *manager.http_filters]
    del manager.http_filters[:]
    manager.http_filters.extend(filters)
    packed.value = manager.SerializeToString()
    return made


def with_metadata_exchange(name: str) -> Any:
    made = cluster(name)
    made.filters.add(name="istio.metadata_exchange").typed_config.CopyFrom(pushed.cluster().filters[0].typed_config)
    return made


@pytest.mark.parametrize("is_delta", ["true", "false"])
def test_it_serves_what_an_unmodified_istiod_pushes(
    agent: MakeAgent, istiod: FakeIstiod, app: int, is_delta: str
) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    istiod.ads.set(CDS, "app", with_metadata_exchange("app"))
    istiod.ads.set(LDS, "app-listener", as_istiod_has_it(port))
    running = in_mesh(agent, istiod, ISTIO_DELTA_XDS=is_delta).start().until_ready()
    assert get(port) == "one"
    assert istiod.ads.nacks(LDS) == istiod.ads.nacks(CDS) == []
    told = xds(running)["left_out"]
    assert told.items() >= {"HTTP peer metadata": 1, "telemetry": 1, "ALPN override": 1}.items()
    assert told["TCP metadata exchange"] >= 1
    assert running.metric('istio_agent_xds_left_out_total{part="telemetry"}') == 1
    assert len(running.lines("istio.stats (stats.PluginConfig) is left out")) == 1
    overridden = route("app-route", cluster="app")
    overridden.virtual_hosts[0].routes[0].typed_per_filter_config["istio.stats"].CopyFrom(
        pushed.routes().typed_per_filter_config["istio.stats"]
    )
    istiod.ads.set(RDS, "app-route", overridden)
    eventually(lambda: xds(running)["left_out"]["telemetry"] == 2)
    assert get(port) == "one"
    assert istiod.ads.nacks(RDS) == []
    assert len(running.lines("is left out")) == 4, "each thing once, however often it comes"
    assert running.stop() == 0


def test_switched_off_envoy_gets_all_of_it_and_refuses(agent: MakeAgent, istiod: FakeIstiod, app: int) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    istiod.ads.set(LDS, "app-listener", as_istiod_has_it(port))
    running = in_mesh(agent, istiod)
    running.flags = ("--stockEnvoy=false",)
    running.start()
    eventually(lambda: istiod.ads.nacks(LDS), within=15)
    assert xds(running)["left_out"] == {}
    assert "istio." in xds(running)["streams"][0]["types"][LISTENER]["nack"]
    assert running.stop() == 0


def test_what_guards_traffic_is_refused_and_the_listener_before_it_serves_on(
    agent: MakeAgent, istiod: FakeIstiod, app: int
) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    running = in_mesh(agent, istiod).start().until_ready()
    invented = hcm.HttpFilter(name="guard")
    invented.typed_config.type_url = "type.googleapis.com/io.istio.http.invented.Guard"
    istiod.ads.set(LDS, "app-listener", as_istiod_has_it(port, invented))
    eventually(lambda: xds(running)["streams"][0]["types"][LISTENER]["nack"])
    assert "io.istio.http.invented.Guard" in xds(running)["streams"][0]["types"][LISTENER]["nack"]
    assert get(port) == "one"
    assert running.stop() == 0
