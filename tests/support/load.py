"""Requests without a pause, from clients that keep their connection and clients that open one for each request."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.eventually import eventually

MOST_REQUESTS = 100_000
MOST_SECONDS = 90.0


class Client:
    """One of them, in a thread of its own; `failures` says how each failed request failed."""

    def __init__(self, port: int, host: str, expected: str | None, *, keeps_alive: bool) -> None:
        self._port, self._host, self._expected, self._keeps_alive = port, host, expected, keeps_alive
        self.answered = 0
        self.connections = 0
        self.failures: list[str] = []

    def run(self, is_over: Callable[[], bool]) -> None:
        deadline = time.monotonic() + MOST_SECONDS
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not is_over() and self.answered < MOST_REQUESTS and time.monotonic() < deadline:
            self._ask(connection)
            if not self._keeps_alive:
                connection.close()
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        try:
            self.connections += connection.sock is None
            connection.request("GET", "/", headers={"Host": self._host})
            answer = connection.getresponse()
            body = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            kind = "kept" if self._keeps_alive else "new"
            self.failures.append(f"{time.time():.3f}: {error!r} on a {kind} connection")
            connection.close()
            return
        if answer.status != 200 or self._expected not in (None, body):
            self.failures.append(f"{answer.status}: {body[:200]}")
        self.answered += 1


class Load:
    def __init__(self, clients: list[Client], threads: list[threading.Thread]) -> None:
        self.clients, self._threads = clients, threads

    @property
    def failures(self) -> list[str]:
        return [failure for client in self.clients for failure in client.failures]

    def go_on(self, requests: int = 20) -> None:
        """Wait until every client has made so many more requests."""
        wanted = [client.answered + requests for client in self.clients]
        eventually(
            lambda: all(client.answered >= each for client, each in zip(self.clients, wanted, strict=True)), within=15
        )

    @property
    def is_on(self) -> bool:
        """No client has come to the end of its bounds."""
        return all(thread.is_alive() for thread in self._threads)


@contextmanager
def load(port: int, host: str, expected: str | None, *, keeping: int = 2, opening: int = 2) -> Iterator[Load]:
    """As long as the block runs: `keeping` clients that keep their connection, `opening` that open new ones.

    The answer has to be `expected`, or anything where that is None.
    """
    is_over = threading.Event()
    clients = [Client(port, host, expected, keeps_alive=number < keeping) for number in range(keeping + opening)]
    threads = [threading.Thread(target=client.run, args=(is_over.is_set,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield Load(clients, threads)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
