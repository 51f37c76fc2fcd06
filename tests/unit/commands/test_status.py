"""`status`: the facts of a running agent on one screen, and what it says when there are none."""

import copy
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.commands.status import mebibytes, screen, seconds
from tests.support.status_stand import RECORDED
from tests.unit.commands.runner import run


def text(**changes: Any) -> str:
    return "\n".join(screen({**copy.deepcopy(RECORDED), **changes}))


def test_the_first_line_says_whether_it_is_ready() -> None:
    assert text().splitlines()[0] == "READY"
    said = text(ready=False, reason="envoy: restarting: killed by signal 9")
    assert said.splitlines()[0] == "NOT READY: envoy: restarting: killed by signal 9"


def test_certificates_say_whose_they_are_until_when_and_what_is_wrong() -> None:
    known = {
        "name": "default",
        "source": "ca",
        "spiffe_id": "spiffe://a/ns/b/sa/c",
        "serial": "1f",
        "key": "EC secp256r1",
        "not_after": "2026-01-02T00:00:00Z",
        "next_renewal": "2026-01-01T12:00:00Z",
        "last_error": "the CA is down",
    }
    roots = {"name": "ROOTCA", "source": "ca", "roots": 2, "has_crl": True, "last_error": None}
    said = text(certificates=[known, roots, {"name": "file-root:/x", "last_error": "/x is missing or empty"}])
    for line in (
        "  default       spiffe://a/ns/b/sa/c, from ca",
        "                serial 1f, EC secp256r1",
        "                expires 2026-01-02T00:00:00Z, renewed at 2026-01-01T12:00:00Z",
        "                last error: the CA is down",
        "  ROOTCA        2 root certificates and a revocation list",
        "  file-root:/x  none",
        "                last error: /x is missing or empty",
    ):
        assert line in said.splitlines(), line


def test_the_stream_to_istiod_says_what_was_accepted_and_what_refused() -> None:
    def of(**changes: Any) -> dict[str, Any]:
        return {"version": "7", "nonce": "n", "answered_nonce": "n", "nack": None, **changes}

    types = {
        "envoy.config.cluster.v3.Cluster": of(),
        "envoy.config.listener.v3.Listener": of(nack="no such filter"),
        "envoy.config.route.v3.RouteConfiguration": of(answered_nonce="older"),
    }
    stream = {
        "istiod": "istiod:15012",
        "kind": "delta",
        "envoy_pid": 9,
        "since": "2026-01-01T00:00:00Z",
        "types": types,
    }
    said = text(xds={"streams": [stream], "problem": "istiod istiod:15012: refused"})
    for line in (
        "  istiod:15012  delta, Envoy pid 9, since 2026-01-01T00:00:00Z",
        "                Cluster: version 7, accepted",
        "                Listener: version 7, REFUSED: no such filter",
        "                RouteConfiguration: version 7, under way",
        "  problem       istiod istiod:15012: refused",
    ):
        assert line in said.splitlines(), line
    assert "Istiod" not in text()


def test_every_fact_is_on_the_screen() -> None:
    said = text()
    for fact in (
        "pilot-agent 0.2.0: mesh, sidecar, serving, up 2h 15m",
        "node sidecar~10.4.1.7~reviews-v2-6b8d~shop.svc, cluster reviews.shop",
        "[+] workers",
        "for 2h 15m",
        "epoch      3, pid 1742, up 4m 14s, 2 worker threads",
        "draining   epoch 2, pid 977",
        "restarts   2 crash, 1 change",
        "last exit  signal 9 (killed from outside) after 1m 1s",
        "traffic    1000 requests, 17 connections now",
        "memory     Envoy 58.2 MiB, agent 41.0 MiB",
        "0.0.0.0_9080     0.0.0.0:9080",
        "Certificates: none",
        "services     12",
        "changes      41 accepted, 1 refused",
        "refused now  listeners: 0.0.0.0_9080: filter chain 2 has the match of filter chain 1",
        "broken file  mesh/ratings.yaml: line 7: spec.ports is not a list",
        "0 bytes in 1500 ms, 4 failures; last error: connection refused",
        "the last thing that went wrong",
    ):
        assert fact in said, fact


def test_a_closed_gate_has_its_reason() -> None:
    gates = [{"name": "envoy", "state": "closed", "reason": "starting", "since_seconds": 2.5, "since": "x"}]
    assert "[-] envoy  for 2s starting" in text(gates=gates)


def test_many_listeners_are_counted() -> None:
    said = text(listeners=[{"name": f"l{number}", "address": "a"} for number in range(25)])
    assert "and 5 more" in said
    assert "l20" not in said


def test_what_is_missing_is_no_error() -> None:
    said = "\n".join(screen({}))
    assert said.startswith("NOT READY")
    assert "Envoy: none" in said
    assert "Last errors: none" in said


@given(st.fixed_dictionaries({}, optional={name: st.none() for name in RECORDED}))
def test_facts_that_are_none_are_shown_too(value: dict[str, Any]) -> None:
    assert list(screen(value))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0, "0s"), (59.9, "59s"), (60, "1m 0s"), (3725, "1h 2m"), (90061, "1d 1h")],
)
def test_lengths_of_time(value: float | None, shown: str) -> None:
    assert seconds(value) == shown


def test_sizes() -> None:
    assert (mebibytes(None), mebibytes(1024 * 1024)) == ("-", "1.0 MiB")


class Agent(BaseHTTPRequestHandler):
    body = b""
    code = 200

    def do_GET(self) -> None:
        self.send_response(self.code if self.path == "/debug/status" else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Agent) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
    Agent.body, Agent.code = b"", 200


def test_it_asks_the_agent_and_prints_the_screen(port: int) -> None:
    Agent.body = json.dumps(RECORDED).encode()
    ended = run("status", "--port", str(port))
    assert ended.code == 0
    assert ended.out.startswith("READY\npilot-agent 0.2.0")


def test_as_json_it_prints_what_the_agent_said(port: int) -> None:
    Agent.body = json.dumps(RECORDED).encode()
    assert json.loads(run("status", "--json", "--port", str(port)).out) == RECORDED


def test_an_agent_that_is_not_there_is_one_line(free_port: Any) -> None:
    ended = run("status", "--port", str(free_port()))
    assert ended.code == 255
    assert "connection refused" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "code", "said"), [(b"hello", 200, "is not a status"), (b"no", 403, "status code 403: no")]
)
def test_something_else_on_the_port_is_told(port: int, body: bytes, code: int, said: str) -> None:
    Agent.body, Agent.code = body, code
    ended = run("status", "--port", str(port))
    assert ended.code == 255
    assert said in ended.err
