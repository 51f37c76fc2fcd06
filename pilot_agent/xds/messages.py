"""The messages that the agent itself reads and writes on an ADS stream: requests of its own, ACKs, and Istio's types.

Istio's messages are in nobody's generated code for Python: the few fields that count are described at run time.
"""

from functools import cache
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

INTERNAL = 13
"""google.rpc.Code of the agent's NACKs, as Istio's agent has it."""


def request(type_url: str, *, is_delta: bool, nonce: str = "", version: str = "", error: str | None = None) -> bytes:
    """A request that carries nothing but this; `error` makes it a NACK, or tells that a workload is unhealthy."""
    if is_delta:
        message = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce)
    else:
        message = discovery_pb2.DiscoveryRequest(type_url=type_url, response_nonce=nonce, version_info=version)
    if error is not None:
        message.error_detail.code, message.error_detail.message = INTERNAL, error
    encoded: bytes = message.SerializeToString()
    return encoded


def ca_certificates(resource: bytes) -> list[str]:
    """`ca_certificates_pem` of istio.mesh.v1alpha1.ProxyConfig. Raises ValueError."""
    return list(_parse("istio.mesh.v1alpha1.ProxyConfig", resource).ca_certificates_pem)


def name_table(resource: bytes) -> dict[str, dict[str, Any]]:
    """istio.networking.nds.v1.NameTable by host name: `ips`, `registry`, `shortname`, `namespace`, `alt_hosts`.

    Raises ValueError.
    """
    table = _parse("istio.networking.nds.v1.NameTable", resource).table
    return {
        host: {
            "ips": list(info.ips),
            "registry": info.registry,
            "shortname": info.shortname,
            "namespace": info.namespace,
            "alt_hosts": list(info.alt_hosts),
        }
        for host, info in table.items()
    }


def _parse(name: str, encoded: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return _classes()[name].FromString(encoded)
    except DecodeError as error:
        raise ValueError(f"it is no {name}: {error}") from None


@cache
def _classes() -> dict[str, type[Any]]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kind = descriptor_pb2.FieldDescriptorProto
    mesh = descriptor_pb2.FileDescriptorProto(
        name="pilot_agent/mesh.proto", package="istio.mesh.v1alpha1", syntax="proto3"
    )
    _texts(mesh.message_type.add(name="ProxyConfig"), {34: ("ca_certificates_pem", True)})
    names = descriptor_pb2.FileDescriptorProto(
        name="pilot_agent/nds.proto", package="istio.networking.nds.v1", syntax="proto3"
    )
    table = names.message_type.add(name="NameTable")
    info = table.nested_type.add(name="NameInfo")
    _texts(
        info,
        {
            1: ("ips", True),
            2: ("registry", False),
            3: ("shortname", False),
            4: ("namespace", False),
            5: ("alt_hosts", True),
        },
    )
    entry = table.nested_type.add(name="TableEntry")
    entry.options.map_entry = True
    _texts(entry, {1: ("key", False)})
    outer = ".istio.networking.nds.v1.NameTable"
    entry.field.add(
        name="value", number=2, type=kind.TYPE_MESSAGE, label=kind.LABEL_OPTIONAL, type_name=f"{outer}.NameInfo"
    )
    table.field.add(
        name="table", number=1, type=kind.TYPE_MESSAGE, label=kind.LABEL_REPEATED, type_name=f"{outer}.TableEntry"
    )
    pool = descriptor_pool.DescriptorPool()
    for file in (mesh, names):
        pool.AddSerializedFile(file.SerializeToString())
    wanted = ("istio.mesh.v1alpha1.ProxyConfig", "istio.networking.nds.v1.NameTable")
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in wanted}


def _texts(message: Any, fields: dict[int, tuple[str, bool]]) -> None:
    """Describe string fields: number to name, and whether it is repeated."""
    for number, (name, is_repeated) in fields.items():
        label = 3 if is_repeated else 1  # FieldDescriptorProto.Label
        message.field.add(name=name, number=number, type=9, label=label)  # TYPE_STRING
