"""An HTTP server in this process that answers with what it was asked: who was reached, and how the request looked."""

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """`got` is the request as the server saw it (name, method, path, headers in lower case), empty for other bodies."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def got(self) -> dict[str, Any]:
        return dict(json.loads(self.body)) if self.body.startswith("{") else {}

    @property
    def name(self) -> str:
        return str(self.got.get("name", self.status))


class Echo(ThreadingHTTPServer):
    """`seen` holds every request. The next `failing` ones are answered with 503; a path with `/held` waits."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.failing = name, 0
        self.seen: list[dict[str, Any]] = []
        self.waiting = 0
        self.released = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, *args: object) -> None:
        pass  # a client that went away


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Echo

    def do_GET(self) -> None:
        server = self.server
        names = {name.lower() for name in self.headers}
        headers = {name: ",".join(self.headers.get_all(name, [])) for name in names}
        request = {"name": server.name, "method": self.command, "path": self.path, "headers": headers}
        self.rfile.read(int(headers.get("content-length", 0)))
        server.seen.append(request)
        if "/held" in self.path:
            server.waiting += 1
            server.released.wait(30)
            server.waiting -= 1
        is_failing, server.failing = server.failing > 0, max(0, server.failing - 1)
        body = json.dumps(request).encode()
        self.send_response(503 if is_failing else 200)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-from", server.name)
        self.send_header("connection", "close")  # nothing of one test stays open for the next
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_GET

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def echoing(name: str) -> Iterator[Echo]:
    """Run one for as long as the block does; what is held then is let go."""
    server = Echo(name)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def ask(
    port: int,
    host: str,
    path: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    address: str = "127.0.0.1",
) -> Answer:
    """One request on a connection of its own. Raises OSError and http.client.HTTPException."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request(method, path, headers={"host": host, **(headers or {})})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read().decode())
    finally:
        connection.close()
