"""What is written, in which order, and that nothing is written twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from pilot_agent.errors import TemplateError
from pilot_agent.files.publish import publish
from pilot_agent.mesh.documents import read_directory
from pilot_agent.mesh.model import Options
from pilot_agent.mesh.publish import Publisher
from pilot_agent.mesh.view import View, see
from tests.unit.mesh.declared import publisher, service_entry


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Each file written, with its content, in order."""
    written: list[tuple[str, bytes]] = []

    def spy(path: Path, content: bytes) -> None:
        written.append((f"{path.parent.name}/{path.name}", content))
        publish(path, content)

    monkeypatch.setattr("pilot_agent.mesh.publish.publish", spy)
    return written


def entries(tmp_path: Path, *texts: str, options: Options | None = None) -> View:
    directory = tmp_path / "documents"
    directory.mkdir(exist_ok=True)
    (directory / "all.yaml").write_text("---\n".join(texts))
    reading = read_directory(directory, options)
    assert not reading.errors
    return see(reading.resources, options or Options())


def resources(tmp_path: Path, name: str) -> dict[str, Any]:
    document = json.loads((tmp_path / "xds" / name).read_text())
    return {resource.get("name") or resource["cluster_name"]: resource for resource in document["resources"]}


def test_what_is_pointed_at_comes_first(tmp_path: Path, order: list[tuple[str, bytes]]) -> None:
    publisher(tmp_path).publish(entries(tmp_path, service_entry("a")))
    assert [name for name, _ in order] == [
        "eds/outbound_8000__a.example.com.json",
        "cds/cds.json",
        "rds/8000.json",
        "lds/lds.json",
    ]


def test_what_goes_is_kept_until_nothing_points_at_it(tmp_path: Path, order: list[tuple[str, bytes]]) -> None:
    mesh = publisher(tmp_path)
    mesh.publish(entries(tmp_path, service_entry("a"), service_entry("b", port=9000)))
    order.clear()
    published = mesh.publish(entries(tmp_path, service_entry("c", port=9100)))
    assert [name for name, _ in order] == [
        "eds/outbound_9100__c.example.com.json",
        "cds/cds.json",
        "rds/9100.json",
        "lds/lds.json",
        "cds/cds.json",
    ]
    first, last = order[1][1], order[4][1]
    assert b"outbound|8000||a.example.com" in first and b"outbound|9100||c.example.com" in first
    assert b"outbound|8000||a.example.com" not in last and b"outbound|9100||c.example.com" in last
    assert published.removed == (
        "eds/outbound_8000__a.example.com.json",
        "eds/outbound_9000__b.example.com.json",
        "rds/8000.json",
        "rds/9000.json",
    )


def test_the_last_endpoint_goes_when_nothing_points_at_it(tmp_path: Path, order: list[tuple[str, bytes]]) -> None:
    """Else a subset whose workload goes together with the route to it would answer 503 until that is gone."""
    mesh = publisher(tmp_path)
    mesh.publish(entries(tmp_path, service_entry("a"), service_entry("b", port=9000)))
    order.clear()
    emptied = service_entry("a", endpoint="") + "  workloadSelector: {labels: {app: nobody}}\n"
    mesh.publish(entries(tmp_path, emptied, service_entry("c", port=9100), service_entry("d")))
    names = [name for name, _ in order]
    last = names.index("eds/outbound_8000__a.example.com.json")
    assert max(names.index("rds/8000.json"), names.index("lds/lds.json")) < last
    assert b"127.0.0.1" not in order[last][1]


def test_only_what_differs_is_written(tmp_path: Path, order: list[tuple[str, bytes]]) -> None:
    mesh = publisher(tmp_path)
    before = mesh.publish(entries(tmp_path, service_entry("a"), service_entry("b")))
    order.clear()
    assert mesh.publish(entries(tmp_path, service_entry("a"), service_entry("b"))).written == ()
    after = mesh.publish(entries(tmp_path, service_entry("a", endpoint="127.0.0.9"), service_entry("b")))
    assert [name for name, _ in order] == ["eds/outbound_8000__a.example.com.json"]
    assert (after.cds, after.lds, after.rds) == (before.cds, before.lds, before.rds)
    assert after.eds != before.eds


