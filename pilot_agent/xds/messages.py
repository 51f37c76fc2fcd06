"""The messages that the agent itself reads and writes on an ADS stream: requests of its own, ACKs, and Istio's types.

Of Istio's messages, which are in nobody's generated code for Python, the few fields that count (istio.io/api's
mesh/v1alpha1/proxy.proto, istio's pkg/dns/proto/nds.proto).
"""

from typing import Any

from pilot_agent.discovery import DELTA_REQUEST, REQUEST
from pilot_agent.protobuf import Field, Message, map_field

INTERNAL = 13
"""google.rpc.Code of the agent's NACKs, as Istio's agent has it."""

PROXY_CONFIG = Message("istio.mesh.v1alpha1.ProxyConfig", ca_certificates_pem=Field(34, "string", is_repeated=True))
NAME_INFO = Message(
    "istio.networking.nds.v1.NameTable.NameInfo",
    ips=Field(1, "string", is_repeated=True),
    registry=Field(2, "string"),
    shortname=Field(3, "string"),
    namespace=Field(4, "string"),
    alt_hosts=Field(5, "string", is_repeated=True),
)
NAME_TABLE = Message("istio.networking.nds.v1.NameTable", table=map_field(1, NAME_INFO))


def request(type_url: str, *, is_delta: bool, nonce: str = "", version: str = "", error: str | None = None) -> bytes:
    """A request that carries nothing but this; `error` makes it a NACK, or tells that a workload is unhealthy."""
    detail = {"code": INTERNAL, "message": error} if error is not None else None
    fields = {"type_url": type_url, "response_nonce": nonce, "error_detail": detail}
    return DELTA_REQUEST.encode(fields) if is_delta else REQUEST.encode({"version_info": version, **fields})


def ca_certificates(resource: bytes) -> list[str]:
    """`ca_certificates_pem` of istio.mesh.v1alpha1.ProxyConfig. Raises ValueError."""
    found: list[str] = _read(PROXY_CONFIG, resource)["ca_certificates_pem"]
    return found


def name_table(resource: bytes) -> dict[str, dict[str, Any]]:
    """istio.networking.nds.v1.NameTable by host name: `ips`, `registry`, `shortname`, `namespace`, `alt_hosts`.

    Raises ValueError.
    """
    nothing = NAME_INFO.decode(b"")
    return {entry["key"]: entry["value"] or nothing for entry in _read(NAME_TABLE, resource)["table"]}


def _read(kind: Message, encoded: bytes) -> dict[str, Any]:
    try:
        return kind.decode(encoded)
    except ValueError as error:
        raise ValueError(f"it is no {kind.name}: {error}") from None
