"""The messages of Envoy's discovery service that SDS and the xDS proxy have in common, as far as the agent needs them.

Numbers and names are those of envoy/service/discovery/v3/discovery.proto and of what it imports.
"""

from pilot_agent.protobuf import Field, Message, map_field

ANY = Message("google.protobuf.Any", type_url=Field(1, "string"), value=Field(2, "bytes"))
NODE = Message("envoy.config.core.v3.Node", id=Field(1, "string"))
STATUS = Message("google.rpc.Status", code=Field(1, "int32"), message=Field(2, "string"))
RESOURCE = Message(
    "envoy.service.discovery.v3.Resource",
    version=Field(1, "string"),
    resource=Field(2, ANY),
    name=Field(3, "string"),
)

REQUEST = Message(
    "envoy.service.discovery.v3.DiscoveryRequest",
    version_info=Field(1, "string"),
    node=Field(2, NODE),
    resource_names=Field(3, "string", is_repeated=True),
    type_url=Field(4, "string"),
    response_nonce=Field(5, "string"),
    error_detail=Field(6, STATUS),
)
RESPONSE = Message(
    "envoy.service.discovery.v3.DiscoveryResponse",
    version_info=Field(1, "string"),
    resources=Field(2, ANY, is_repeated=True),
    type_url=Field(4, "string"),
    nonce=Field(5, "string"),
)
DELTA_REQUEST = Message(
    "envoy.service.discovery.v3.DeltaDiscoveryRequest",
    node=Field(1, NODE),
    type_url=Field(2, "string"),
    resource_names_subscribe=Field(3, "string", is_repeated=True),
    resource_names_unsubscribe=Field(4, "string", is_repeated=True),
    initial_resource_versions=map_field(5, "string"),
    response_nonce=Field(6, "string"),
    error_detail=Field(7, STATUS),
)
DELTA_RESPONSE = Message(
    "envoy.service.discovery.v3.DeltaDiscoveryResponse",
    system_version_info=Field(1, "string"),
    resources=Field(2, RESOURCE, is_repeated=True),
    type_url=Field(4, "string"),
    nonce=Field(5, "string"),
)
