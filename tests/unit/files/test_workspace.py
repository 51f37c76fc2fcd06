"""The directory the agent writes into: left as it was found."""

import os
from pathlib import Path

import pytest

from pilot_agent.errors import SettingsError
from pilot_agent.files.workspace import Workspace


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_all_that_was_made_is_taken_away(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "a" / "b")
    workspace.create("xds", "other")
    assert workspace.write("bootstrap.json", b"{}") == tmp_path / "a" / "b" / "bootstrap.json"
    workspace.claim("base-id").write_text("5")
    assert tree(tmp_path) == ["a", "a/b", "a/b/base-id", "a/b/bootstrap.json", "a/b/other", "a/b/xds"]
    workspace.remove()
    assert tree(tmp_path) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "etc" / "proxy").mkdir(parents=True)
    (tmp_path / "etc" / "proxy" / "theirs").touch()
    workspace = Workspace(tmp_path / "etc" / "proxy")
    workspace.create("xds")
    workspace.write("mine", b"x")
    workspace.remove()
    assert tree(tmp_path) == ["etc", "etc/proxy", "etc/proxy/theirs"]


def test_a_directory_that_was_there_stays_even_when_empty(tmp_path: Path) -> None:
    (tmp_path / "proxy" / "xds").mkdir(parents=True)
    workspace = Workspace(tmp_path / "proxy")
    workspace.create("xds")
    workspace.write("mine", b"x")
    workspace.remove()
    assert tree(tmp_path) == ["proxy", "proxy/xds"]


def test_a_directory_somebody_put_a_file_into_stays_with_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "a" / "proxy")
    workspace.create("xds", "empty")
    workspace.write("mine", b"x")
    (workspace.root / "xds" / "theirs").touch()
    workspace.remove()
    assert tree(tmp_path) == ["a", "a/proxy", "a/proxy/xds", "a/proxy/xds/theirs"]


def test_what_is_gone_already_is_no_error(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "proxy")
    workspace.create("xds")
    workspace.write("mine", b"x").unlink()
    workspace.claim("never-made")
    (workspace.root / "xds").rmdir()
    workspace.remove()
    assert tree(tmp_path) == []
    workspace.remove()


def test_a_second_removal_touches_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "proxy")
    workspace.create()
    workspace.write("mine", b"x")
    workspace.remove()
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "mine").touch()
    workspace.remove()
    assert tree(tmp_path) == ["proxy", "proxy/mine"]


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.touch()
    workspace = Workspace(tmp_path / "proxy")
    workspace.create()
    workspace.claim("link").symlink_to(theirs)
    workspace.remove()
    assert tree(tmp_path) == ["theirs"]


def test_the_root_does_not_move_with_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(Path("proxy"))
    workspace.create()
    monkeypatch.chdir(tmp_path / "elsewhere")
    workspace.write("mine", b"x")
    assert (tmp_path / "proxy" / "mine").read_bytes() == b"x"
    workspace.remove()
    assert tree(tmp_path) == ["elsewhere"]


def test_a_file_in_the_way_of_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    workspace = Workspace(tmp_path / "a" / "proxy")
    with pytest.raises(SettingsError) as refused:
        workspace.create()
    assert str(refused.value) == f"configPath {tmp_path}/a/proxy: {tmp_path}/a/proxy can't be made: Not a directory"
    workspace.remove()
    assert tree(tmp_path) == ["a"]


def test_what_was_made_before_a_failure_is_taken_away_too(tmp_path: Path) -> None:
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "file").touch()
    workspace = Workspace(tmp_path / "proxy")
    with pytest.raises(SettingsError, match=r"proxy/file/inner can't be made: Not a directory"):
        workspace.create("xds", "file/inner")
    assert tree(tmp_path) == ["proxy", "proxy/file", "proxy/xds"]
    workspace.remove()
    assert tree(tmp_path) == ["proxy", "proxy/file"]


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "proxy")
    workspace.create("bootstrap.json")
    with pytest.raises(SettingsError) as refused:
        workspace.write("bootstrap.json", b"x")
    assert str(refused.value) == (
        f"configPath {workspace.root}: {workspace.root}/bootstrap.json can't be written: Is a directory"
    )
    assert os.listdir(workspace.root) == ["bootstrap.json"]
    workspace.remove()
    assert tree(tmp_path) == []
