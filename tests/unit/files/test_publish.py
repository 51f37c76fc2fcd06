"""Publishing a file: the old content or the new, and nothing left beside it."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pilot_agent.files.publish import publish


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    publish(path, b"one")
    assert path.read_bytes() == b"one"
    publish(path, b"")
    assert path.read_bytes() == b""
    assert names(tmp_path) == ["file.json"]


def test_it_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    publish(path, b"old")
    with path.open("rb") as reader:
        publish(path, b"new")
        assert reader.read() == b"old", "whoever has it open keeps the old one"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o644, 0o600, 0o444])
def test_the_mode_is_what_was_asked_for_whatever_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        publish(tmp_path / "file", b"x", mode)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == mode


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    (tmp_path / "link").symlink_to(target)
    publish(tmp_path / "link", b"new")
    assert target.read_bytes() == b"mine"
    assert not (tmp_path / "link").is_symlink()


def test_a_draft_left_by_a_killed_agent_of_the_same_pid_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".file.{os.getpid()}").write_bytes(b"much longer than what comes now")
    publish(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_what_is_in_the_way_is_an_error_that_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        publish(tmp_path / "file", b"x")
    assert names(tmp_path) == ["file"]


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "no" / "file", b"x")
    assert names(tmp_path) == []


def test_a_full_disk_keeps_the_old_content_and_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    publish(path, b"old")
    real_fdopen = os.fdopen

    def full(descriptor: int, mode: str) -> Any:
        file = real_fdopen(descriptor, mode)

        class Full:
            def __enter__(self) -> "Full":
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, _: bytes) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

        return Full()

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match="No space left"):
        publish(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]
