"""The demo's application, and the client that stands in for curl: answers, notes, headers."""

import io
import json
import threading
from collections.abc import Iterator

import pytest

from pilot_agent.demo import fetch
from pilot_agent.demo.http_request import Answer, parse_answer, request
from pilot_agent.demo.httpbin import Server


@pytest.fixture
def notes() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def port(notes: io.StringIO) -> Iterator[int]:
    with Server("127.0.0.1", 0, "httpbin-0", notes) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/hostname", 200, "httpbin-0\n"),
        ("/hostname?x=1", 200, "httpbin-0\n"),
        ("/ip", 200, '{"origin": "127.0.0.1"}\n'),
        ("/status/418", 418, ""),
        ("/delay/0.01", 200, "httpbin-0 after 0.01 s\n"),
        ("/delay/x", 404, "/delay/x: not here"),
        ("/status/99", 404, "/status/99: not here"),
    ],
)
def test_it_answers_as_httpbin_does(port: int, path: str, status: int, text: str) -> None:
    answer = request("127.0.0.1", port, path)
    assert (answer.status, answer.body[: len(text)]) == (status, text)


def test_each_request_is_noted_as_it_came_in_but_for_scrapes(port: int, notes: io.StringIO) -> None:
    assert "X-A" in request("127.0.0.1", port, "/headers", headers={"X-A": "b"}).body
    assert request("127.0.0.1", port, "/metrics").body.count("\nhttpbin_") == 2
    (note,) = map(json.loads, notes.getvalue().splitlines())
    assert (note["path"], note["status"], note["destination"]) == ("/headers", 200, f"127.0.0.1:{port}")
    assert note["source"].startswith("127.0.0.1:")
    assert note["headers"]["X-A"] == "b"


def test_the_client_prints_what_curl_would(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--connect-to", f"::127.0.0.1:{port}", "--header", "X-A: b", f"http://httpbin:{port + 1}/headers"]
    assert fetch.main(words) == 0
    answer = parse_answer(capsys.readouterr().out)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    headers = json.loads(answer.body)["headers"]
    assert (headers["X-A"], headers["Host"]) == ("b", f"httpbin:{port + 1}")


def test_nobody_there_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.main(["http://127.0.0.1:1/"]) == 7
    assert capsys.readouterr().err.startswith("127.0.0.1:1: ")
    assert request("127.0.0.1", 1, "/").status == 0


def test_the_last_head_of_an_answer_counts() -> None:
    text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nServer: envoy\r\n\r\nbody\r\n\r\nmore"
    assert parse_answer(text) == Answer(200, "body\n\nmore", {"server": "envoy"})
