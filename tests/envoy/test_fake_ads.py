"""A real Envoy straight at the fake istiod's ADS: what the fake sends is what Envoy takes."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.fake_ads import CDS, EDS, LDS, RDS, FakeAds, cluster, endpoints, listener, route
from tests.support.fake_istiod import FakeIstiod, running
from tests.support.ports import free_ports

KINDS = {"sotw": "GRPC", "delta": "DELTA_GRPC"}
NODE_ID = "sidecar~127.0.0.1~test.test~test.svc"
WITHIN_S = 30.0


def bootstrap(admin_port: int, istiod_port: int, kind: str) -> dict[str, Any]:
    http2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": http2, "explicit_http_config": {"http2_protocol_options": {}}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(istiod_port)}}]}
    xds = {
        "name": "xds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [endpoint]},
    }
    source = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    ads = {
        "api_type": KINDS[kind],
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
    }
    return {
        "node": {"id": NODE_ID, "cluster": "test"},
        "admin": {"address": address(admin_port)},
        "dynamic_resources": {"ads_config": ads, "cds_config": source, "lds_config": source},
        "static_resources": {"clusters": [xds]},
    }


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def get(port: int, path: str = "/", host: str = "localhost") -> str:
    """OSError where nobody answers, or not with 200."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"{error.code}: {error.read().decode()}") from None


@contextmanager
def envoy(directory: Path, admin_port: int, istiod_port: int, kind: str) -> Iterator[None]:
    """Live within the block."""
    file = directory / "envoy.json"
    file.write_text(json.dumps(bootstrap(admin_port, istiod_port, kind)))
    argv = [str(envoy_binary()), "-c", str(file), "--disable-hot-restart", "-l", "off", "--concurrency", "1"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: get(admin_port, "/ready") == "LIVE\n", WITHIN_S)
        yield
    finally:
        process.kill()
        process.wait()


class Stand:
    """A fake istiod, an Envoy that `kind` of ADS configures, and two ports for listeners."""

    def __init__(self, istiod: FakeIstiod, directory: Path, kind: str) -> None:
        self.istiod, self.directory, self.kind = istiod, directory, kind
        self.admin_port, self.front, self.behind = free_ports(3)

    @property
    def ads(self) -> FakeAds:
        return self.istiod.ads

    @contextmanager
    def envoy(self) -> Iterator[None]:
        istiod_port = int(self.istiod.address.rpartition(":")[2])
        with envoy(self.directory, self.admin_port, istiod_port, self.kind):
            yield

    def answers(self, text: str, host: str = "localhost") -> None:
        """In time, at the front."""
        eventually(lambda: get(self.front, host=host) == text, WITHIN_S)

    def has_no_nack(self) -> bool:
        return not any(self.ads.nacks(type_url) for type_url in (CDS, EDS, LDS, RDS))


@pytest.fixture(params=KINDS)
def stand(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stand]:
    with running(FakeIstiod(tmp_path, is_plaintext=True)) as istiod:
        yield Stand(istiod, tmp_path, request.param)


def test_envoy_is_live_without_any_resource(stand: Stand) -> None:
    with stand.envoy():
        (stream,) = stand.ads.open_streams()
        assert (stream.kind, stream.frames[0].node.id) == (stand.kind, NODE_ID)
        eventually(lambda: stand.ads.acks(CDS) and stand.ads.acks(LDS))


def test_a_listener_answers_and_follows_pushes(stand: Stand) -> None:
    stand.ads.set(LDS, "front", listener("front", stand.front))
    with stand.envoy():
        stand.answers("front")
        stand.ads.set(LDS, "front", listener("front", stand.front, route("inline", answer="changed")))
        stand.answers("changed")
        stand.ads.set(LDS, "behind", listener("behind", stand.behind))
        eventually(lambda: get(stand.behind) == "behind", WITHIN_S)
        stand.ads.remove(LDS, "behind")
        eventually(lambda: "behind" not in get(stand.admin_port, "/listeners"), WITHIN_S)
        stand.answers("changed")
    assert stand.has_no_nack()


def test_clusters_endpoints_and_routes_over_ads(stand: Stand) -> None:
    stand.ads.set(LDS, "behind", listener("behind", stand.behind))
    stand.ads.set(CDS, "app", cluster("app"))
    stand.ads.set(EDS, "app", endpoints("app", stand.behind))
    stand.ads.set(LDS, "front", listener("front", stand.front, "app-route"))
    stand.ads.set(RDS, "app-route", route("app-route", cluster="app"))
    with stand.envoy():
        stand.answers("behind")
        stand.ads.set(RDS, "app-route", route("app-route", answer="from the route"))
        stand.answers("from the route")
        stand.ads.set(CDS, "static", cluster("static", stand.behind))
        stand.ads.set(RDS, "app-route", route("app-route", cluster="static"))
        stand.answers("behind")
        stand.ads.set(LDS, "behind", listener("behind", stand.behind, route("inline", answer="behind, changed")))
        stand.answers("behind, changed")
    assert stand.has_no_nack()


def test_a_cluster_sent_again_is_warmed_again(stand: Stand) -> None:
    stand.ads.set(LDS, "behind", listener("behind", stand.behind))
    stand.ads.set(CDS, "app", cluster("app"))
    stand.ads.set(EDS, "app", endpoints("app", stand.behind))
    stand.ads.set(LDS, "front", listener("front", stand.front, route("inline", cluster="app")))
    with stand.envoy():
        stand.answers("behind")
        changed = cluster("app")
        changed.connect_timeout.seconds = 3
        stand.ads.set(CDS, "app", changed)
        eventually(lambda: "cluster_manager.warming_clusters: 0" in get(stand.admin_port, "/stats"), WITHIN_S)
        eventually(lambda: '"3s"' in get(stand.admin_port, "/config_dump?resource=dynamic_active_clusters"), WITHIN_S)
        stand.answers("behind")


def test_garbage_is_rejected_and_what_was_before_stays(stand: Stand) -> None:
    stand.ads.set(LDS, "front", listener("front", stand.front))
    with stand.envoy():
        stand.answers("front")
        stand.ads.garbage = LDS
        stand.ads.push(LDS)
        eventually(lambda: stand.ads.nacks(LDS), WITHIN_S)
        stand.answers("front")
        stand.ads.garbage = None
        stand.ads.set(LDS, "front", listener("front", stand.front, route("inline", answer="good again")))
        stand.answers("good again")


def test_envoy_comes_back_after_its_stream_was_ended(stand: Stand) -> None:
    stand.ads.set(LDS, "front", listener("front", stand.front))
    with stand.envoy():
        stand.answers("front")
        stand.ads.end_streams("unavailable")
        eventually(lambda: len(stand.ads.streams) > 1 and stand.ads.open_streams(), WITHIN_S)
        stand.ads.set(LDS, "front", listener("front", stand.front, route("inline", answer="after it")))
        stand.answers("after it")


def test_many_services_and_a_huge_one(stand: Stand) -> None:
    stand.ads.set(LDS, "behind", listener("behind", stand.behind))
    stand.ads.many_services(300, size=3_000_000, endpoint_port=stand.behind, listener_port=stand.front)
    with stand.envoy():
        stand.answers("behind", "service-7.default.svc.cluster.local")
        stand.answers("behind", "service-299.default.svc.cluster.local")
        stand.ads.huge(8_000_000)
        eventually(lambda: "huge::" in get(stand.admin_port, "/clusters"), WITHIN_S)
    assert stand.has_no_nack()
