"""Envoy alone with the smallest static configuration: what every start and restart is measured against."""

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.probing import until_answered
from tests.support.ports import free_ports

ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def static_config(admin: int, ready: int) -> dict[str, Any]:
    """One listener that answers 200 itself."""
    manager = {
        "@type": MANAGER,
        "stat_prefix": "ready",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "ready",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                }
            ]
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": [{"address": _address(ready), "filter_chains": [{"filters": filters}]}]},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def start_once(binary: Path) -> float:
    """Seconds from exec to its first 200."""
    admin, ready = free_ports(2)
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "envoy.json"
        config.write_text(json.dumps(static_config(admin, ready)))
        began = time.monotonic()
        argv = [str(binary), "-c", str(config), "-l", "off", "--disable-hot-restart"]
        envoy = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        try:
            return until_answered(ready) - began
        finally:
            envoy.kill()
            envoy.wait()
