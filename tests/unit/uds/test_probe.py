"""Who is behind a Unix socket: a real HTTP/2 server, something else that listens, or nobody."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilot_agent.errors import SettingsError
from pilot_agent.uds.listener import behind
from pilot_agent.uds.probe import EMPTY_SETTINGS, PREFACE, find_workload_socket, is_serving_http2, server_on

SHORT_S = 0.1
LONG_S = 20.0

Answer = Callable[[socket.socket], None]


def say(*parts: bytes) -> Answer:
    """Hear the client out, then send each part by itself."""

    def answer(connection: socket.socket) -> None:
        heard = b""
        while len(heard) < len(PREFACE + EMPTY_SETTINGS):
            heard += connection.recv(100)
        assert heard == PREFACE + EMPTY_SETTINGS
        for part in parts:
            connection.sendall(part)

    return answer


def say_nothing(connection: socket.socket) -> None:
    while connection.recv(100):
        pass


class Server:
    """Listens on a Unix socket and treats one connection as `answer` does, then closes it."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
            with connection:
                self._answer(connection)
        except OSError:
            pass  # closed, by us or by the probe

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


Serve = Callable[[Answer], Path]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def serve(path: Path) -> Iterator[Serve]:
    servers = []

    def start(answer: Answer) -> Path:
        servers.append(Server(path, answer))
        return path

    yield start
    for server in servers:
        server.close()


SETTINGS_OF_GRPC = b"\0\0\x06\x04\0\0\0\0\0" + b"\0\x05\0\0\x40\0"


@pytest.mark.parametrize(
    "parts",
    [
        (EMPTY_SETTINGS,),
        (SETTINGS_OF_GRPC,),
        (SETTINGS_OF_GRPC[:2], SETTINGS_OF_GRPC[2:4], SETTINGS_OF_GRPC[4:]),
        (SETTINGS_OF_GRPC, b"\0\0\0\x04\x01\0\0\0\0"),
    ],
)
def test_a_server_that_opens_with_settings_is_one(serve: Serve, parts: tuple[bytes, ...]) -> None:
    assert is_serving_http2(serve(say(*parts)), LONG_S)


@pytest.mark.parametrize(
    "words",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"\0\0\0\x04\x01\0\0\0\0",  # an acknowledgement before any settings
        b"\0\0\0\x04\0\0\0\0\x01",  # settings of a stream
        b"\0\0\x08\x07\0\0\0\0\0" + bytes(8),  # GOAWAY
        b"\0\0\x05\x04\0\0\0\0\0",  # settings have six bytes each
        b"\xff\xff\xf0\x04\0\0\0\0\0",
        b"\0\0\0\x04",  # and then the end
        b"",
    ],
)
def test_a_server_that_says_something_else_is_none(serve: Serve, words: bytes) -> None:
    assert not is_serving_http2(serve(say(words)), LONG_S)


def test_a_listener_that_never_speaks_is_none(serve: Serve) -> None:
    assert not is_serving_http2(serve(say_nothing), SHORT_S)


def test_a_server_that_speaks_too_slowly_is_none(serve: Serve) -> None:
    """The time is for the whole answer: a byte now and then does not make it longer."""

    def drip(connection: socket.socket) -> None:
        connection.settimeout(SHORT_S / 4)
        for byte in SETTINGS_OF_GRPC:
            try:
                while connection.recv(100):
                    pass
                return  # the probe has gone
            except TimeoutError:
                connection.sendall(bytes([byte]))

    assert not is_serving_http2(serve(drip), SHORT_S)


