"""Hot-restart epochs, and the files Envoy keeps for them."""

from pathlib import Path

import pytest

from pilot_agent.envoy.epoch import Epoch, is_shared_memory_usable, read_base_id, remove_generation


def test_the_next_epoch_belongs_to_the_same_generation() -> None:
    assert Epoch(0, 5).next() == Epoch(1, 5)
    assert Epoch(3, None, False).next() == Epoch(4, None, False)


def test_the_base_id_envoy_wrote(tmp_path: Path) -> None:
    path = tmp_path / "base-id"
    path.write_text("4711")
    assert read_base_id(path) == 4711
    path.write_text("17\n")
    assert read_base_id(path) == 17


@pytest.mark.parametrize("content", [None, b"", b"x", b"\xff"])
def test_no_base_id_yet(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "base-id"
    if content is not None:
        path.write_bytes(content)
    assert read_base_id(path) is None


def test_only_what_that_generation_left_is_removed(tmp_path: Path) -> None:
    for name in ("envoy_shared_memory_50", "envoy_shared_memory_500", "envoy_shared_memory_5", "other"):
        (tmp_path / name).touch()
    base_id = tmp_path / "base-id"
    base_id.write_text("5")
    for _ in range(2):  # the second time there is nothing, and that is no error
        remove_generation(base_id, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "envoy_shared_memory_5",
            "envoy_shared_memory_500",
            "other",
        ]


def test_an_id_that_cannot_be_read_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "envoy_shared_memory_50").touch()
    (tmp_path / "base-id").write_text("")
    remove_generation(tmp_path / "base-id", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["envoy_shared_memory_50"]


def test_shared_memory_is_usable_where_files_can_be_made(tmp_path: Path) -> None:
    assert is_shared_memory_usable(tmp_path)
    assert not is_shared_memory_usable(tmp_path / "no")
