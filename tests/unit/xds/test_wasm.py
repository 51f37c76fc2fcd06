"""Which Wasm modules of a push Envoy could not fetch by itself."""

from typing import Any

import pytest
from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.wasm.v3 import wasm_pb2 as http_wasm_pb2
from envoy.extensions.filters.network.wasm.v3 import wasm_pb2 as network_wasm_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2, json_format
from udpa.type.v1 import typed_struct_pb2  # type: ignore[import-untyped]

from pilot_agent.xds.wasm import unfetchable


def remote(make: Any, uri: str, cluster: str = "_") -> Any:
    made = make()
    made.config.vm_config.code.remote.http_uri.uri = uri
    made.config.vm_config.code.remote.http_uri.cluster = cluster
    return made


def extension(config: Any, name: str = "plugin") -> Any:
    made = extension_pb2.TypedExtensionConfig(name=name)
    made.typed_config.Pack(config)
    return made


def as_struct(config: Any) -> Any:
    made = typed_struct_pb2.TypedStruct(type_url=f"type.googleapis.com/{config.DESCRIPTOR.full_name}")
    json_format.ParseDict(json_format.MessageToDict(config), made.value)
    return made


def found(*resources: Any, is_delta: bool = True) -> list[tuple[str, str]]:
    packed = [any_pb2.Any() for _ in resources]
    for any_, resource in zip(packed, resources, strict=True):
        any_.Pack(resource)
    if is_delta:
        response: Any = discovery_pb2.DeltaDiscoveryResponse()
        for each in packed:
            response.resources.add(name="x").resource.CopyFrom(each)
    else:
        response = discovery_pb2.DiscoveryResponse(resources=packed)
    modules = unfetchable(response.SerializeToString(), is_delta=is_delta)
    return [(each.resource, each.place) for each in modules]


@pytest.mark.parametrize("make", [http_wasm_pb2.Wasm, network_wasm_pb2.Wasm], ids=["http", "network"])
@pytest.mark.parametrize("is_delta", [False, True], ids=["sotw", "delta"])
@pytest.mark.parametrize("is_struct", [False, True], ids=["plain", "struct"])
def test_a_module_of_a_registry_is_one(make: Any, is_delta: bool, is_struct: bool) -> None:
    config = remote(make, "oci://ghcr.io/org/plugin:v1")
    resource = extension(as_struct(config) if is_struct else config)
    assert found(resource, is_delta=is_delta) == [("plugin", "oci://ghcr.io/org/plugin:v1")]


def test_http_is_one_only_without_a_cluster_to_go_through() -> None:
    made = http_wasm_pb2.Wasm
    resources = [extension(remote(made, "https://modules.example.com/a.wasm", cluster)) for cluster in ("_", "", "web")]
    assert found(*resources) == [("plugin", "https://modules.example.com/a.wasm")] * 2


def test_nothing_secret_of_a_uri_is_told() -> None:
    resource = extension(remote(http_wasm_pb2.Wasm, "https://user:password@example.com/a.wasm?token=secret"))
    assert found(resource) == [("plugin", "https://example.com/a.wasm")]


def test_local_modules_and_other_extensions_are_none() -> None:
    local = http_wasm_pb2.Wasm()
    local.config.vm_config.code.local.filename = "/etc/plugin.wasm"
    other = as_struct(remote(http_wasm_pb2.Wasm, "oci://a/b"))
    other.type_url = "type.googleapis.com/of.Another"
    assert found(extension(local), extension(other), extension(any_pb2.Any())) == []


def test_what_can_not_be_read_is_envoys_to_refuse() -> None:
    broken = extension_pb2.TypedExtensionConfig(name="broken")
    broken.typed_config.type_url = f"type.googleapis.com/{http_wasm_pb2.Wasm.DESCRIPTOR.full_name}"
    broken.typed_config.value = b"\xff\xff"
    struct = typed_struct_pb2.TypedStruct(type_url=broken.typed_config.type_url)
    struct.value["config"] = "no message"
    good = extension(remote(http_wasm_pb2.Wasm, "oci://a/b"), name="good")
    assert found(broken, extension(struct), good) == [("good", "oci://a/b")]
