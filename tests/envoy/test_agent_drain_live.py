"""A drain with live connections of every kind: none is cut before the deadline, and the last one to go ends it."""

import http.client
import queue
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import grpc
import pytest

from tests.support.agents import AgentProcess
from tests.support.applications import Application, application
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.ports import free_ports
from tests.unit.mesh.declared import service_entry

MakeAgent = Callable[..., AgentProcess]
HOSTS = {"web": "HTTP", "echo": "TCP", "chat": "GRPC"}


class Chat(grpc.GenericRpcHandler):
    """`/chat/talk` answers each message with itself; `/chat/wait` answers once, when it is told to."""

    def __init__(self) -> None:
        self.told: Future[bytes] = Future()

    def service(self, details: Any) -> Any:
        if details.method == "/chat/talk":
            return grpc.stream_stream_rpc_method_handler(lambda messages, _: messages)
        return grpc.unary_unary_rpc_method_handler(lambda _, __: self.told.result(60))


@contextmanager
def chat_server() -> Iterator[tuple[int, Chat]]:
    chat = Chat()
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, handlers=[chat])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port, chat
        finally:
            if not chat.told.done():
                chat.told.set_result(b"over")
            server.stop(None).wait()


@contextmanager
def echo_server() -> Iterator[int]:
    """Sends back what each connection sends, one connection at a time."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    while data := connection.recv(1024):
                        connection.sendall(data)

        running = thread.submit(serve)
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        running.result(10)


class Talk:
    """A bidirectional gRPC stream that stays open until `end`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._out: queue.Queue[bytes | None] = queue.Queue()
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream("/chat/talk")
        self._in = call(iter(self._out.get, None), timeout=60)

    def say(self, text: bytes) -> bytes:
        self._out.put(text)
        return bytes(next(self._in))

    def end(self) -> list[bytes]:
        self._out.put(None)
        return [bytes(each) for each in self._in]


class Live(NamedTuple):
    """An agent, with a connection of each kind through its Envoy."""

    agent: AgentProcess
    app: Application
    chat: Chat
    held: "Future[tuple[int, bytes]]"
    waiting: "Future[bytes]"
    channel: grpc.Channel
    talk: Talk
    echo: socket.socket

    def is_alive(self) -> bool:
        self.echo.sendall(b"ping")
        return self.echo.recv(4) == b"ping" and self.talk.say(b"hello") == b"hello"


@pytest.fixture
def live(agent: MakeAgent) -> Iterator[Callable[..., Live]]:
    with ExitStack() as stack:

        def start(*flags: str) -> Live:
            app = stack.enter_context(application("web"))
            echo_port = stack.enter_context(echo_server())
            chat_port, chat = stack.enter_context(chat_server())
            running = agent(*flags, binary=envoy_binary())
            running.write_mesh(interceptionMode="NONE")
            running.config_dir.mkdir()
            ports = dict(zip(HOSTS, free_ports(len(HOSTS)), strict=True))
            targets = {"web": app.port, "echo": echo_port, "chat": chat_port}
            for name, protocol in HOSTS.items():
                text = service_entry(name, port=ports[name], protocol=protocol, target=targets[name])
                (running.config_dir / f"{name}.yaml").write_text(text)
            running.start().until_ready()
            stack.callback(running.kill)
            threads = stack.enter_context(ThreadPoolExecutor(4))
            channel = stack.enter_context(
                grpc.insecure_channel(
                    f"127.0.0.1:{ports['chat']}", options=[("grpc.default_authority", "chat.example.com")]
                )
            )
            echo = stack.enter_context(socket.create_connection(("127.0.0.1", ports["echo"]), timeout=30))
            held = threads.submit(_get, ports["web"], "/held")
            wait: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/chat/wait")
            waiting = threads.submit(lambda: wait(b"", timeout=60))
            stack.callback(_release, app, chat)
            one = Live(running, app, chat, held, waiting, channel, Talk(channel), echo)
            eventually(lambda: app.ask("/waiting") == "1")
            eventually(one.is_alive)
            return one

        yield start


def _release(app: Application, chat: Chat) -> None:
    """Let go what is held, so that the clients' threads end whatever the test found."""
    app.ask("/release")
    if not chat.told.done():
        chat.told.set_result(b"over")


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={"Host": "web.example.com"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("is_drained_before", [False, True], ids=["SIGTERM", "POST /drain, then SIGTERM"])
def test_no_connection_is_cut_and_the_last_one_ends_the_drain(
    live: Callable[..., Live], is_drained_before: bool
) -> None:
    one = live("--terminationDeadline", "60s")
    running = one.agent
    if is_drained_before:
        assert running.fetch("/drain", method="POST")[0] == 200
        assert one.is_alive()
    running.signal(signal.SIGTERM)
    eventually(lambda: running.fetch("/healthz/ready")[0] == 503)
    assert one.is_alive()
    assert not one.held.done()
    assert not one.waiting.done()

    one.app.ask("/release")
    assert one.held.result(10) == (200, b"web")
    assert one.is_alive()
    one.chat.told.set_result(b"answer")
    assert one.waiting.result(10) == b"answer"
    assert one.is_alive()
    assert one.talk.end() == []
    assert running.process.poll() is None
    one.echo.close()
    assert running.process.poll() is None, "the client of gRPC keeps its connection for the next call"
    one.channel.close()
    assert running.wait() == 0
    assert running.lines("no connection is left")
    assert running.left_behind() == []


def test_the_deadline_ends_what_does_not_end_by_itself(live: Callable[..., Live]) -> None:
    one = live("--terminationDeadline", "2s")
    running = one.agent
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    eventually(lambda: running.fetch("/healthz/ready")[0] == 503)
    while time.monotonic() - began < 1.5:
        assert one.is_alive()
    assert running.wait() == 0
    assert time.monotonic() - began >= 2.0
    assert one.echo.recv(4) == b""
    assert running.lines("shutdown took")
