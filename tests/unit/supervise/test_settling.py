"""Waiting until Envoy has a version, without waiting for an Envoy that is not there or has nothing to say."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pilot_agent.supervise import settling
from pilot_agent.supervise.settling import Settling
from tests.support.ports import free_port

VERSION = 'cluster_manager.cds.version_text: "{}"\n'
WARMING = "cluster_manager.warming_clusters: {}\n"


class Admin(BaseHTTPRequestHandler):
    """Gives the server's `answers` one after the other, the last one again and again."""

    def do_GET(self) -> None:
        answers: list[str] = self.server.answers  # type: ignore[attr-defined]
        body = (answers.pop(0) if len(answers) > 1 else answers[0]).encode()
        self.server.asked += 1  # type: ignore[attr-defined]
        self.send_response(200 if body else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def admin(*answers: str) -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Admin)
    server.answers, server.asked = list(answers), 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked(*answers: str) -> int:
    with admin(*answers) as server:
        Settling("127.0.0.1", server.server_port)("cds", "new")
        return int(server.asked)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        ((VERSION.format("new") + WARMING.format(0),), 1),
        ((VERSION.format("old"), VERSION.format("old"), VERSION.format("new")), 3),
        ((VERSION.format("new") + WARMING.format(1), VERSION.format("new") + WARMING.format(0)), 2),
        (("something.else: 1\n",), 1),
        (("",), 1),
    ],
)
def test_it_asks_until_the_version_is_used(answers: tuple[str, ...], count: int) -> None:
    assert asked(*answers) == count


def test_it_gives_up_on_a_version_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "MOST_SECONDS", 0.05)
    assert asked(VERSION.format("old")) >= 1


def test_nobody_is_waited_for_where_there_is_no_envoy() -> None:
    Settling("127.0.0.1", free_port())("lds", "new")
