"""One HTTP request on a connection of its own, and how an answer looks; in the namespace of the thread that calls."""

import http.client
from collections.abc import Mapping
from typing import NamedTuple


class Answer(NamedTuple):
    """Status 0: there was none, and `body` says why."""

    status: int
    body: str
    headers: Mapping[str, str] = {}


def request(host: str, port: int, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode(errors="replace"), dict(answer.getheaders()))
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, str(error) or type(error).__name__)
    finally:
        connection.close()


def parse_answer(text: str) -> Answer:
    """Of `curl -i`: the last head counts, which follows a 100."""
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    if head.split()[1:2] == ["100"]:
        return parse_answer(body)
    first, *lines = head.split("\n")
    return Answer(
        int(first.split()[1]),
        body,
        {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)},
    )
