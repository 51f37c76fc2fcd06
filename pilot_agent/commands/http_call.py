"""The small HTTP client of `request`, `wait` and `drain`.

Blocking, one deadline over everything (resolve, connect, redirects, body), no proxy variables, nothing but the standard
library: it must have sent its request within 100 ms of exec.
"""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, NoReturn
from urllib.parse import urljoin, urlsplit

from pilot_agent.errors import AgentError

if TYPE_CHECKING:
    import http.client

_MOST_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class RequestFailed(AgentError):
    """No answer: refused, timed out, or not HTTP."""


class Answer(NamedTuple):
    """`read(most)` gives up to that many bytes of the body, b"" at its end."""

    status: int
    read: Callable[[int], bytes]


class Call(NamedTuple):
    method: str
    url: str
    body: bytes | None = None

    @contextmanager
    def answered(self, timeout: float) -> Iterator[Answer]:
        """The answer, its body unread, after following redirects. Reading it counts against `timeout` (seconds) too.

        Raises RequestFailed. Main thread only: the deadline is an alarm, the one thing that also bounds a peer that
        sends a byte now and then, and a name server that does not answer.
        """
        with _alarm(timeout):
            connection = None
            failures: tuple[type[Exception], ...] = (OSError, ValueError)
            try:
                call = self
                for _ in range(_MOST_REDIRECTS + 1):
                    connection = call._connect()
                    failures = (OSError, ValueError, _http_exception())
                    headers = {"User-Agent": "pilot-agent", "Accept-Encoding": "identity"}
                    connection.request(call.method, call._target(), call.body, headers)
                    response = connection.getresponse()
                    following = call._redirected(response.status, response.getheader("Location"))
                    if following is None:
                        break
                    connection.close()
                    call = following
                else:
                    raise RequestFailed(f"{self.method} {self.url}: stopped after {_MOST_REDIRECTS} redirects")
            except failures as error:
                raise RequestFailed(f"{self.method} {self.url}: {_reason(error, timeout)}") from None
            else:

                def read(most: int) -> bytes:
                    try:
                        # Not read1: in Python 3.11 it forgets the length and waits for the peer to close.
                        chunk = response.read(most)
                    except failures as error:
                        raise RequestFailed(f"{self.method} {self.url}: {_reason(error, timeout)}") from None
                    if not chunk and response.length:
                        missing = f"{response.length} bytes before the end of the body"
                        raise RequestFailed(f"{self.method} {self.url}: the connection closed {missing}")
                    return chunk

                try:
                    yield Answer(response.status, read)
                except TimeoutError as error:  # the caller was busy with the body, not with us
                    raise RequestFailed(f"{self.method} {self.url}: {_reason(error, timeout)}") from None
            finally:
                if connection is not None:
                    connection.close()

    def _connect(self) -> "http.client.HTTPConnection":
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RequestFailed(f"{self.url!r} is not an http:// or https:// URL")
        if parts.scheme == "http":
            # Connected first, imported after (http.client costs 30 ms, and a refused port needs none of it). The host
            # is bytes because text makes getaddrinfo import the IDNA tables, another 7 ms.
            host = parts.hostname.encode("ascii" if parts.hostname.isascii() else "idna")
            link = socket.create_connection((host, parts.port or 80))  # type: ignore[arg-type] # bytes are fine
        import http.client

        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.hostname, parts.port)
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        connection.sock = link
        return connection

    def _target(self) -> str:
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def _redirected(self, status: int, location: str | None) -> "Call | None":
        """As Go's client: 307 and 308 repeat the request, the older ones turn into GET."""
        if status not in _REDIRECTS or not location:
            return None
        url = urljoin(self.url, location)
        if status in (307, 308):
            return self._replace(url=url)
        return Call(self.method if self.method == "HEAD" else "GET", url)


def _http_exception() -> type[Exception]:
    import http.client

    return http.client.HTTPException


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    # Repeating, since one alarm can be lost in a destructor, where Python drops exceptions.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _reason(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g}s"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return f"not an HTTP answer: {' '.join(str(error).split()) or type(error).__name__}"


def answer_text(answer: Answer, most: int) -> str:
    """The first `most` bytes of the body, as text."""
    body = b""
    while len(body) < most and (chunk := answer.read(most - len(body))):
        body += chunk
    return body.decode(errors="replace").strip()
