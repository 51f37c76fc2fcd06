"""What the agent itself takes of istiod, or tells of it: names, Wasm modules, and the root istiod is verified by."""

import json
from collections.abc import Callable

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.wasm.v3 import wasm_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from tests.support.agents import AgentProcess
from tests.support.authority import Authority
from tests.support.eventually import eventually
from tests.support.fake_ads import LDS, NDS, listener
from tests.support.fake_istiod import FakeIstiod
from tests.support.identities import notes
from tests.support.meshes import get, in_mesh, one_service, stream_of
from tests.support.ports import free_port

MakeAgent = Callable[..., AgentProcess]
ECDS = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
WASM = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
PROXY_CONFIG = "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig"


def name_table(host: str, address: str) -> bytes:
    """istio.networking.nds.v1.NameTable by hand: a map of host to {ips: [address]}."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    return field(1, field(1, host.encode()) + field(2, field(1, address.encode())))


def names(running: AgentProcess) -> tuple[int, object]:
    status, body = running.fetch("/debug/ndsz")
    return status, json.loads(body)


def test_names_are_asked_for_kept_and_waited_for_where_a_dns_proxy_is_wanted(
    agent: MakeAgent, istiod: FakeIstiod, app: int
) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    running = in_mesh(agent, istiod, ISTIO_META_DNS_CAPTURE="true", PROXY_CONFIG_XDS_AGENT="true").start()
    eventually(lambda: running.lines("Envoy proxy is ready"), within=15)
    eventually(lambda: running.fetch("/healthz/ready") == (503, "nametable: istiod has sent no name table yet\n"))
    assert names(running) == (404, {})
    types = [frame.type_url for frame in stream_of(istiod).frames]
    first = types.index(LDS)
    assert [each for each in types[first:] if each in (LDS, NDS, PROXY_CONFIG)][:3] == [LDS, NDS, PROXY_CONFIG]
    assert NDS not in types[:first]
    istiod.ads.set(NDS, "names", name_table("a.foo", "10.0.0.1"))
    running.until_ready()
    assert names(running) == (200, {"table": {"a.foo": {"ips": ["10.0.0.1"]}}})
    istiod.ads.set(NDS, "names", b"\xff\xff")
    eventually(lambda: istiod.ads.nacks(NDS))
    assert names(running) == (200, {"table": {"a.foo": {"ips": ["10.0.0.1"]}}}), "the one before stays"
    istiod.ads.set(NDS, "names", name_table("b.foo", "10.0.0.2"))
    eventually(lambda: names(running) == (200, {"table": {"b.foo": {"ips": ["10.0.0.2"]}}}))
    assert running.stop() == 0


def test_without_a_dns_proxy_no_names_are_asked_for(agent: MakeAgent, istiod: FakeIstiod, app: int) -> None:
    one_service(istiod.ads, free_port(), app)
    running = in_mesh(agent, istiod).start().until_ready()
    assert names(running) == (404, {})
    assert stream_of(istiod).requests(NDS) == []
    assert running.stop() == 0


def with_extension(port: int) -> object:
    made = listener("app-listener", port, "app-route")
    packed = made.filter_chains[0].filters[0].typed_config
    manager = hcm.HttpConnectionManager.FromString(packed.value)
    plugin = hcm.HttpFilter(name="plugin")
    plugin.config_discovery.config_source.ads.SetInParent()
    plugin.config_discovery.type_urls.append(WASM)
    filters = [plugin, *manager.http_filters]
    del manager.http_filters[:]
    manager.http_filters.extend(filters)
    packed.value = manager.SerializeToString()
    return made


def plugin(uri: str) -> object:
    config = wasm_pb2.Wasm()
    config.config.vm_config.runtime = "envoy.wasm.runtime.v8"
    config.config.vm_config.code.remote.http_uri.uri = uri
    config.config.vm_config.code.remote.http_uri.cluster = "_"
    config.config.vm_config.code.remote.http_uri.timeout.seconds = 1
    config.config.vm_config.code.remote.sha256 = "0" * 64
    made = extension_pb2.TypedExtensionConfig(name="plugin")
    made.typed_config.Pack(config)
    return made


def test_a_remote_wasm_module_passes_untouched_with_one_warning(agent: MakeAgent, istiod: FakeIstiod, app: int) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    pushed = plugin("oci://user:hunter2@registry.example.com/plugin:v1")
    istiod.ads.set(ECDS, "plugin", pushed)
    istiod.ads.set(LDS, "app-listener", with_extension(port))
    running = in_mesh(agent, istiod).start()
    eventually(lambda: istiod.ads.requests(ECDS), within=15)
    warning = "Envoy can't fetch the Wasm module oci://registry.example.com/plugin:v1 by itself"
    eventually(lambda: running.lines(warning))
    eventually(lambda: istiod.ads.nacks(ECDS) or istiod.ads.acks(ECDS), within=15)
    istiod.ads.push(ECDS)
    eventually(lambda: len(istiod.ads.nacks(ECDS)) + len(istiod.ads.acks(ECDS)) >= 2, within=15)
    assert len(running.lines(warning)) == 1
    assert "hunter2" not in running.log
    assert running.stop() == 0


def test_a_root_that_does_not_fit_is_told_and_its_replacement_needs_no_restart(
    agent: MakeAgent, istiod: FakeIstiod, app: int
) -> None:
    port = free_port()
    one_service(istiod.ads, port, app)
    running = in_mesh(agent, istiod)
    root = running.directory / "istiod-root.pem"
    root.write_text(Authority("somebody else's").pem)
    running.env |= {"XDS_ROOT_CA": str(root)}
    running.start()
    eventually(lambda: any("CERTIFICATE_VERIFY_FAILED" in note for note in notes(running)), within=20)
    assert not running.is_ready()
    root.write_text(istiod.root_pem)
    running.until_ready(within=40)
    assert get(port) == "one"
    before = stream_of(istiod)
    root.write_text(istiod.root_pem + istiod.root_pem)
    eventually(lambda: running.lines(f"root certificate {root} of istiod has changed: the next stream"), within=10)
    assert stream_of(istiod) is before, "a stream that runs is left alone"
    root.unlink()
    eventually(lambda: running.lines(f"root certificate {root} of istiod can't be read any more"), within=10)
    assert running.is_ready()
    assert running.stop() == 0
