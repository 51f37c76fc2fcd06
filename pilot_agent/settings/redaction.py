"""What people may see of settings: secrets are replaced before anything is printed or logged.

By name, not by content: a token looks like any other text. Paths of secret files are no secrets.
"""

import re
from collections.abc import Mapping

HIDDEN = "(hidden)"

SECRET_PREFIXES = ("CA_HEADER_", "XDS_HEADER_")
"""Variables that become headers of the calls to the CA and to istiod: tokens, more often than not."""

DOCUMENTS = ("PROXY_CONFIG",)
"""Variables that hold a whole document, which may hold anything; what it says is shown field by field instead."""

_SECRET = re.compile(
    r"token|secret|passw(or)?d|passphrase|credential|authorization|api[_-]?key|private[_-]?key|cookie", re.IGNORECASE
)
_NO_SECRET = re.compile(
    r"(_|^)(file|path|dir|directory|type|provider|providers|name|policy|plugin|expiry|ttl|address|size|ratio|jitter)s?$"
    r"|^(CREDENTIAL_IDENTITY_PROVIDER|WORKLOAD_RSA_KEY_SIZE)$|privateKeyProvider|tokenManagerPlugin|credentialName",
    re.IGNORECASE,
)
_PATH = re.compile(r"\.{0,2}/[^\s,;]*$")


def is_secret(path: str) -> bool:
    """Whether what stands at `path` (a variable's name, or field names joined by dots) must not be shown."""
    if path.startswith(SECRET_PREFIXES):
        return True
    return any(_SECRET.search(part) and not _NO_SECRET.search(part) for part in path.split("."))


def redacted(path: str, value: object) -> object:
    """`value` as it may be shown: secrets inside are `(hidden)`, mappings and lists are walked."""
    if path in DOCUMENTS and isinstance(value, str):
        return f"({len(value)} characters; its fields are listed under ProxyConfig)" if value else value
    if isinstance(value, Mapping):
        return {key: redacted(f"{path}.{key}", item) for key, item in value.items()}
    if is_secret(path) and value not in ("", None) and not isinstance(value, bool):
        return value if isinstance(value, str) and _PATH.match(value) else HIDDEN
    if isinstance(value, list):
        return [redacted(path, item) for item in value]
    return value