def test_a_listener_that_never_accepts_is_none(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(0)
        waiting.connect(str(path))
        assert not is_serving_http2(path, SHORT_S)


def test_a_busy_server_is_waited_for(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(0)
        waiting.connect(str(path))

        is_full = threading.Event()

        def get_to_work() -> None:
            is_full.wait()
            listener.accept()[0].close()
            connection, _ = listener.accept()
            with connection:
                say(EMPTY_SETTINGS)(connection)

        thread = threading.Thread(target=get_to_work)
        thread.start()
        with socket.socket(socket.AF_UNIX) as refused:
            refused.setblocking(False)
            with pytest.raises(BlockingIOError):
                refused.connect(str(path))  # the backlog is full, and so it will be for the probe
        is_full.set()
        assert is_serving_http2(path, LONG_S)
        thread.join()


def leave_behind(path: Path) -> Path:
    """A socket whose server is gone."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


def test_where_nobody_listens_there_is_no_server(path: Path) -> None:
    assert not is_serving_http2(path)
    assert not is_serving_http2(leave_behind(path))


def test_what_is_no_socket_is_no_server(path: Path) -> None:
    path.write_text("")
    assert not is_serving_http2(path)
    path.unlink()
    path.mkdir()
    assert not is_serving_http2(path)


def test_a_path_no_socket_can_have_is_no_server(tmp_path: Path) -> None:
    assert not is_serving_http2(tmp_path / ("s" * 108))
    assert not is_serving_http2("/ü" + "ü" * 53)
    assert not is_serving_http2("a\0b")


def test_the_longest_path_a_socket_can_have(tmp_path: Path) -> None:
    path = tmp_path / ("s" * (107 - len(os.fsencode(tmp_path)) - 1))
    assert len(os.fsencode(path)) == 107
    server = Server(path, say(EMPTY_SETTINGS))
    assert is_serving_http2(path, LONG_S)
    server.close()


def test_no_time_is_no_answer(serve: Serve) -> None:
    assert not is_serving_http2(serve(say(EMPTY_SETTINGS)), 0.0)


# The workload's socket


def test_a_live_socket_is_somebody_elses(serve: Serve, path: Path) -> None:
    serve(say(EMPTY_SETTINGS))
    found = find_workload_socket(path.parent)
    assert (found.path, found.state, found.is_external) == (path, "external", True)


def test_a_live_socket_may_have_another_name(tmp_path: Path) -> None:
    server = Server(tmp_path / "spire.sock", say(EMPTY_SETTINGS))
    assert find_workload_socket(tmp_path, "spire.sock").is_external
    server.close()


def test_without_a_socket_the_agent_is_on_its_own(path: Path) -> None:
    assert find_workload_socket(path.parent).state == "none"
    assert find_workload_socket(path.parent / "missing").state == "none"


def test_a_regular_file_is_no_socket_and_stays(path: Path) -> None:
    path.write_text("kept")
    assert find_workload_socket(path.parent).state == "none"
    assert path.read_text() == "kept"


def test_a_socket_nobody_answers_on_is_stale_and_stays(path: Path) -> None:
    leave_behind(path)
    found = find_workload_socket(path.parent)
    assert (found.state, found.is_external) == ("stale", False)
    assert path.exists()


def test_a_silent_socket_is_stale(serve: Serve, path: Path) -> None:
    serve(say_nothing)
    assert find_workload_socket(path.parent, timeout=SHORT_S).state == "stale"


def test_a_directory_in_its_place_is_stale(path: Path) -> None:
    path.mkdir()
    assert find_workload_socket(path.parent).state == "stale"


def refusal(directory: Path, name: str) -> str:
    with pytest.raises(SettingsError) as refused:
        find_workload_socket(directory, name)
    return str(refused.value)


ADVICE = "start what serves SDS there first, or leave the variable unset"


def test_another_name_must_be_a_live_socket(tmp_path: Path) -> None:
    other = tmp_path / "other"
    variable = "WORKLOAD_IDENTITY_SOCKET_FILE"
    assert refusal(tmp_path, "other") == f"{variable}: there is no socket {other}: {ADVICE}"
    leave_behind(other)
    assert refusal(tmp_path, "other") == f"{variable}: nothing answers gRPC on {other}: {ADVICE}"
    assert other.exists()


@pytest.mark.parametrize("name", ["../other", "/run/other", "a/", "", ".", ".."])
def test_a_name_is_not_a_path(name: str) -> None:
    assert refusal(Path("run"), name) == (
        f"WORKLOAD_IDENTITY_SOCKET_FILE: {name!r} is not a file name: give the name alone; it is in run"
    )


def test_an_agents_own_socket_is_no_identity_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = Server(path, say(EMPTY_SETTINGS))
    try:
        behind(path, os.getpid()).touch()
        found = find_workload_socket(tmp_path, "socket", LONG_S)
    finally:
        server.close()
    assert found.state == "agent" and not found.is_external
    assert server_on(path) is None, "nobody listens any more"
