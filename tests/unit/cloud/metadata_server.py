"""A metadata server over real HTTP on loopback, with a switch for each way such a server can fail."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from pilot_agent.clock import Deadline, SystemClock

Fault = Literal["hang", "garbage", "slow", "cut", "long", "redirect"]


class FakeMetadataServer:
    """Answers `facts` by path, 404 for others. `faults` are by path; an empty path stands for all of them."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.faults: dict[str, Fault] = {}
        self.required_headers: dict[str, str] = {}
        self.token: str | None = None
        self.asked: list[str] = []
        self.is_over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def close(self) -> None:
        self.is_over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.answer(self)

            def do_PUT(self) -> None:
                fake.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(f"{request.command} {request.path}")
        fault = self.faults.get(request.path) or self.faults.get("")
        try:
            if fault:
                self._fail(request, fault)
            elif request.command == "PUT":
                self._issue_token(request)
            else:
                self._tell(request)
        except (ConnectionError, BrokenPipeError):
            pass  # the client has gone

    def _issue_token(self, request: BaseHTTPRequestHandler) -> None:
        has_lifetime = request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit()
        is_token = request.path == "/latest/api/token" and self.token is not None and has_lifetime
        send(request, 200 if is_token else 403, self.token or "")

    def _tell(self, request: BaseHTTPRequestHandler) -> None:
        wanted = {**self.required_headers, **({"X-aws-ec2-metadata-token": self.token} if self.token else {})}
        if any(request.headers.get(name) != value for name, value in wanted.items()):
            send(request, 401, "who are you?")
        elif request.path in self.facts:
            send(request, 200, self.facts[request.path])
        else:
            send(request, 404, "<html>not found</html>")

    def _fail(self, request: BaseHTTPRequestHandler, fault: Fault) -> None:
        if fault == "hang":
            self.is_over.wait()
        elif fault == "garbage":
            request.wfile.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        elif fault == "cut":
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        elif fault == "long":
            request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000_000)
        elif fault == "redirect":
            request.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        else:  # a byte now and then: always in time for a single read, never for all of them
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * 100:
                request.wfile.write(bytes([byte]))
                if self.is_over.wait(0.01):
                    return


def send(request: BaseHTTPRequestHandler, status: int, text: str) -> None:
    body = text.encode()
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def soon(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds, SystemClock())
