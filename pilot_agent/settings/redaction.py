"""What people may see of settings: secrets are replaced before anything is printed or logged.

By name first: a token looks like any other text. Paths of files with secrets are no secrets, the text of a private key
is one wherever it stands. The patterns are compiled when first used: most starts have little to hide.
"""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "(hidden)"

SECRET_PREFIXES = ("CA_HEADER_", "XDS_HEADER_")
"""Variables that become headers of the calls to the CA and to istiod: tokens, more often than not."""

DOCUMENTS = ("PROXY_CONFIG", "proxy.istio.io/config")
"""Variables and annotations that hold a whole document, which may hold anything; it is shown field by field instead."""

_SECRET = r"(?i)token|secret|passw(or)?d|passphrase|authorization|api[_-]?key|cookie"  # noqa: S105 - a pattern
_KEY_OR_PATH = r"(?i)credential|private[_-]?key"
_HARMLESS = (
    r"(?i)(_|^)(file|path|dir|directory|type|provider|providers|name|policy|plugin|expiry|ttl|address|size|ratio|jitter)"
    r"s?$|^(privateKeyProvider|tokenManagerPlugin|credentialName)$"
)
_PATH = r"\.{0,2}/[^\s,;]*"
_USER_INFO = r"(://[^/\s:@]*:)[^/\s@]+@"
_KEY_TEXT = "PRIVATE KEY-----"
_NAMED_VALUES = ("value", "defaultValue", "default_value")
"""What stands beside `name` in a header or an environment variable."""


def is_secret(path: str) -> bool:
    """Whether what stands at `path` (a variable's name, or field names joined by dots) must not be shown."""
    return _says(_SECRET, path) or _says(_KEY_OR_PATH, path)


def redacted(path: str, value: object) -> object:
    """`value` as it may be shown: secrets inside are `(hidden)`; mappings, lists and JSON in texts are walked."""
    if isinstance(value, Mapping):
        return _mapping(path, value)
    if isinstance(value, str) and value and path.endswith(DOCUMENTS):
        return f"({len(value)} characters; its fields are listed under ProxyConfig)"
    if is_secret(path) and value not in ("", None) and not isinstance(value, bool):
        is_path = isinstance(value, str) and not _says(_SECRET, path) and re.fullmatch(_PATH, value)
        return value if is_path else HIDDEN
    if isinstance(value, list):
        return [redacted(path, item) for item in value]
    return _text(path, value) if isinstance(value, str) else value


def _says(pattern: str, path: str) -> bool:
    return any(
        part.startswith(SECRET_PREFIXES) or (re.search(pattern, part) and not re.search(_HARMLESS, part))
        for part in path.split(".")
    )


def _mapping(path: str, value: Mapping[Any, object]) -> dict[Any, object]:
    name = value.get("name")
    prefix = f"{name}." if isinstance(name, str) and is_secret(name) else ""
    return {key: redacted(f"{prefix if key in _NAMED_VALUES else ''}{path}.{key}", item) for key, item in value.items()}


def _text(path: str, text: str) -> str:
    if _KEY_TEXT in text:
        return HIDDEN
    if text.lstrip()[:1] in ("{", "["):
        return _document(path, text)
    return re.sub(_USER_INFO, rf"\1{HIDDEN}@", text) if "@" in text else text


def _document(path: str, text: str) -> str:
    """A JSON document with its secrets hidden; what only looks like one is hidden as soon as it speaks of a secret."""
    import json

    try:
        document = json.loads(text)
        shown = redacted(path, document)
    except (ValueError, RecursionError):
        return f"({len(text)} characters)" if re.search(_SECRET, text) or re.search(_KEY_OR_PATH, text) else text
    return text if shown == document else json.dumps(shown, ensure_ascii=False)
