"""`pilot-agent wait`: asks at once, says why it waits, and gives up in time."""

import json
import socket
import subprocess

import pytest

from pilot_agent.commands.wait import reason_url
from tests.support.ports import free_port
from tests.unit.commands.runner import COMMAND, answer, peer, run

NOBODY = ("--statusPort", "0")
"""An agent of this machine is not asked."""


def messages(out: str) -> list[str]:
    return [line.split("\t", 2)[2] for line in out.splitlines()]


def test_a_ready_proxy_is_one_probe_and_one_line() -> None:
    with peer(lambda _: answer("200 OK")) as made:
        # A period longer than the test may take: the first probe does not wait for it.
        ended = run("wait", "--url", f"http://127.0.0.1:{made.port}/healthz/ready", "--periodMillis", "600000")
    assert (ended.code, messages(ended.out), ended.err) == (0, ["Envoy is ready!"], "")
    assert [request.split(b"\r\n")[0] for request in made.requests] == [b"GET /healthz/ready HTTP/1.1"]


def test_each_reason_is_said_once_and_the_body_of_a_503_is_one() -> None:
    bodies = (b"envoy: starting: no\n", b"envoy: starting: no\n", b"terminating: draining")
    answers = [answer("503 Service Unavailable", body) for body in bodies]
    answers += [answer("200 OK")]
    with peer(lambda _: answers.pop(0)) as made:
        ended = run("wait", "--url", f"http://127.0.0.1:{made.port}/", "--periodMillis", "1", "--timeoutSeconds", "50")
    assert messages(ended.out) == [
        "Waiting for Envoy proxy to be ready (timeout: 50 seconds)...",
        "waiting: envoy: starting: no",
        "waiting: terminating: draining",
        "Envoy is ready!",
    ]
    assert ended.code == 0


def test_the_agent_says_which_gate_is_closed_while_envoy_does_not_listen_yet() -> None:
    bodies = [b"envoy: starting: connection refused\n", b"config: no configuration received yet\n"]

    def reply(_: bytes) -> bytes:
        return answer("503 Service Unavailable", bodies.pop(0) if len(bodies) > 1 else bodies[0])

    with peer(reply) as agent:
        url = f"http://127.0.0.1:{free_port()}/healthz/ready"
        args = ["--statusPort", str(agent.port), "--periodMillis", "100", "--timeoutSeconds", "1"]
        ended = run("wait", "--url", url, *args)
    assert messages(ended.out)[:3] == [
        "Waiting for Envoy proxy to be ready (timeout: 1 seconds)...",
        "waiting: envoy: starting: connection refused",
        "waiting: config: no configuration received yet",
    ]
    assert agent.requests[0].startswith(b"GET /healthz/ready HTTP/1.1\r\n")
    assert ended.err == (
        "Error: timeout waiting for Envoy proxy to become ready. "
        "Last error: connection refused: config: no configuration received yet\n"
    )


def test_an_agent_that_is_ready_does_not_make_envoy_ready() -> None:
    with peer(lambda _: answer("200 OK")) as agent:
        url = f"http://127.0.0.1:{free_port()}/"
        ended = run("wait", "--url", url, "--statusPort", str(agent.port), "--timeoutSeconds", "0")
    assert ended.code == 255
    assert ended.err.endswith("Last error: connection refused\n")


@pytest.mark.parametrize(
    ("url", "port", "asked"),
    [
        ("http://localhost:15021/healthz/ready", 15020, "http://localhost:15020/healthz/ready"),
        ("http://[::1]:15021/x?y", 16020, "http://[::1]:16020/healthz/ready"),
        ("http://localhost:15021/", 0, None),
        ("localhost:15021", 15020, None),
        ("http://[::1", 15020, None),
    ],
)
def test_where_the_agent_is_asked(url: str, port: int, asked: str | None) -> None:
    assert reason_url(url, port) == asked


