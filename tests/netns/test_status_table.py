"""The status port's rules, row by row from the reference: path, method and peer against the answer, with a real Envoy.

Peers: `loopback`, `127.0.0.6` (the source Istio's own inbound traffic has), `itself` (the pod by its own address),
`peer` (another machine), and `15021` (through Envoy's readiness listener, which arrives from loopback).
"""

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import NamedTuple

import pytest

from tests.support.agents import AgentProcess
from tests.support.envoy_binary import envoy_binary
from tests.support.namespaces import Namespace, connect, missing, namespace

MakeAgent = Callable[..., AgentProcess]

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

HERE, THERE = "10.79.0.1", "10.79.0.2"
LOCAL_ONLY = "Only requests from localhost are allowed\n"


class Row(NamedTuple):
    peer: str
    method: str
    path: str
    status: int
    body: str = ""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


ROWS = [
    Row("loopback", "GET", "/healthz/ready", 200),
    Row("loopback", "HEAD", "/healthz/ready", 200),
    Row("loopback", "POST", "/healthz/ready", 200),
    Row("peer", "GET", "/healthz/ready", 200),
    Row("15021", "GET", "/healthz/ready", 200),
    Row("loopback", "GET", "/healthz/ready/", 404, "404 page not found"),
    Row("peer", "GET", "/metrics", 200, "# HELP"),
    Row("peer", "GET", "/stats/prometheus", 200, "# HELP"),
    Row("peer", "HEAD", "/stats/prometheus", 200),
    Row("loopback", "GET", "/quitquitquit", 405, "Method Not Allowed\n"),
    Row("127.0.0.6", "GET", "/quitquitquit", 405, "Method Not Allowed\n"),
    Row("peer", "POST", "/quitquitquit", 403, LOCAL_ONLY),
    Row("peer", "GET", "/quitquitquit", 403, LOCAL_ONLY),
    Row("itself", "POST", "/quitquitquit", 403, LOCAL_ONLY),
    Row(
        "peer", "POST", "/quitquitquit", 403, LOCAL_ONLY, {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    ),
    Row("loopback", "GET", "/drain", 405, "Method Not Allowed\n"),
    Row("peer", "POST", "/drain", 403, LOCAL_ONLY),
    Row("itself", "GET", "/drain", 403, LOCAL_ONLY),
    Row("peer", "GET", "/debug/ndsz", 403, LOCAL_ONLY),
    Row("loopback", "GET", "/debug/ndsz", 404, "{}"),
    Row("peer", "GET", "/debug/pprof/", 403, LOCAL_ONLY),
    Row("loopback", "GET", "/debug/pprof/", 404),
    Row("peer", "GET", "/debug/status", 403, LOCAL_ONLY),
    Row("peer", "GET", "/debug/shutdown", 403, LOCAL_ONLY),
    Row("peer", "GET", "/", 403, LOCAL_ONLY),
    Row("peer", "GET", "/app-health/web/readyz", 400),
    Row("peer", "GET", "/app-lifecycle/web/prestopz", 400),
    Row("loopback", "GET", "/debug/status", 403, "Requests of another site", {"Host": "evil.example"}),
    Row("loopback", "POST", "/quitquitquit", 403, "Requests of another site", {"Origin": "http://evil.example"}),
    Row("loopback", "GET", "/nothing", 404, "404 page not found"),
    # Nothing is cleaned and then served.
    Row("loopback", "POST", "//quitquitquit", 307),
    Row("loopback", "POST", "/healthz/ready/../../quitquitquit", 307),
    Row("loopback", "POST", "/healthz/ready/%2e%2e/%2e%2e/quitquitquit", 404),
    Row("loopback", "POST", "/%71uitquitquit", 404),
    Row("15021", "POST", "/healthz/ready/../../quitquitquit", 307),
    Row("15021", "POST", "/healthz/ready/%2e%2e/%2e%2e/quitquitquit", 404),
    Row("15021", "POST", "/quitquitquit", 404),
    Row("15021", "GET", "/metrics", 404),
]


class Pod(NamedTuple):
    agent: AgentProcess
    here: Namespace
    there: Namespace

    def ask(self, row: Row) -> tuple[int, str]:
        ports = self.agent.ports
        host = {"peer": HERE, "itself": HERE}.get(row.peer, "127.0.0.1")
        port = ports.ready if row.peer == "15021" else ports.status
        source = {"127.0.0.6": ("127.0.0.6", 0), "itself": (HERE, 0)}.get(row.peer)

        def send() -> tuple[int, str]:
            # http.client sends the path as it is; urllib would clean it.
            with closing(http.client.HTTPConnection(host, port, timeout=20, source_address=source)) as connection:
                connection.request(row.method, row.path, headers=row.headers)
                answer = connection.getresponse()
                return answer.status, answer.read().decode(errors="replace")

        return (self.there if row.peer == "peer" else self.here).call(send)


@pytest.fixture
def pod(agent: MakeAgent) -> Iterator[Callable[..., Pod]]:
    with ExitStack() as stack:

        def start(**env: str) -> Pod:
            here, there = (stack.enter_context(namespace(role)) for role in ("pod", "peer"))
            connect(here, f"{HERE}/24", there, f"{THERE}/24")
            running = agent(binary=envoy_binary(), env=env)
            stack.callback(running.kill)  # before the namespaces go
            running.start(*here.prefix)
            here.call(running.until_ready)
            return Pod(running, here, there)

        yield start


def test_every_answer_is_the_references(pod: Callable[..., Pod]) -> None:
    one, wrong = pod(), []
    for row in ROWS:
        status, body = one.ask(row)
        if status != row.status or not body.startswith(row.body):
            wrong.append((row, status, body[:80]))
    assert wrong == []
    assert one.agent.process.poll() is None
    assert one.ask(Row("loopback", "GET", "/healthz/ready", 200)) == (200, "")
    assert one.agent.stop() == 0


def test_metrics_for_loopback_only(pod: Callable[..., Pod]) -> None:
    closed = pod(METRICS_LOCALHOST_ACCESS_ONLY="true")
    for path in ("/metrics", "/stats/prometheus"):
        assert closed.ask(Row("peer", "GET", path, 403)) == (403, LOCAL_ONLY)
        assert closed.ask(Row("itself", "GET", path, 403)) == (403, LOCAL_ONLY)
        assert closed.ask(Row("loopback", "GET", path, 200))[0] == 200
    assert closed.ask(Row("peer", "GET", "/healthz/ready", 200))[0] == 200
    assert closed.agent.stop() == 0


def test_a_megabyte_of_headers_is_refused_and_costs_nobody_else(pod: Callable[..., Pod]) -> None:
    one = pod()

    def flood() -> bytes:
        with socket.create_connection(("127.0.0.1", one.agent.ports.status), timeout=20) as connection:
            try:
                connection.sendall(b"GET /metrics HTTP/1.1\r\n" + b"X-Large: " + b"x" * 1024 * 1024 + b"\r\n\r\n")
            except OSError:
                pass  # refused before it was all sent
            try:
                return connection.recv(64)
            except OSError:
                return b"reset"

    assert one.here.call(flood).startswith((b"HTTP/1.1 431", b"reset"))
    assert one.ask(Row("loopback", "GET", "/healthz/ready", 200))[0] == 200
    assert one.agent.stop() == 0
