"""The status page without an agent: a server on loopback that gives the page, and the status a test puts in."""

import copy
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pilot_agent.status import page
from tests.support.ports import free_port

RECORDED: dict[str, Any] = {
    "agent": {
        "version": "0.2.0",
        "mode": "mesh",
        "role": "sidecar",
        "id": "sidecar~10.4.1.7~reviews-v2-6b8d~shop.svc",
        "cluster": "reviews.shop",
        "pid": 1,
        "uptime_seconds": 8112.4,
        "state": "serving",
    },
    "ready": True,
    "reason": None,
    "gates": [
        {"name": name, "state": "open", "reason": None, "since_seconds": 8111.2, "since": "2026-03-01T09:30:00Z"}
        for name in ("bootstrap", "envoy", "config", "workers", "certificates", "nametable", "terminating")
    ],
    "envoy": {
        "epoch": 3,
        "pid": 1742,
        "uptime_seconds": 254.0,
        "binary": "/usr/local/bin/envoy",
        "version": "1.40.0",
        "concurrency": 2,
        "restarts": {"crash": 2, "hang": 0, "change": 1},
        "last_exit": {"code": None, "signal": 9, "reason": "killed from outside", "uptime_seconds": 61.5},
        "older_epochs": [{"epoch": 2, "pid": 977}],
    },
    "listeners": [
        {"name": "virtualOutbound", "address": "0.0.0.0:15001"},
        {"name": "virtualInbound", "address": "0.0.0.0:15006"},
        {"name": "0.0.0.0_9080", "address": "0.0.0.0:9080"},
    ],
    "certificates": [],
    "config": {
        "accepted": 41,
        "refused": 1,
        "refusal": "listeners: 0.0.0.0_9080: filter chain 2 has the match of filter chain 1",
        "broken_files": ["mesh/ratings.yaml: line 7: spec.ports is not a list"],
        "services": 12,
    },
    "xds": None,
    "errors": ["the first thing that went wrong", "the last thing that went wrong"],
    "traffic": {"requests_total": 1000, "connections_active": 17},
    "memory": {"agent_bytes": 43_000_000, "envoy_bytes": 61_000_000},
    "scrapes": [
        {"source": "envoy", "seconds": 0.0312, "bytes": 1_887_436, "failures": 0, "last_error": None},
        {"source": "app:9080", "seconds": 1.5, "bytes": 0, "failures": 4, "last_error": "connection refused"},
    ],
}


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    stand: "StatusStand"

    def __init__(self, port: int) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def hang_up(self) -> None:
        """End connections on which nothing comes: a browser opens some for later, and their threads would wait."""
        for each in self.connections:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # ended already


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: a connection ends with its answer, so that none outlives the server."""

    server: _Server

    def do_GET(self) -> None:
        self.server.stand.paths.append(self.path)
        if self.path == "/":
            self._answer(200, page.page(), page.headers())
        elif self.path == "/debug/status":
            self._answer(self.server.stand.code, self.server.stand.body(), {"Content-Type": "application/json"})
        else:
            self._answer(404, b"", {})

    def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            pass  # the browser was closed meanwhile

    def log_message(self, format: str, *args: object) -> None:
        pass


class StatusStand:
    """`status` may be changed at any time; `stop` and `start` again on the same port. `raw` goes out as it is."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.status = copy.deepcopy(RECORDED)
        self.raw: bytes | None = None
        self.code = 200
        self.paths: list[str] = []
        """What was asked for, oldest first."""
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def body(self) -> bytes:
        return self.raw if self.raw is not None else json.dumps(self.status).encode()

    def asked(self) -> int:
        """How often the status was asked for."""
        return self.paths.count("/debug/status")

    def start(self) -> "StatusStand":
        self._server = _Server(self.port)
        self._server.stand = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="status stand")
        self._thread.start()
        return self

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.hang_up()
            self._thread.join()
            self._server.server_close()
        self._server = self._thread = None
