"""The protobuf side of SDS: requests read, responses and resources made. Imports grpc's and Envoy's generated code."""

from functools import cache
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, json_format

from pilot_agent.identity.slots import Secret
from pilot_agent.sds.resources import SECRET_TYPE, Provider, config_type, resource

DiscoveryRequest: Any = discovery_pb2.DiscoveryRequest
DiscoveryResponse: Any = discovery_pb2.DiscoveryResponse
DeltaDiscoveryRequest: Any = discovery_pb2.DeltaDiscoveryRequest
DeltaDiscoveryResponse: Any = discovery_pb2.DeltaDiscoveryResponse


def packed(name: str, secret: Secret, provider: Provider | None) -> Any:
    """The secret as an Any."""
    if provider is not None:
        _describe(provider[0])
    message = json_format.ParseDict(resource(name, secret, provider), secret_pb2.Secret())
    return any_pb2.Any(type_url=SECRET_TYPE, value=message.SerializeToString())


@cache
def _describe(provider: str) -> None:
    """Tell protobuf of the one message that is in nobody's generated code (reference, section 2.2)."""
    package, _, name = config_type(provider).rpartition(".")
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"pilot_agent/{provider}.proto",
        package=package,
        syntax="proto3",
        dependency=[base_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name=name)
    for number, (label, kind) in enumerate(
        (("private_key", ".envoy.config.core.v3.DataSource"), ("poll_delay", ".google.protobuf.Duration")), 1
    ):
        message.field.add(
            name=label, number=number, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL, type_name=kind
        )
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
