"""Applications of many tongues in one program: what a pod of the end-to-end tests runs beside its Envoy.

    python -m tests.support.speaker HOST NAME SPEECH:PORT... [--pem FILE]

SPEECH is http, h2c, grpc, tcp or tls (http behind it). Every answer is JSON that says who answered, in which protocol,
from where the connection came, and with which headers. It prints "ready" once all ports are open, and runs until it is
killed. HTTP/1.1 keeps no connection, so that each request is a new one for whoever counts them.
"""

import argparse
import json
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events

GREETING = "welcome"
METHOD_ONE, METHOD_MANY = "/speech.Speech/One", "/speech.Speech/Many"


class Speaker:
    def __init__(self, host: str, name: str) -> None:
        self._host, self._name = host, name

    def answer(self, protocol: str, peer: str, **more: Any) -> bytes:
        return json.dumps({"name": self._name, "protocol": protocol, "peer": peer, **more}).encode()

    def listen(self, port: int, serve: Callable[[socket.socket], None]) -> None:
        """A thread per connection, closed when `serve` returns."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.create_server(
            (self._host, port), family=family, backlog=128, dualstack_ipv6=family == socket.AF_INET6
        )

        def converse(connection: socket.socket) -> None:
            try:
                serve(connection)
            except (OSError, EOFError):
                pass  # the other side went away, or was no TLS client
            finally:
                connection.close()

        def accept() -> None:
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=converse, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def http(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = connection.recv(65536)
            if not received:
                return
            head += received
        request, *lines = head.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = self.answer(request.rpartition(" ")[2], peer_of(connection), headers=headers)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    def h2c(self, connection: socket.socket) -> None:
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        state.initiate_connection()
        heads: dict[int, dict[str, str]] = {}
        while True:
            connection.sendall(state.data_to_send())
            received = connection.recv(65536)
            if not received:
                return
            for event in state.receive_data(received):
                if isinstance(event, h2.events.RequestReceived):
                    heads[event.stream_id] = dict(event.headers)  # type: ignore[arg-type]
                elif isinstance(event, h2.events.StreamEnded):
                    body = self.answer("HTTP/2", peer_of(connection), headers=heads.pop(event.stream_id))
                    state.send_headers(event.stream_id, [(":status", "200"), ("content-length", str(len(body)))])
                    state.send_data(event.stream_id, body, end_stream=True)

    def tcp(self, connection: socket.socket) -> None:
        """Speaks first, then repeats each line."""
        connection.sendall(f"{GREETING}\n".encode())
        with connection.makefile("rb") as lines:
            for line in lines:
                connection.sendall(self.answer("TCP", peer_of(connection), said=line.decode().strip()) + b"\n")

    def tls(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        with context.wrap_socket(connection, server_side=True) as inner:
            self.http(inner)

    def grpc(self, port: int) -> object:
        """An answer for each request, one or a stream of them. The server runs for as long as the result is held."""
        from concurrent.futures import ThreadPoolExecutor

        import grpc

        def said(request: bytes, context: Any) -> bytes:
            return self.answer(
                "gRPC",
                str(context.peer()),
                said=request.decode(),
                headers={str(name): str(value) for name, value in context.invocation_metadata()},
            )

        def one(request: bytes, context: Any) -> bytes:
            return said(request, context)

        def many(requests: Any, context: Any) -> Any:
            for request in requests:
                yield said(request, context)

        class Handler(grpc.GenericRpcHandler):
            def service(self, details: Any) -> Any:
                if details.method == METHOD_ONE:
                    return grpc.unary_unary_rpc_method_handler(one)
                return grpc.stream_stream_rpc_method_handler(many) if details.method == METHOD_MANY else None

        server = grpc.server(ThreadPoolExecutor(4), handlers=[Handler()])
        server.add_insecure_port(f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}")
        server.start()
        return server


def peer_of(connection: socket.socket) -> str:
    return str(connection.getpeername()[0]).removeprefix("::ffff:")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("name")
    parser.add_argument("speeches", nargs="*")
    parser.add_argument("--pem", default="")
    options = parser.parse_args()
    speaker, held = Speaker(options.host, options.name), []
    for speech, _, port in (each.partition(":") for each in options.speeches):
        if speech == "grpc":
            held.append(speaker.grpc(int(port)))
        elif speech == "tls":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(options.pem)
            speaker.listen(int(port), lambda connection, context=context: speaker.tls(connection, context))  # type: ignore[misc]
        else:
            speaker.listen(int(port), getattr(speaker, speech))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
