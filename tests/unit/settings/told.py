"""Settings as an agent would have them that was told this and nothing else."""

import json
from collections.abc import Mapping
from typing import Any

from pilot_agent.settings.model import ProxyConfig, ProxyFlags, Settings
from pilot_agent.settings.sources import load

NO_MESH_FILE = "/nonexistent/mesh"


def told(
    config: Mapping[str, Any] | str = "",
    *,
    env: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    log_as_json: bool = False,
    **flags: Any,
) -> Settings:
    """`config` goes into PROXY_CONFIG, as JSON or as the text it is; `flags` are ProxyFlags' attributes."""
    text = config if isinstance(config, str) else json.dumps(config)
    variables = {**({"PROXY_CONFIG": text} if text else {}), **(env or {})}
    return load(
        ProxyFlags(**{"mesh_config": NO_MESH_FILE, **flags}), variables, annotations or {}, log_as_json=log_as_json
    )


def proxy_config(**fields: Any) -> ProxyConfig:
    return told(fields).proxy_config
