"""A client of a cloud's metadata server: small facts over plain HTTP, each within its time and all within one deadline.

Never through a proxy, never to anywhere else than the server: redirects count as no answer. Its answers are not trusted
more than others: long ones, and what is not one line of text, are left out with a warning.
"""

import http.client
import socket
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pilot_agent.clock import Deadline

TIMEOUT_S = 1.0
LONGEST_FACT = 1024
LONGEST_ANSWER = 256 * 1024


class NoAnswer(Exception):
    """The server can't be reached, or what it says is no HTTP, or came too late. Never leaves this package."""


class MetadataServer:
    """Once it did not answer, it is asked no more: what is left to ask is unknown then."""

    def __init__(
        self,
        url: str,
        deadline: Deadline,
        warnings: list[str],
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.url = url
        self.headers = dict(headers or {})
        self._deadline = deadline
        self._warnings = warnings
        self._timeout_s = timeout_s
        self._is_silent = False

    def fact(self, path: str) -> str:
        """One line of text; empty where the server knows none."""
        text = self.answer(path).strip()
        if len(text) > LONGEST_FACT or not text.isprintable():
            self.warn(f"{path} is no line of text")
            return ""
        return text

    def answer(self, path: str) -> str:
        """The body; empty where the server has nothing there, or has stopped answering."""
        if self._is_silent:
            return ""
        try:
            return self.ask("GET", path)
        except NoAnswer as error:
            self._is_silent = True
            self.warn(f"{path}: {error}")
            return ""

    def warn(self, problem: str) -> None:
        self._warnings.append(f"cloud metadata from {self.url}: {problem}")

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> str:
        """The body of a 200, empty for every other status. Raises NoAnswer."""
        deadline = self._deadline.sooner(self._timeout_s)
        try:
            with _connect(self.url, deadline) as connected:
                connection = http.client.HTTPConnection(urlsplit(self.url).netloc)
                connection.sock = connected
                connection.request(method, path, headers={**self.headers, **(headers or {}), "Connection": "close"})
                with connection.getresponse() as response:
                    return _body(response) if response.status == http.client.OK else ""
        except TimeoutError:
            raise NoAnswer("no answer in time") from None
        except OSError as error:
            raise NoAnswer(f"no answer: {error.strerror or error}") from None
        except http.client.HTTPException:
            raise NoAnswer("no answer: what it says is not HTTP") from None
        except ValueError:
            raise NoAnswer("no answer: the address can't be used") from None


def _body(response: http.client.HTTPResponse) -> str:
    body = response.read(LONGEST_ANSWER + 1)
    if len(body) > LONGEST_ANSWER:
        raise NoAnswer("the answer is too long")
    if response.length:  # with a size to read, http.client takes an early end for the end
        raise NoAnswer("the answer was cut off")
    return body.decode("utf-8", "replace")


class _DeadlineSocket(socket.socket):
    """Every read gets only what is left of the time: http.client by itself would wait anew for each piece."""

    deadline: Deadline

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_time_left(self.deadline))
        return super().recv_into(*args, **kwargs)


def _connect(url: str, deadline: Deadline) -> socket.socket:
    """Raises OSError (TimeoutError included) and ValueError."""
    address = urlsplit(url)
    family, target = _resolve(address.hostname or "", address.port or http.client.HTTP_PORT, deadline)
    connected = _DeadlineSocket(family, socket.SOCK_STREAM)
    try:
        connected.deadline = deadline
        connected.settimeout(_time_left(deadline))
        connected.connect(target)
    except BaseException:
        connected.close()
        raise
    return connected


def _resolve(host: str, port: int, deadline: Deadline) -> tuple[int, Any]:
    """Family and address. A name is looked up in a thread, for getaddrinfo can't be told how long it may take."""
    try:
        return _look_up(host, port, socket.AI_NUMERICHOST)
    except OSError:
        pass  # a name
    found: list[tuple[int, Any]] = []

    def look_up() -> None:
        try:
            found.append(_look_up(host, port))
        except (OSError, UnicodeError):
            pass  # no such name

    thread = threading.Thread(target=look_up, name="cloud-resolver", daemon=True)
    thread.start()
    thread.join(_time_left(deadline))
    if thread.is_alive():
        raise TimeoutError
    if not found:
        raise OSError(f"{host} has no address")
    return found[0]


def _look_up(host: str, port: int, flags: int = 0) -> tuple[int, Any]:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
    return family, address


def _time_left(deadline: Deadline) -> float:
    if deadline.is_over:
        raise TimeoutError
    return deadline.left
