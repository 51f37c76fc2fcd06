"""Reading protobuf JSON that nobody has checked: a field that is missing, or of another kind, counts as unset.

Names are Envoy's own (`filter_chains`), and their lowerCamelCase spelling is found as well: protobuf allows both. Every
view reads a dump through these.
"""

from functools import cache
from typing import Any

from pilot_agent.values import camel_case

Message = dict[str, Any]

_LARGEST = 2**32 - 1


camel = cache(camel_case)


def field(message: object, *path: str) -> Any:
    """What is at the end of `path`; None where something on the way is missing."""
    found = message
    for name in path:
        if not isinstance(found, dict):
            return None
        value = found.get(name)
        found = found.get(camel(name)) if value is None else value
    return found


def text(message: object, *path: str) -> str:
    found = field(message, *path)
    return found if isinstance(found, str) else ""


def number(message: object, *path: str) -> int:
    """An integer that fits in 32 bits without a sign, as the ports and lengths of the views do; else 0."""
    found = field(message, *path)
    if isinstance(found, str) and len(found) <= 10 and found.isascii() and found.isdigit():
        found = int(found)
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _LARGEST:
        return found
    return 0


def message(parent: object, *path: str) -> Message | None:
    """A message that is set, be it empty."""
    found = field(parent, *path)
    return found if isinstance(found, dict) else None


def messages(parent: object, *path: str) -> list[Message]:
    found = field(parent, *path)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def texts(parent: object, *path: str) -> list[str]:
    found = field(parent, *path)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def managed_by(metadata: object) -> str:
    """`name.namespace` of the Istio document that a resource was made from, by the `istio` metadata istiod puts on it.

    Empty where nothing is said, `<unknown>` where it is said of something else.
    """
    said = message(metadata, "filter_metadata", "istio")
    if said is None or "config" not in said:
        return ""
    # /apis/networking.istio.io/v1alpha3/namespaces/NAMESPACE/KIND/NAME
    parts = text(said, "config").split("/")
    if parts[:3] != ["", "apis", "networking.istio.io"] or parts[4:5] != ["namespaces"] or len(parts) < 6:
        return "<unknown>"
    return f"{parts[7]}.{parts[5]}" if len(parts) == 8 else ""
