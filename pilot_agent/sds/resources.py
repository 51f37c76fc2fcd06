"""A secret as Envoy's `Secret` message, in protobuf's JSON form: what files hold. `packing` has the same as bytes.

Shapes are those of reference security-xds.md, section 2.2. A CRL travels inline: Envoy takes a message that names the
same file as before for unchanged, and would not read it again.
"""

import base64
from typing import Any

from pilot_agent.identity.slots import Secret

SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - a message's name
_CONFIGS = {"cryptomb": "CryptoMbPrivateKeyMethodConfig", "qat": "QatPrivateKeyMethodConfig"}

Provider = tuple[str, int, bool]
"""privateKeyProvider: cryptomb or qat, its poll delay in nanoseconds, whether Envoy may do without."""


def resource(name: str, secret: Secret, provider: Provider | None = None) -> dict[str, Any]:
    """The Secret called `name`, without its type."""
    if not secret.is_key_pair:
        context: dict[str, Any] = {"trusted_ca": _inline(secret.roots)}
        if secret.crl:
            context["crl"] = _inline(secret.crl)
        return {"name": name, "validation_context": context}
    certificate: dict[str, Any] = {"certificate_chain": _inline(secret.chain)}
    if provider is None:
        certificate["private_key"] = _inline(secret.key)
    else:
        certificate["private_key_provider"] = _provider(provider, secret.key)
    return {"name": name, "tls_certificate": certificate}


def _provider(provider: Provider, key: bytes) -> dict[str, Any]:
    name, delay_ns, may_fall_back = provider
    seconds, nanoseconds = divmod(delay_ns, 10**9)
    return {
        "provider_name": name,
        "fallback": may_fall_back,
        "typed_config": {
            "@type": f"type.googleapis.com/{config_type(name)}",
            "private_key": _inline(key),
            "poll_delay": f"{seconds}.{nanoseconds:09d}s",
        },
    }


def config_type(provider: str) -> str:
    """The message that configures it, which only contrib builds of Envoy have."""
    return f"envoy.extensions.private_key_providers.{provider}.v3alpha.{_CONFIGS[provider]}"


def _inline(content: bytes) -> dict[str, str]:
    return {"inline_bytes": base64.b64encode(content).decode()}