def test_versions_are_in_the_files(tmp_path: Path) -> None:
    published = publisher(tmp_path).publish(entries(tmp_path, service_entry("a")))
    versions = {"cds/cds.json": published.cds, "lds/lds.json": published.lds, "rds/8000.json": published.rds["8000"]}
    for name, version in versions.items():
        assert json.loads((tmp_path / "xds" / name).read_text())["version_info"] == version


def test_a_settled_publication_waits_in_the_right_places(tmp_path: Path, order: list[tuple[str, bytes]]) -> None:
    from pilot_agent.bootstrap.render import Renderer

    waits: list[tuple[str, str]] = []

    def settle(kind: str, version: str) -> None:
        waits.append((kind, order[-1][0]))

    mesh = Publisher(tmp_path / "xds", Renderer, Options(), settle)
    mesh.publish(entries(tmp_path, service_entry("a")))
    mesh.publish(entries(tmp_path, service_entry("b", port=9000)))
    assert waits == [("cds", "cds/cds.json"), ("cds", "cds/cds.json"), ("lds", "lds/lds.json")]


def test_leftovers_of_an_earlier_agent_go(tmp_path: Path) -> None:
    stale = tmp_path / "xds" / "rds" / "1234.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    assert publisher(tmp_path).publish(see((), Options())).removed == ("rds/1234.json",)
    assert not stale.exists()


def test_a_broken_template_changes_nothing(tmp_path: Path) -> None:
    class Broken:
        def render(self, name: str, variables: object) -> object:
            raise TemplateError("broken")

    with pytest.raises(TemplateError):
        Publisher(tmp_path / "xds", Broken, Options()).publish(see((), Options()))  # type: ignore[arg-type]
    assert not (tmp_path / "xds").exists()


def test_remove_leaves_what_is_not_ours(tmp_path: Path) -> None:
    mesh = publisher(tmp_path)
    mesh.publish(entries(tmp_path, service_entry("a")))
    (tmp_path / "xds" / "mine.txt").write_text("x")
    mesh.remove()
    assert [path.name for path in (tmp_path / "xds").iterdir()] == ["mine.txt"]
    mesh.remove()


def test_an_empty_mesh_has_istios_standing_parts(tmp_path: Path) -> None:
    publisher(tmp_path).publish(see((), Options()))
    assert list(resources(tmp_path, "lds/lds.json")) == ["virtualOutbound", "virtualInbound"]
    clusters = resources(tmp_path, "cds/cds.json")
    assert list(clusters) == ["BlackHoleCluster", "PassthroughCluster", "InboundPassthroughClusterIpv4"]
    bind = clusters["InboundPassthroughClusterIpv4"]["upstream_bind_config"]["source_address"]
    assert bind == {"address": "127.0.0.6", "port_value": 0}


def test_an_ipv6_host_has_its_own_passthrough(tmp_path: Path) -> None:
    options = Options(families=("IPv6",))
    publisher(tmp_path, options).publish(see((), options))
    cluster = resources(tmp_path, "cds/cds.json")["InboundPassthroughClusterIpv6"]
    assert cluster["upstream_bind_config"]["source_address"]["address"] == "::6"
    listener = resources(tmp_path, "lds/lds.json")["virtualInbound"]
    assert listener["address"]["socket_address"]["address"] == "::"


