"""Resources of a dump as JSON or YAML, in protobuf's lowerCamelCase as istioctl prints them, without private keys.

Envoy dumps its fields under their original names (`filter_chains`). There is no schema here to tell a field from a key
that is data, as in the maps and Structs of a configuration: where those begin is known by name.
"""

import base64
import binascii
import json
from typing import Any

from pilot_agent.inspect.fields import camel

_STRUCTS = frozenset(
    """
    base bucket context_extensions default_subset dynamic_parameters filter_context filter_metadata json_format
    key_values labels params static_layer transport_socket_match_criteria typed_json_format
    """.split()
)
"""Fields of Envoy's API that hold a Struct, or a map of plain values or Structs: nothing below them is a field."""

_MAPS = frozenset(
    """
    allowed_capabilities args bucket_id_builder certificate_provider_instances cluster_min_healthy_percentages
    extraction_by_method extractions_by_method logging_by_method map message_restrictions method_restrictions
    named_endpoints params_match per_filter_config policies providers requirement_map secrets source_codes
    typed_extension_protocol_options typed_filter_metadata typed_per_filter_config
    """.split()
)
"""Fields that hold a map of messages: its keys are data, what they lead to are messages again."""

_STRUCTS_OF = {"metadata": ("node", "user_agent_build_version"), "match": ("transport_socket_matches",)}
"""The same for fields of names that are messages elsewhere, by what holds them."""
_STRUCT_TYPES = ("google.protobuf.Struct", "xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct")
"""In an Any of these `value` is a Struct."""

_SECRETS = frozenset(("keys", "password", "pkcs12", "private_key", "privateKey", "secret"))
"""Fields whose content Envoy keeps to itself, where it is written out in a DataSource."""
_HIDDEN = {"inline_string": "[redacted]", "inline_bytes": base64.b64encode(b"[redacted]").decode()}
_HIDDEN |= {camel(name): value for name, value in _HIDDEN.items()}
_KEY_MARK = "PRIVATE KEY-----"


def as_json(value: object) -> str:
    """Indented by four, as istioctl's, with a newline at the end."""
    return json.dumps(value, indent=4, ensure_ascii=False) + "\n"


def as_yaml(value: object) -> str:
    """Keys sorted, as istioctl's."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times as fast, where PyYAML was built with it
    return str(yaml.dump(value, Dumper=dumper, sort_keys=True, allow_unicode=True, width=1 << 20))


def without_type(message: dict[str, Any]) -> dict[str, Any]:
    """A message that was packed in an Any, as it is unpacked."""
    return {name: value for name, value in message.items() if name != "@type"}


def renamed(value: Any, parent: str = "") -> Any:
    """`value` with its fields in lowerCamelCase; `parent` is the field that holds it."""
    if isinstance(value, list):
        return [renamed(each, parent) for each in value]
    if not isinstance(value, dict):
        return value
    return {camel(name): _renamed_field(name, item, value, parent) for name, item in value.items()}


def _renamed_field(name: str, item: Any, message: dict[str, Any], parent: str) -> Any:
    if _is_data(name, item, message, parent):
        return item
    if name in _MAPS and isinstance(item, dict):
        return {key: renamed(each) for key, each in item.items()}
    return renamed(item, name)


def _is_data(name: str, item: Any, message: dict[str, Any], parent: str) -> bool:
    if not isinstance(item, dict):
        return False
    if name in _STRUCTS_OF:
        return parent in _STRUCTS_OF[name]
    if name == "attributes":
        return all(isinstance(each, str) for each in item.values())
    if name == "value":
        return str(message.get("@type")).rpartition("/")[2] in _STRUCT_TYPES
    return name in _STRUCTS


def hidden(value: Any, *, is_secret: bool = False) -> Any:
    """`value` without what is secret in it: what Envoy hides itself, and whatever looks like a private key."""
    if isinstance(value, list):
        return [hidden(each, is_secret=is_secret) for each in value]
    if isinstance(value, dict):
        return {name: _hidden_field(name, item, is_secret) for name, item in value.items()}
    return _HIDDEN["inline_string"] if isinstance(value, str) and _KEY_MARK in value else value


def _hidden_field(name: str, item: Any, is_secret: bool) -> Any:
    if name in _HIDDEN and isinstance(item, str):
        is_key = name.endswith("ytes") and _KEY_MARK.encode() in _decoded(item)
        return _HIDDEN[name] if is_secret or is_key or _KEY_MARK in item else item
    if name == "secrets" and isinstance(item, dict):  # of a GenericSecret; the bootstrap's is a list
        return {key: hidden(each, is_secret=True) for key, each in item.items()}
    return hidden(item, is_secret=name in _SECRETS)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""
