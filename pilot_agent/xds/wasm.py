"""Wasm modules that come by ECDS from afar: told once each where Envoy can't fetch one by itself.

Istio's agent fetches them; this one passes the configuration on as it is. Imports Envoy's generated code, so the proxy
imports it late, for a response that names a Wasm filter at all.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.wasm.v3 import wasm_pb2 as http_wasm_pb2
from envoy.extensions.filters.network.wasm.v3 import wasm_pb2 as network_wasm_pb2
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from udpa.type.v1 import typed_struct_pb2  # type: ignore[import-untyped]

from pilot_agent.xds.wire import DELTA_RESPONSE, SOTW_RESPONSE, any_of_resource, resources_of, value_of_any

_FILTERS = {each.DESCRIPTOR.full_name: each for each in (http_wasm_pb2.Wasm, network_wasm_pb2.Wasm)}
NO_CLUSTER = frozenset(("", "_"))
"""istiod names no cluster to fetch through: its agent needs none. "_" only satisfies validation."""


class RemoteModule(NamedTuple):
    """`resource` is the extension's name, `place` the module's URI without what may be secret in one."""

    resource: str
    place: str


def unfetchable(response: bytes, *, is_delta: bool) -> Iterator[RemoteModule]:
    """The modules of a response that Envoy would fail to fetch: by a scheme it doesn't know, or through no cluster."""
    for resource in resources_of(response, DELTA_RESPONSE if is_delta else SOTW_RESPONSE):
        try:
            packed = any_of_resource(resource) if is_delta else resource
            extension: Any = extension_pb2.TypedExtensionConfig.FromString(value_of_any(packed))
            filter_ = _filter(extension.typed_config)
        except (DecodeError, ValueError, json_format.ParseError):
            continue  # Envoy is the one to refuse it
        if filter_ is None:
            continue
        remote = filter_.config.vm_config.code.remote.http_uri
        is_http = remote.uri.startswith(("http://", "https://"))
        if remote.uri and not (is_http and remote.cluster not in NO_CLUSTER):
            yield RemoteModule(extension.name, _place(remote.uri))


def _place(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def _filter(packed: Any) -> Any:
    """The Wasm filter inside; None for another extension."""
    name = packed.type_url.rpartition("/")[2]
    if name == typed_struct_pb2.TypedStruct.DESCRIPTOR.full_name:
        struct: Any = typed_struct_pb2.TypedStruct.FromString(packed.value)
        make = _FILTERS.get(struct.type_url.rpartition("/")[2])
        if make is None:
            return None
        return json_format.Parse(json_format.MessageToJson(struct.value), make(), ignore_unknown_fields=True)
    make = _FILTERS.get(name)
    return make.FromString(packed.value) if make is not None else None
