"""Publishing a file: the old content or the new, and nothing left beside it."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pilot_agent.files.publish import publish, publish_all


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


def test_several_files_have_each_its_own_mode_whatever_the_umask(tmp_path: Path) -> None:
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    before = os.umask(0)
    try:
        publish_all({key: b"key", chain: b"chain"}, {chain: 0o644, key: 0o600})
    finally:
        os.umask(before)
    assert [(path.read_bytes(), path.stat().st_mode & 0o7777) for path in (key, chain)] == [
        (b"key", 0o600),
        (b"chain", 0o644),
    ]
    assert names(tmp_path) == ["chain.pem", "key.pem"]


def test_one_mode_is_for_all_of_several_files(tmp_path: Path) -> None:
    publish_all({tmp_path / "a": b"", tmp_path / "b": b""}, 0o640)
    assert [path.stat().st_mode & 0o7777 for path in tmp_path.iterdir()] == [0o640, 0o640]
    publish_all({tmp_path / "a": b""})
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o644


def test_a_file_without_a_mode_is_a_mistake_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        publish_all({tmp_path / "a": b"x", tmp_path / "b": b"x"}, {tmp_path / "a": 0o600})
    assert names(tmp_path) == []


@pytest.mark.parametrize("place", ["a", "b", "c"])
def test_a_directory_in_the_place_of_one_leaves_all_files_as_they_were(tmp_path: Path, place: str) -> None:
    paths = {name: tmp_path / name for name in "abc"}
    for name, path in paths.items():
        path.mkdir() if name == place else path.write_bytes(b"old")
    with pytest.raises(IsADirectoryError) as caught:
        publish_all(dict.fromkeys(paths.values(), b"new"))
    assert caught.value.filename == str(paths[place])
    assert [path.read_bytes() for name, path in paths.items() if name != place] == [b"old", b"old"]
    assert names(tmp_path) == ["a", "b", "c"]


def test_a_link_to_a_directory_is_replaced_as_any_link(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "a").symlink_to("directory")
    publish_all({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert ((tmp_path / "a").is_symlink(), (tmp_path / "a").read_bytes()) == (False, b"new")
    assert names(tmp_path / "directory") == []
