"""A Unix socket that listens before there is a server behind it."""

import os
import shutil
import socket
import stat
from pathlib import Path

import pytest

from pilot_agent.errors import SettingsError
from pilot_agent.uds.listener import LONGEST_PATH, Listener, check_length


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(os.fspath(path))
    return client


def refusal(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        Listener(path, "SDS")
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.startswith("SDS: ") and str(path) in text
    return text


def test_it_listens_from_its_creation_on(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "socket", "SDS")
    clients = [connect(listener.path) for _ in range(50)]
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
    for number, client in enumerate(clients):
        accepted, _ = listener.socket.accept()
        with accepted, client:
            assert accepted.recv(10) == b"%d" % number, "who waits is served in order, with what was said"
    listener.close()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_every_user_may_connect_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        listener = Listener(tmp_path / "socket", "SDS")
    finally:
        os.umask(before)
    mode = listener.path.stat().st_mode
    listener.close()
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o666)


def test_its_file_goes_with_it(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "socket", "SDS")
    listener.close()
    assert list(tmp_path.iterdir()) == []
    listener.close()


def test_somebody_elses_file_stays(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "socket", "SDS")
    listener.path.unlink()
    successor = Listener(listener.path, "SDS")
    listener.close()
    connect(successor.path).close()
    successor.close()
    assert not successor.path.exists()


def test_a_file_that_is_gone_is_no_error(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "socket", "SDS")
    listener.path.unlink()
    listener.close()


def test_missing_directories_are_made_and_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "var" / "run" / "secrets" / "socket"
    listener = Listener(path, "SDS")
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) & ~0o750 == 0
    connect(path).close()
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_directories_others_use_stay(tmp_path: Path) -> None:
    path = tmp_path / "var" / "run" / "socket"
    listener = Listener(path, "SDS")
    (tmp_path / "var" / "file").write_text("")
    listener.close()
    assert [each.name for each in (tmp_path / "var").iterdir()] == ["file"]


def test_a_directory_that_vanished_is_no_error(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "var" / "socket", "SDS")
    shutil.rmtree(tmp_path / "var")
    listener.close()


# What is there already


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    left = socket.socket(socket.AF_UNIX)
    left.bind(os.fspath(path))
    left.close()
    listener = Listener(path, "SDS")
    connect(path).close()
    listener.close()


def test_a_file_and_a_link_are_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    path = tmp_path / "socket"
    for make in (lambda: path.write_text("x"), lambda: path.symlink_to(target), lambda: path.symlink_to("nowhere")):
        make()
        listener = Listener(path, "SDS")
        connect(path).close()
        listener.close()
    assert target.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["target"]


def test_a_directory_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "socket").mkdir()
    refusal(tmp_path / "socket")
    assert (tmp_path / "socket").is_dir()


# Where there can be none


def test_a_path_that_is_too_long_is_told_with_its_length(tmp_path: Path) -> None:
    longest = tmp_path / ("x" * (LONGEST_PATH - len(os.fsencode(tmp_path)) - 1))
    listener = Listener(longest, "SDS")
    connect(longest).close()
    listener.close()
    text = refusal(longest.with_name(longest.name + "x"))
    assert f"has {LONGEST_PATH + 1} bytes" in text and f"can have {LONGEST_PATH}" in text
    assert list(tmp_path.iterdir()) == []


def test_the_length_is_that_of_its_bytes() -> None:
    check_length(Path("/" + "é" * 53), "SDS")
    with pytest.raises(SettingsError, match="109 bytes"):
        check_length(Path("/" + "é" * 54), "SDS")


def test_a_file_in_place_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = refusal(tmp_path / "file" / "socket")
    assert "Not a directory" in text
    text = refusal(tmp_path / "file" / "below" / "socket")
    assert "Not a directory" in text
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_directories_made_for_nothing_are_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    text = refusal(tmp_path / "var" / "run" / "socket")
    assert "Operation not permitted" in text
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_can_not_be_written_is_told_with_owner_and_mode() -> None:
    """Even root makes nothing in /proc."""
    text = refusal(Path("/proc/sys/socket"))
    assert "(/proc/sys belongs to uid 0, mode 555; we are " in text
