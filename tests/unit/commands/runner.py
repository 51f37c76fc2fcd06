"""Runs `pilot-agent` as a real process, and plays the HTTP peer it talks to."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

COMMAND = (sys.executable, "-m", "pilot_agent.commands.main")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def run(*args: str, env: dict[str, str] | None = None, timeout: float = 60) -> Ended:
    """Run to the end, with an environment of these variables beside the test's own."""
    import os

    done = subprocess.run(
        [*COMMAND, *args], env=os.environ | (env or {}), capture_output=True, timeout=timeout, check=False
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Peer:
    """Listens on `port`; `requests` are the bytes of what came in, one request a connection."""

    def __init__(self, listener: socket.socket, handle: Callable[[bytes], bytes | None], keeps_open: bool) -> None:
        self.port = int(listener.getsockname()[1])
        self.requests: list[bytes] = []
        self._listener, self._handle = listener, handle
        self._keeps_open, self._open = keeps_open, list[socket.socket]()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # shut down by `peer`
            request = self._request(connection)
            self.requests.append(request)
            reply = self._handle(request)
            try:
                connection.sendall(reply or b"")
            except OSError:
                pass  # it went away, as some tests want
            if reply is None or self._keeps_open:
                self._open.append(connection)
            else:
                connection.close()

    def _request(self, connection: socket.socket) -> bytes:
        connection.settimeout(10)
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536) or b"\r\n\r\n"
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()


@contextmanager
def peer(
    handle: Callable[[bytes], bytes | None], ports: tuple[int, ...] = (0,), *, keeps_open: bool = False
) -> Iterator[Peer]:
    """A peer on the first of `ports` that is free (0: any).

    `handle` gives the reply's bytes, or None for silence; silent connections, and with `keeps_open` all, stay open.
    """
    made = Peer(_listening(ports), handle, keeps_open)
    thread = threading.Thread(target=made.serve)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join()


def _listening(ports: tuple[int, ...]) -> socket.socket:
    for port in ports:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            continue
    raise AssertionError(f"all of these ports are in use: {ports}")
