"""A small application as a program: `app_server.py HOST NAME` prints its port and serves HTTP until it is killed.

Standard library only, no imports from the tests: it runs with any interpreter, in any namespace.

    /metrics          one family, app_requests_total
    /metrics/held     the same, once somebody asked for /release
    /metrics/never    no answer, ever
    /held             its name, once somebody asked for /release
    /waiting          how many requests are held
    /release          lets every held request go
    /peer             the address the connection came from
    anything else     its name
"""

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_changed = threading.Condition()
_state = {"waiting": 0, "releases": 0}
METRICS = "# HELP app_requests_total Requests.\n# TYPE app_requests_total counter\napp_requests_total 7\n"


def _hold() -> None:
    with _changed:
        _state["waiting"] += 1
        before = _state["releases"]
        _changed.wait_for(lambda: _state["releases"] > before)
        _state["waiting"] -= 1


def _release() -> None:
    with _changed:
        _state["releases"] += 1
        _changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path.endswith("/never"):
            threading.Event().wait()
        if self.path.endswith("/held"):
            _hold()
        if self.path == "/release":
            _release()
        self._answer(self._body().encode())

    def _body(self) -> str:
        if self.path.startswith("/metrics"):
            return METRICS
        if self.path == "/peer":
            return str(self.client_address[0])
        if self.path == "/waiting":
            return str(_state["waiting"])
        return sys.argv[2]

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        pass  # a client that went away


def main() -> None:
    if ":" in sys.argv[1]:
        Server.address_family = socket.AF_INET6
    server = Server((sys.argv[1], 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
