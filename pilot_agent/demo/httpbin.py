"""The application of the demo: a few answers of httpbin's, and a line of JSON for each request as it came in.

Run by pod, as `python -m pilot_agent.demo.httpbin`. It knows nothing of proxies: what it writes down is what any
application behind one gets to see.
"""

import argparse
import json
import socket
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TextIO

MOST_DELAY_S = 10.0
METRICS = """\
# HELP httpbin_requests_total Requests answered so far.
# TYPE httpbin_requests_total counter
httpbin_requests_total {count}
# HELP httpbin_up Whether the application runs.
# TYPE httpbin_up gauge
httpbin_up 1
"""


class Server(ThreadingHTTPServer):
    """Both families where the kernel has both; `name` is what /hostname says."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, name: str, log: TextIO | None) -> None:
        self.name, self.log, self.answered = name, log, 0
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)  # not HTTPServer's: that looks up its own name, which may take seconds
        self.server_address = self.socket.getsockname()

    def note(self, **facts: Any) -> None:
        if self.log is not None:
            self.log.write(json.dumps(facts) + "\n")
            self.log.flush()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        path = self.path.partition("?")[0]
        status, body = self._answer(path)
        if path != "/metrics":
            self.server.answered += 1
            self.server.note(
                path=self.path,
                source=_address(self.client_address),
                destination=_address(self.connection.getsockname()),
                status=status,
                headers=dict(self.headers.items()),
            )
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if body.startswith("{") else "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self, path: str) -> tuple[int, str]:
        match path.strip("/").split("/"):
            case ["hostname"]:
                return 200, self.server.name + "\n"
            case ["headers"]:
                return 200, json.dumps({"headers": dict(self.headers.items())}, indent=2) + "\n"
            case ["ip"]:
                return 200, json.dumps({"origin": self.client_address[0]}) + "\n"
            case ["status", number] if number.isdecimal() and 200 <= int(number) <= 599:
                return int(number), ""
            case ["delay", seconds] if seconds.replace(".", "", 1).isdecimal():
                time.sleep(min(float(seconds), MOST_DELAY_S))
                return 200, f"{self.server.name} after {seconds} s\n"
            case ["metrics"]:
                return 200, METRICS.format(count=self.server.answered)
        return 404, f"{path}: not here; try /hostname, /headers, /ip, /status/418, /delay/1\n"

    def log_message(self, *_: object) -> None:
        """Quiet: `note` has it all."""


def _address(pair: tuple[Any, ...]) -> str:
    host = str(pair[0]).removeprefix("::ffff:")
    return f"[{host}]:{pair[1]}" if ":" in host else f"{host}:{pair[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="httpbin", description="A few answers of httpbin's.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--name", default=socket.gethostname())
    parser.add_argument("--log", default="")
    options = parser.parse_args()
    serve = partial(Server, options.host, options.port, options.name)
    try:
        if not options.log:
            serve(None).serve_forever()
        with Path(options.log).open("a", encoding="utf-8") as log:
            serve(log).serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
