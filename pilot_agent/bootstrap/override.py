"""ISTIO_BOOTSTRAP_OVERRIDE: a piece of bootstrap that Envoy merges over the rendered one (`--config-yaml`).

A file that is not there or is no mapping is a warning, as in Istio's agent: it comes from a ConfigMap that may be late
or wrong, and the proxy must start. What Envoy refuses to merge ends the start, with its own words.
"""

import json
from pathlib import Path
from typing import Any

from pilot_agent.bootstrap.validate import LONGEST_ARGUMENT
from pilot_agent.errors import SettingsError
from pilot_agent.settings.mesh import parse_document

HOST_IP = "$(HOST_IP)"


def read_override(path: str, host_ip: str, warnings: list[str]) -> str | None:
    """The override at `path` as JSON text, with `host_ip` put in for $(HOST_IP); None where there is none to use.

    Raises SettingsError for one too long for a command line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        warnings.append(f"ISTIO_BOOTSTRAP_OVERRIDE is ignored: {path} can't be read: {reason}")
        return None
    try:
        document = parse_document(text, f"ISTIO_BOOTSTRAP_OVERRIDE {path}")
    except SettingsError as error:
        warnings.append(f"the bootstrap override is ignored: {error}")
        return None
    if not document:
        return None
    merged = json.dumps(_with_host_ip(document, host_ip), separators=(",", ":"), ensure_ascii=False)
    if len(merged.encode()) > LONGEST_ARGUMENT:
        raise SettingsError(
            f"ISTIO_BOOTSTRAP_OVERRIDE {path}: {len(merged.encode())} bytes are too many for a command line "
            f"({LONGEST_ARGUMENT}): use a template of your own (ISTIO_BOOTSTRAP)"
        )
    return merged


def _with_host_ip(value: Any, host_ip: str) -> Any:
    """Put in after parsing: YAML would take the brackets of an IPv6 address for a list."""
    if not host_ip:
        return value
    if isinstance(value, dict):
        return {key: _with_host_ip(item, host_ip) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_host_ip(item, host_ip) for item in value]
    if isinstance(value, str) and HOST_IP in value:
        return _put_in(value, host_ip)
    return value


def _put_in(text: str, host_ip: str) -> str:
    bare = host_ip.strip("[]")
    if ":" not in bare:
        return text.replace(HOST_IP, bare)
    # Alone it is an address as Envoy's fields take it; beside a port it needs brackets, once.
    if text == HOST_IP:
        return bare
    bracketed = f"[{bare}]"
    return text.replace(f"[{HOST_IP}]", bracketed).replace(HOST_IP, bracketed)
