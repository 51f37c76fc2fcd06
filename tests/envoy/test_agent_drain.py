"""Ending a real Envoy that has work: what is in flight is answered, and nothing waits longer than that."""

import http.client
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.support.agents import AgentProcess
from tests.support.applications import Application, application
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.unit.mesh.declared import service_entry

MakeAgent = Callable[..., AgentProcess]
HOST = {"Host": "app.example.com"}


@pytest.fixture
def app() -> Iterator[Application]:
    with application("backend") as running:
        yield running


class Draining:
    """An agent, and a client with one kept connection on which requests are made."""

    def __init__(self, running: AgentProcess, port: int, app: Application) -> None:
        self.agent, self.app = running, app
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str = "/") -> tuple[int, str, str]:
        """Status, body and the connection header."""
        self.connection.request("GET", path, headers=HOST)
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode(), answer.getheader("connection", "")


@pytest.fixture
def draining(agent: MakeAgent, app: Application) -> Iterator[Callable[..., Draining]]:
    """Starts an agent in a role; the client's connection is there and has been used."""
    made: list[Draining] = []

    def start(role: str, *flags: str) -> Draining:
        running, port = agent(*flags, binary=envoy_binary()), free_port()
        running.write_mesh(interceptionMode="NONE")
        running.config_dir.mkdir()
        (running.config_dir / "app.yaml").write_text(service_entry("app", port=port, target=app.port))
        running.start(role=role).until_ready()
        one = Draining(running, port, app)
        made.append(one)
        eventually(lambda: one.ask() == (200, "backend", ""))
        return one

    yield start
    for one in made:
        one.connection.close()


@pytest.mark.parametrize("role", ["router", "sidecar"])
def test_a_request_in_flight_is_answered_and_then_it_ends(draining: Callable[..., Draining], role: str) -> None:
    one = draining(role, "--terminationDeadline", "60s")
    running = one.agent
    with ThreadPoolExecutor(1) as client, closing(one.connection):
        answer = client.submit(one.ask, "/held")
        try:
            eventually(lambda: one.app.ask("/waiting") == "1")
            running.signal(signal.SIGTERM)
            eventually(lambda: running.fetch("/healthz/ready") == (503, "terminating: draining: SIGTERM\n"))
            assert running.fetch("/metrics")[0] == 200
            assert running.process.poll() is None and not answer.done()
        finally:
            one.app.ask("/release")
        # A router's clients are told to go; a sidecar's outbound listeners do not drain, its client goes by itself.
        assert answer.result() == (200, "backend", "close" if role == "router" else "")
        one.connection.close()
        assert running.wait() == 0
    assert running.lines("until: no connection is left")
    assert running.left_behind() == []


def test_the_deadline_cuts_what_never_ends(draining: Callable[..., Draining]) -> None:
    one = draining("sidecar", "--terminationDeadline", "1s")
    with ThreadPoolExecutor(1) as client, closing(one.connection):
        answer = client.submit(one.ask, "/held")
        eventually(lambda: one.app.ask("/waiting") == "1")
        assert one.agent.stop() == 0
        with pytest.raises((OSError, http.client.HTTPException)):
            answer.result()
    assert one.agent.lines("until: the deadline is over")
    one.app.ask("/release")
