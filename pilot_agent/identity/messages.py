"""The two messages of istiod's CA, which no generated code for Python has (reference security-xds.md, section 13)."""

from pilot_agent.protobuf import Field, Message, map_field

# google/protobuf/struct.proto: of its values only texts count here.
_VALUE = Message("google.protobuf.Value", string_value=Field(3, "string", has_presence=True))
_STRUCT = Message("google.protobuf.Struct", fields=map_field(1, _VALUE))

REQUEST = Message(
    "istio.v1.auth.IstioCertificateRequest",
    csr=Field(1, "string"),
    validity_duration=Field(3, "int64"),
    metadata=Field(4, _STRUCT),
)
RESPONSE = Message("istio.v1.auth.IstioCertificateResponse", cert_chain=Field(1, "string", is_repeated=True))


def request_bytes(csr: bytes, ttl_s: int, cert_signer: str) -> bytes:
    signer = {"key": "CertSigner", "value": {"string_value": cert_signer}}
    return REQUEST.encode({"csr": csr.decode(), "validity_duration": ttl_s, "metadata": {"fields": [signer]}})


def chain_in(answer: bytes) -> list[str]:
    """The certificates of an answer. Raises ValueError for bytes that are no such message."""
    chain: list[str] = RESPONSE.decode(answer)["cert_chain"]
    return chain
