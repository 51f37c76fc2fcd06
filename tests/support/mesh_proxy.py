"""A local mesh and a real Envoy that reads what it publishes, without an agent; and TCP servers to reach through it."""

import json
import re
import socket
import socketserver
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pilot_agent.mesh.model import Options
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.ports import free_ports
from tests.unit.mesh.declared import Mesh


class Proxy:
    """A local mesh and the Envoy that reads it."""

    def __init__(self, directory: Path, options: Options, admin_port: int, text: str = "") -> None:
        self.mesh = Mesh(directory, options)
        if text:
            self.mesh.write("first.yaml", text)
        self.mesh.local.load()
        self.options = options
        self.admin_port = admin_port
        self._bootstrap = directory / "bootstrap.json"

    def argv(self) -> list[str]:
        local = self.mesh.local
        bootstrap = {
            "node": {"id": "test", "cluster": "test"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self.admin_port}}},
            "dynamic_resources": {
                "lds_config": _watched(local.lds_path),
                "cds_config": _watched(local.cds_path),
            },
        }
        self._bootstrap.write_text(json.dumps(bootstrap))
        options = "--disable-hot-restart --concurrency 1 -l warning --drain-time-s 1"
        return [str(envoy_binary()), "-c", str(self._bootstrap), *options.split()]

    def admin(self, path: str) -> str:
        return get(self.admin_port, path)

    def stats(self, pattern: str) -> dict[str, int]:
        lines = (line.rpartition(": ") for line in self.admin("/stats").splitlines())
        return {name: int(value) for name, _, value in lines if re.search(pattern, name) and value.isdigit()}

    def complaints(self) -> dict[str, int]:
        """Updates Envoy refused or could not read, of any resource: should be none."""
        found = self.stats(r"update_(rejected|failure)$|deprecated_feature_use$")
        return {name: value for name, value in found.items() if value}

    def listeners(self) -> set[str]:
        return {line.partition("::")[0] for line in self.admin("/listeners").splitlines()}

    def versions(self) -> tuple[str, str]:
        found = dict(line.split(": ", 1) for line in self.admin("/stats?type=TextReadouts").splitlines())
        return (
            found["listener_manager.lds.version_text"].strip('"'),
            found["cluster_manager.cds.version_text"].strip('"'),
        )

    def reload(self) -> None:
        """Reload, and wait until Envoy has it."""
        self.mesh.local.reload()
        published = self.mesh.local.published
        assert published is not None and not self.mesh.local.errors
        eventually(lambda: self.versions() == (published.lds, published.cds))


def _watched(path: Path) -> dict[str, object]:
    source = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def get(port: int, path: str = "/", host: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.code}"


def said(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.makefile().read()


@contextmanager
def mesh_proxy(directory: Path, text: str = "", **options: Any) -> Iterator[Proxy]:
    """One that runs for as long as the block does, with `text` for its first document; ports are free ones."""
    outbound, inbound, admin = free_ports(3)
    proxy = Proxy(directory, Options(outbound_port=outbound, inbound_port=inbound, **options), admin, text)
    with ExitStack() as stack:
        log = stack.enter_context((directory / "envoy.log").open("wb"))
        envoy = subprocess.Popen(proxy.argv(), stdout=log, stderr=log)
        stack.callback(envoy.wait, 10)
        stack.callback(envoy.kill)
        eventually(lambda: proxy.admin("/ready").strip() == "LIVE", within=15)
        yield proxy


class Saying(socketserver.BaseRequestHandler):
    """Says the server's name, over TLS where it has a context."""

    def handle(self) -> None:
        tls: ssl.SSLContext | None = self.server.tls  # type: ignore[attr-defined]
        connection = tls.wrap_socket(self.request, server_side=True) if tls else self.request
        connection.sendall(str(self.server.name).encode())  # type: ignore[attr-defined]
        connection.close()


@contextmanager
def saying(name: str, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A TCP server that says its name to whoever connects, and closes; its port."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Saying)
    server.name, server.tls = name, tls  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
