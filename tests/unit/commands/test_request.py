"""`pilot-agent request`: which statuses are successes, what is sent, what is printed."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from pilot_agent.commands.request import PORTS
from tests.unit.commands.runner import Ended, Peer, answer, peer, run


def on_an_allowed_port(
    handle: Callable[[bytes], bytes | None], *, keeps_open: bool = False
) -> AbstractContextManager[Peer]:
    """15004 first: nothing of an agent listens there."""
    return peer(handle, (15004, *(port for port in PORTS if port != 15004)), keeps_open=keeps_open)


def request(made: Peer, *args: str) -> Ended:
    return run("request", "--debug-port", str(made.port), *args)


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "301 Moved", "304 Not Modified", "404 Not Found"])
def test_these_are_successes_and_the_body_is_printed_with_a_newline(status: str) -> None:
    body = b"" if status[:3] in ("204", "304") else b"the body"
    with on_an_allowed_port(lambda _: answer(status, body)) as made:
        ended = request(made, "GET", "/x")
    assert ended == (0, f"{body.decode()}\n", "")


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "405 No", "500 Oops", "503 Unavailable"])
def test_these_are_failures_and_the_body_is_in_the_error(status: str) -> None:
    with on_an_allowed_port(lambda _: answer(status, b"why\n")) as made:
        ended = request(made, "GET", "/x")
    assert ended == (255, "", f"Error: received unsuccessful status code {status[:3]}: why\n")


@pytest.mark.parametrize(
    ("path", "target"),
    [("drain", "/drain"), ("/drain", "/drain"), ("stats?filter=a&b", "/stats?filter=a&b"), ("//x", "//x"), ("", "/")],
)
def test_one_leading_slash_of_the_path_is_optional(path: str, target: str) -> None:
    with on_an_allowed_port(lambda _: answer("200 OK")) as made:
        assert request(made, "GET", path).code == 0
    assert made.requests[0].split(b" ")[1].decode() == target


def test_method_and_body_are_sent_with_their_length() -> None:
    with on_an_allowed_port(lambda _: answer("200 OK")) as made:
        assert request(made, "POST", "logging?level=debug", "grüße").code == 0
    head, _, body = made.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /logging?level=debug HTTP/1.1\r\n")
    assert f"\r\ncontent-length: {len('grüße'.encode())}" in head.decode().lower()
    assert body.decode() == "grüße"


def test_a_post_without_a_body_says_that_it_has_none() -> None:
    with on_an_allowed_port(lambda _: answer("200 OK")) as made:
        assert request(made, "POST", "drain").code == 0
    assert b"\r\ncontent-length: 0\r\n" in made.requests[0].lower()


@pytest.mark.parametrize(
    ("status", "method", "second"),
    [
        ("302 Found", "POST", "GET"),
        ("303 See Other", "POST", "GET"),
        ("307 Temporary Redirect", "POST", "POST"),
        ("308 Permanent Redirect", "PUT", "PUT"),
        ("301 Moved Permanently", "GET", "GET"),
    ],
)
def test_redirects_are_followed_as_gos_client_does(status: str, method: str, second: str) -> None:
    replies = [answer(status, b"", "Location: /there?x=1"), answer("200 OK", b"arrived")]
    with on_an_allowed_port(lambda _: replies.pop(0)) as made:
        assert request(made, method, "here", "body").out == "arrived\n"
    assert made.requests[1].startswith(f"{second} /there?x=1 ".encode())
    assert (
        made.requests[1].endswith(b"body" if second == method and method != "GET" else b"\r\n\r\n") or method == "GET"
    )


def test_redirects_in_a_circle_end() -> None:
    with on_an_allowed_port(lambda _: answer("302 Found", b"", "Location: /again")) as made:
        ended = request(made, "GET", "again")
    assert ended.err.endswith("stopped after 10 redirects\n")
    assert (ended.code, len(made.requests)) == (255, 11)


@pytest.mark.parametrize("port", ["80", "0", "15001", "15090", "-1", "99999"])
def test_only_the_agents_ports_are_allowed(port: str) -> None:
    ended = run("request", f"--debug-port={port}", "GET", "x")
    assert ended.code == 255
    assert ended.err.startswith(f"Error: debug port {port} is not one of [15000 15004 15020 15021]")


@pytest.mark.parametrize("args", [(), ("GET",)])
def test_fewer_than_two_arguments_are_a_failure(args: tuple[str, ...]) -> None:
    assert run("request", *args).code == 255


def test_a_body_that_ends_too_early_is_a_failure() -> None:
    with on_an_allowed_port(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf") as made:
        ended = request(made, "GET", "x")
    assert (ended.code, ended.err.endswith("the connection closed 96 bytes before the end of the body\n")) == (
        255,
        True,
    )


def test_a_chunked_body_is_printed_whole() -> None:
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    with on_an_allowed_port(lambda _: reply) as made:
        assert request(made, "GET", "x").out == "abcde\n"


def test_bytes_that_are_no_text_pass_unchanged() -> None:
    import subprocess

    from tests.unit.commands.runner import COMMAND

    body = bytes(range(256))
    with on_an_allowed_port(lambda _: answer("200 OK", body)) as made:
        done = subprocess.run(
            [*COMMAND, "request", "--debug-port", str(made.port), "GET", "x"], capture_output=True, check=True
        )
    assert done.stdout == body + b"\n"


def test_a_peer_that_keeps_the_connection_open_is_not_waited_for() -> None:
    """The length says where the body ends; nothing else would before the 60 s are over."""
    with on_an_allowed_port(lambda _: answer("200 OK", b"all"), keeps_open=True) as made:
        assert request(made, "GET", "x").out == "all\n"


def test_debug_lines_name_the_request() -> None:
    with on_an_allowed_port(lambda _: answer("200 OK", b"body")) as made:
        ended = request(made, "--log_output_level=debug", "--log_target=stderr", "GET", "x")
    assert ended.out == "body\n"
    assert ended.err.endswith(f"\tdebug\tGET http://localhost:{made.port}/x\n")