@pytest.mark.parametrize("status", ["201 Created", "204 No Content", "404 Not Found", "500 Oops"])
def test_only_200_is_ready(status: str) -> None:
    with peer(lambda _: answer(status)) as made:
        ended = run("wait", "--url", f"http://127.0.0.1:{made.port}/", "--timeoutSeconds", "0", *NOBODY)
    reason = f"Last error: HTTP status code {status[:3]}"
    assert ended.code == 255
    assert ended.err == f"Error: timeout waiting for Envoy proxy to become ready. {reason}\n"


def test_a_redirect_is_followed() -> None:
    def reply(request: bytes) -> bytes:
        return answer("302 Found", b"", "Location: /there") if request.startswith(b"GET / ") else answer("200 OK")

    with peer(reply) as made:
        assert run("wait", "--url", f"http://127.0.0.1:{made.port}/").code == 0


def test_no_time_at_all_is_one_probe() -> None:
    ended = run("wait", "--url", f"http://127.0.0.1:{free_port()}/", "--timeoutSeconds", "0", *NOBODY)
    assert ended.code == 255
    assert ended.err.endswith("Last error: connection refused\n")


def test_a_silent_peer_costs_one_request_timeout() -> None:
    with peer(lambda _: None) as made:
        url = f"http://127.0.0.1:{made.port}/"
        ended = run("wait", "--url", url, "--timeoutSeconds", "0", "--requestTimeoutMillis", "50", *NOBODY)
    assert (ended.code, ended.err.rpartition("Last error: ")[2]) == (255, "no answer within 0.05s\n")


def test_a_peer_that_dribbles_is_held_to_the_same_timeout() -> None:
    """Each byte would reset a timeout of the socket; the deadline is over all of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        args = ["wait", "--url", url, "--timeoutSeconds", "0", "--requestTimeoutMillis", "200", *NOBODY]
        process = subprocess.Popen([*COMMAND, *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        connection, _ = listener.accept()
        with connection:
            while process.poll() is None:
                try:
                    connection.sendall(b"H")
                except OSError:
                    break
        _, err = process.communicate(timeout=30)
    assert process.returncode == 255
    assert err.startswith(b"Error: timeout waiting")


def test_what_is_not_http_is_named_so() -> None:
    with peer(lambda _: b"SSH-2.0-OpenSSH_9.9\r\n") as made:
        ended = run("wait", "--url", f"http://127.0.0.1:{made.port}/", "--timeoutSeconds", "0", *NOBODY)
    assert "Last error: not an HTTP answer: " in ended.err


@pytest.mark.parametrize("url", ["localhost:15021", "ftp://localhost/", "http://", "http://x:y/"])
def test_a_url_that_is_none_is_named(url: str) -> None:
    ended = run("wait", "--url", url, "--timeoutSeconds", "0", *NOBODY)
    assert (ended.code, ended.err.count("\n")) == (255, 1)
    assert "internal error" not in ended.err


def test_logging_flags_are_honoured() -> None:
    with peer(lambda _: answer("200 OK")) as made:
        url = f"http://127.0.0.1:{made.port}/"
        as_json = run("wait", "--url", url, "--log_as_json")
        quiet = run("wait", "--url", url, "--log_output_level=error")
        elsewhere = run("wait", "--url", url, "--log_target=stderr")
    assert json.loads(as_json.out)["msg"] == "Envoy is ready!"
    assert quiet == (0, "", "")
    assert (elsewhere.out, messages(elsewhere.err)) == ("", ["Envoy is ready!"])


def test_proxy_variables_are_not_for_us() -> None:
    with peer(lambda _: answer("200 OK")) as made:
        env = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "x"}
        assert run("wait", "--url", f"http://127.0.0.1:{made.port}/", env=env).code == 0


@pytest.mark.parametrize(
    "flag", ["--timeoutSeconds=-1", "--timeoutSeconds=1s", "--periodMillis=0", "--requestTimeoutMillis=0"]
)
def test_numbers_that_make_no_sense_are_refused(flag: str) -> None:
    ended = run("wait", flag)
    assert (ended.code, ended.out) == (255, "")
    assert f"invalid value for {flag.partition('=')[0]}: " in ended.err
