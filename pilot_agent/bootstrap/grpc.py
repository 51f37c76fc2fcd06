"""The bootstrap of gRPC's own xDS client: for an application that is in the mesh without an Envoy (proxyless gRPC).

Pure: what stands in it. The form is gRPC's (proposal A27), what Istio puts in is in reference security-xds.md,
section 9.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from pilot_agent.node.metadata import Node

LISTENER_TEMPLATE = "xds.istio.io/grpc/lds/inbound/%s"
REFRESH = "900s"
"""How often gRPC looks at certificate files again."""


class GrpcBootstrap(NamedTuple):
    """`certificates` are the files that must be there before gRPC can use what is in `document`."""

    path: Path
    document: bytes
    certificates: tuple[Path, ...]


def grpc_bootstrap(path: Path, node: Node, xds_socket: Path, output: Path | None) -> GrpcBootstrap:
    """`output`: the directory of OUTPUT_CERTS. Every path absolute: gRPC runs in another process's directory."""
    files = (
        {
            "certificate_file": output / "cert-chain.pem",
            "private_key_file": output / "key.pem",
            "ca_certificate_file": output / "root-cert.pem",
        }
        if output is not None
        else {}
    )
    document: dict[str, Any] = {
        "xds_servers": [
            {
                "server_uri": f"unix://{xds_socket}",
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }
        ],
        "node": {"id": node.id, "metadata": {**node.record, "GENERATOR": "grpc"}, "locality": node.locality},
        "server_listener_resource_name_template": LISTENER_TEMPLATE,
    }
    if files:
        config = {name: str(file) for name, file in files.items()} | {"refresh_interval": REFRESH}
        document["certificate_providers"] = {"default": {"plugin_name": "file_watcher", "config": config}}
    return GrpcBootstrap(path, json.dumps(document, indent=2).encode() + b"\n", tuple(files.values()))