def test_domains_are_istiods(tmp_path: Path) -> None:
    options = Options(namespace="demo")
    text = service_entry("httpbin", host="httpbin.demo.svc.cluster.local", addresses=("10.96.0.10",))
    other = service_entry("other", host="other.shop.svc.cluster.local")
    publisher(tmp_path, options).publish(entries(tmp_path, text, other, service_entry("api"), options=options))
    (route,) = resources(tmp_path, "rds/8000.json").values()
    assert {host["name"]: host["domains"] for host in route["virtual_hosts"]} == {
        "api.example.com:8000": ["api.example.com"],
        "httpbin.demo.svc.cluster.local:8000": [
            "httpbin.demo.svc.cluster.local",
            "httpbin.demo.svc.cluster.local.",
            "httpbin",
            "httpbin.demo.svc",
            "httpbin.demo",
            "10.96.0.10",
        ],
        "other.shop.svc.cluster.local:8000": [
            "other.shop.svc.cluster.local",
            "other.shop.svc.cluster.local.",
            "other.shop.svc",
            "other.shop",
        ],
        "allow_any": ["*"],
    }


@pytest.mark.parametrize(
    ("mode", "name", "binds"), [("REDIRECT", "0.0.0.0_8000", False), ("NONE", "127.0.0.1_8000", True)]
)
def test_interception_decides_who_binds(tmp_path: Path, mode: Any, name: str, binds: bool) -> None:
    options = Options(interception_mode=mode)
    publisher(tmp_path, options).publish(entries(tmp_path, service_entry("a"), options=options))
    listener = resources(tmp_path, "lds/lds.json")[name]
    assert listener.get("bind_to_port", True) is binds
    assert all(one["traffic_direction"] for one in resources(tmp_path, "lds/lds.json").values())


def test_a_tcp_service_listens_on_its_address(tmp_path: Path) -> None:
    text = service_entry("db", protocol="TCP", port=3306, addresses=("10.0.0.7", "10.1.0.0/16"))
    publisher(tmp_path).publish(entries(tmp_path, text))
    listeners = resources(tmp_path, "lds/lds.json")
    assert {"10.0.0.7_3306", "0.0.0.0_3306"} < listeners.keys()
    match = listeners["0.0.0.0_3306"]["filter_chains"][0]["filter_chain_match"]
    assert match == {"prefix_ranges": [{"address_prefix": "10.1.0.0", "prefix_len": 16}]}


@pytest.mark.parametrize(
    ("resolution", "kind"),
    [("STATIC", "EDS"), ("DNS", "STRICT_DNS"), ("DNS_ROUND_ROBIN", "LOGICAL_DNS"), ("NONE", "ORIGINAL_DST")],
)
def test_resolution_decides_the_cluster(tmp_path: Path, resolution: str, kind: str) -> None:
    endpoint = "127.0.0.1" if resolution == "STATIC" else ""
    publisher(tmp_path).publish(entries(tmp_path, service_entry("a", resolution=resolution, endpoint=endpoint)))
    assert resources(tmp_path, "cds/cds.json")["outbound|8000||a.example.com"]["type"] == kind


def test_beyond_the_files_envoy_may_watch_values_stand_inline(tmp_path: Path) -> None:
    options = Options(endpoint_files=1, route_files=1)
    texts = [service_entry(name, port=port) for name, port in (("a", 8000), ("b", 8000), ("c", 9000))]
    published = publisher(tmp_path, options).publish(entries(tmp_path, *texts, options=options))
    assert (list(published.eds), list(published.rds)) == (["outbound_8000__a.example.com.json"], ["8000"])
    cluster = resources(tmp_path, "cds/cds.json")["outbound|9000||c.example.com"]
    assert cluster["type"] == "STATIC" and cluster["load_assignment"]["endpoints"]
    manager = resources(tmp_path, "lds/lds.json")["0.0.0.0_9000"]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["route_config"]["virtual_hosts"][0]["name"] == "c.example.com:9000"


def test_no_access_log_unless_asked(tmp_path: Path) -> None:
    mesh = publisher(tmp_path)
    mesh.publish(see((), Options()))
    assert "access_log" not in mesh.lds_path.read_text()
    asked = publisher(tmp_path, Options(access_log="/dev/stdout"))
    asked.publish(see((), Options()))
    assert '"path":"/dev/stdout"' in asked.lds_path.read_text()
