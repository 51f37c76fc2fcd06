"""A secret as the bytes of Envoy's `Secret` message, for the server; `resources` has the same as JSON, for files.

Numbers and names are those of envoy/extensions/transport_sockets/tls/v3 and envoy/config/core/v3/base.proto.
"""

from typing import Any

from pilot_agent.discovery import ANY
from pilot_agent.identity.slots import Secret
from pilot_agent.protobuf import Field, Message
from pilot_agent.sds.resources import SECRET_TYPE, Provider, config_type

DATA_SOURCE = Message("envoy.config.core.v3.DataSource", inline_bytes=Field(2, "bytes", has_presence=True))
DURATION = Message("google.protobuf.Duration", seconds=Field(1, "int64"), nanos=Field(2, "int32"))
PROVIDER = Message(
    "envoy.extensions.transport_sockets.tls.v3.PrivateKeyProvider",
    provider_name=Field(1, "string"),
    typed_config=Field(3, ANY),
    fallback=Field(4, "bool"),
)
TLS_CERTIFICATE = Message(
    "envoy.extensions.transport_sockets.tls.v3.TlsCertificate",
    certificate_chain=Field(1, DATA_SOURCE),
    private_key=Field(2, DATA_SOURCE),
    private_key_provider=Field(6, PROVIDER),
)
VALIDATION = Message(
    "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
    trusted_ca=Field(1, DATA_SOURCE),
    crl=Field(7, DATA_SOURCE),
)
SECRET = Message(
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    name=Field(1, "string"),
    tls_certificate=Field(2, TLS_CERTIFICATE),
    validation_context=Field(4, VALIDATION),
)
KEY_METHOD = Message("", private_key=Field(1, DATA_SOURCE), poll_delay=Field(2, DURATION))
"""Of cryptomb and of qat, which are in nobody's generated code (reference security-xds.md, section 2.2)."""


def packed(name: str, secret: Secret, provider: Provider | None) -> dict[str, Any]:
    """The secret as an Any."""
    return {"type_url": SECRET_TYPE, "value": SECRET.encode({"name": name, **_content(secret, provider)})}


def _content(secret: Secret, provider: Provider | None) -> dict[str, Any]:
    if not secret.is_key_pair:
        crl = {"inline_bytes": secret.crl} if secret.crl else None
        return {"validation_context": {"trusted_ca": {"inline_bytes": secret.roots}, "crl": crl}}
    key = {"inline_bytes": secret.key}
    how = {"private_key": key} if provider is None else {"private_key_provider": _provider(provider, key)}
    return {"tls_certificate": {"certificate_chain": {"inline_bytes": secret.chain}, **how}}


def _provider(provider: Provider, key: dict[str, bytes]) -> dict[str, Any]:
    name, delay_ns, may_fall_back = provider
    seconds, nanos = divmod(delay_ns, 10**9)
    config = KEY_METHOD.encode({"private_key": key, "poll_delay": {"seconds": seconds, "nanos": nanos}})
    typed = {"type_url": f"type.googleapis.com/{config_type(name)}", "value": config}
    return {"provider_name": name, "typed_config": typed, "fallback": may_fall_back}
