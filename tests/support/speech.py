"""Clients for what `speaker` serves, one connection each: called in the network namespace of the pod that asks.

Each gives the JSON of the answer, or {} with an "error" where there was none. gRPC has threads that no call can put
into a namespace, so its client is a program of its own: `python -m tests.support.speech HOST:PORT`.
"""

import json
import socket
import ssl
import sys
from typing import Any, NamedTuple

import h2.config
import h2.connection
import h2.events

from pilot_agent.demo.http_request import request
from tests.support.speaker import GREETING, METHOD_MANY, METHOD_ONE

LIMIT_S = 5.0
Reply = dict[str, Any]


def ask_http(address: str, port: int, host: str = "", path: str = "/") -> Reply:
    """HTTP/1.1; "status" is in the reply."""
    answer = request(address, port, path, headers={"Host": host or f"{_bracketed(address)}:{port}"})
    if answer.status == 0:
        return {"error": answer.body}
    try:
        return {"status": answer.status, **json.loads(answer.body)}
    except ValueError:
        return {"status": answer.status, "body": answer.body}


def ask_h2c(address: str, port: int, host: str) -> Reply:
    """HTTP/2 without TLS, by prior knowledge."""
    state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    state.initiate_connection()
    head = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", host)]
    state.send_headers(1, head, end_stream=True)
    body, status = b"", 0
    with socket.create_connection((address, port), timeout=LIMIT_S) as connection:
        while True:
            connection.sendall(state.data_to_send())
            received = connection.recv(65536)
            if not received:
                return {"error": "the connection was closed"}
            for event in state.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[":status"])  # type: ignore[index]
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data or b""
                elif isinstance(event, h2.events.StreamEnded):
                    return {"status": status, **json.loads(body)}


def ask_tcp(address: str, port: int, *lines: str, is_first: bool = False) -> Reply:
    """The server speaks first, unless `is_first`. Of the last answer, with the "source" we asked from."""
    try:
        with (
            socket.create_connection((address, port), timeout=LIMIT_S) as connection,
            connection.makefile("rb") as file,
        ):
            if is_first:
                connection.sendall(f"{lines[0]}\n".encode())
            greeting = file.readline().decode().strip()
            if greeting != GREETING:
                return {"error": f"{greeting!r} in place of the greeting"}
            answer = b""
            for line in lines:
                if not is_first or line is not lines[0]:
                    connection.sendall(f"{line}\n".encode())
                answer = file.readline()
            return {**json.loads(answer), "source": connection.getsockname()[0]} if answer else {"error": "closed"}
    except OSError as error:
        return {"error": str(error)}


def ask_tls(address: str, port: int, name: str, authority: str) -> Reply:
    """HTTP/1.1 in TLS to the server `name`, whose certificate has to be of `authority` (PEM): nobody is in between."""
    context = ssl.create_default_context(cadata=authority)
    try:
        with (
            socket.create_connection((address, port), timeout=LIMIT_S) as connection,
            context.wrap_socket(connection, server_hostname=name) as inner,
        ):
            inner.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            answer = b""
            while received := inner.recv(65536):
                answer += received
    except OSError as error:
        return {"error": str(error)}
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


class GrpcReplies(NamedTuple):
    one: Reply
    many: list[Reply]


def ask_grpc(target: str) -> GrpcReplies:
    """One call, then one with a stream in each direction whose next message waits for the answer to the last."""
    import queue

    import grpc

    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call_one: Any = channel.unary_unary(METHOD_ONE)
        call_many: Any = channel.stream_stream(METHOD_MANY)
        one = json.loads(call_one(b"one", timeout=LIMIT_S))
        waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        many = []
        answers = call_many(iter(waiting.get, None), timeout=LIMIT_S)
        for word in (b"a", b"b", b"c"):
            waiting.put(word)
            many.append(json.loads(next(answers)))
        waiting.put(None)
        assert list(answers) == []
    return GrpcReplies(one, many)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


if __name__ == "__main__":
    sys.stdout.write(json.dumps(ask_grpc(sys.argv[1])))
