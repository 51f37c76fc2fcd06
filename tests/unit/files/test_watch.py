"""Watching: which directories and links matter to a path, and real changes as the kernel tells them."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from pilot_agent.files.watch import Chain, Subscription, Watcher, directory_and_links, link_chain
from tests.support.eventually_async import eventually_async
from tests.support.mounts import Mount

# Chains


def relative(paths: frozenset[Path], root: Path) -> list[str]:
    """Those below `root`, without the directories above it (the way there may lead over links of the machine)."""
    return sorted(str(path.relative_to(root)) for path in paths if path.is_relative_to(root))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def test_a_plain_file_is_watched_through_its_directory(root: Path) -> None:
    (root / "file").touch()
    chain = link_chain(root / "file")
    assert chain == Chain(frozenset({root}), frozenset({root / "file"}), frozenset())


def test_a_directory_is_watched_whole_and_through_its_parent(root: Path) -> None:
    (root / "mesh").mkdir()
    chain = link_chain(root / "mesh")
    assert relative(chain.directories, root) == [".", "mesh"]
    assert relative(chain.names, root) == ["mesh"]
    assert chain.whole == {root / "mesh"}


@pytest.mark.parametrize("path", ["a/b/file", "a/b/c/d/file"])
def test_what_does_not_exist_is_watched_from_the_nearest_directory(root: Path, path: str) -> None:
    (root / "a").mkdir()
    chain = link_chain(root / path)
    assert chain.directories == {root / "a"}
    assert root / "a" / "b" in chain.names
    assert root / path in chain.names


def test_a_file_in_the_way_is_no_directory(root: Path) -> None:
    (root / "a").touch()
    assert link_chain(root / "a" / "file").directories == {root}


def test_a_mounted_config_map_is_watched_at_its_data_link(root: Path) -> None:
    Mount(root / "mount").publish(mesh="one")
    chain = link_chain(root / "mount" / "mesh")
    revision = (root / "mount" / "..data").readlink()
    assert {root / "mount", root / "mount" / revision} <= chain.directories
    assert {root / "mount" / "mesh", root / "mount" / "..data", root / "mount" / revision / "mesh"} <= chain.names
    assert chain.whole == set()


def test_links_of_directories_on_the_way_matter(root: Path) -> None:
    (root / "real" / "inner").mkdir(parents=True)
    (root / "link").symlink_to("real")
    chain = link_chain(root / "link" / "inner" / "file")
    assert root in chain.directories
    assert root / "real" / "inner" in chain.directories
    assert {root / "link", root / "real" / "inner" / "file"} <= chain.names


def test_absolute_links_and_links_to_links(root: Path) -> None:
    for name in ("a", "b", "c"):
        (root / name).mkdir()
    (root / "c" / "file").touch()
    (root / "b" / "link").symlink_to(root / "c" / "file")
    (root / "a" / "link").symlink_to("../b/link")
    chain = link_chain(root / "a" / "link")
    assert relative(chain.directories, root) == ["a", "b", "c"]
    assert relative(chain.names, root) == ["a/link", "b/link", "c/file"]


def test_a_dangling_link_is_watched_where_its_target_would_be(root: Path) -> None:
    (root / "there").mkdir()
    (root / "link").symlink_to("there/missing")
    chain = link_chain(root / "link")
    assert relative(chain.directories, root) == [".", "there"]
    assert relative(chain.names, root) == ["link", "there/missing"]


@pytest.mark.parametrize("links", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "./b"}])
def test_links_that_lead_nowhere_end(root: Path, links: dict[str, str]) -> None:
    for name, target in links.items():
        (root / name).symlink_to(target)
    chain = link_chain(root / "a")
    assert chain.directories == {root}
    assert relative(chain.names, root) == sorted(links)


def test_paths_are_taken_from_the_working_directory_without_detours(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a").mkdir()
    monkeypatch.chdir(root)
    assert link_chain(Path("./a/../a/file")) == link_chain(root / "a" / "file")


def test_chains_are_added_up() -> None:
    one = Chain(frozenset({Path("/a")}), frozenset({Path("/a/x")}), frozenset())
    two = Chain(frozenset({Path("/b")}), frozenset(), frozenset({Path("/b")}))
    assert one | two == Chain(frozenset({Path("/a"), Path("/b")}), frozenset({Path("/a/x")}), frozenset({Path("/b")}))


@pytest.mark.parametrize(
    ("path", "touches"),
    [
        ("/a/x", True),
        ("/a/y", False),
        ("/a", True),
        ("/b/any", True),
        ("/b", True),
        ("/b/any/below", False),
        ("/", False),
    ],
)
def test_what_touches_a_chain(path: str, touches: bool) -> None:
    chain = Chain(frozenset({Path("/a"), Path("/b")}), frozenset({Path("/a/x")}), frozenset({Path("/b")}))
    assert chain.is_touched_by(Path(path)) is touches


def test_a_directory_and_the_links_in_it(root: Path) -> None:
    (root / "file").touch()
    (root / "link").symlink_to("file")
    assert directory_and_links(root) == [root, root / "link"]
    assert directory_and_links(root / "no") == [root / "no"]


# Real changes


class Watched:
    """A watcher at work on paths below `root`, and what it told.

    The watcher tells everybody once, a moment after each new watch; the bystander's path never changes, so what it is
    told counts those. Once it has heard of the last watch, only a real event can tell anybody anything.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.told = {"bystander": 0}
        self.paths: dict[str, list[Path]] = {"bystander": [root / "bystander"]}
        self.watches: list[set[str]] = []
        real = watchfiles.awatch

        def noting(*directories: str, **options: Any) -> AsyncGenerator[Any, None]:
            self.watches.append(set(directories))
            return real(*directories, **options)

        patch.setattr(watchfiles, "awatch", noting)

    def watch(self, name: str, *paths: Path) -> None:
        self.told[name] = 0
        self.paths[name] = list(paths)

    def _subscription(self, name: str) -> Subscription:
        def changed() -> None:
            self.told[name] += 1

        return Subscription(name, lambda: self.paths[name], changed)

    def _is_settled(self) -> bool:
        chains = [link_chain(path) for paths in self.paths.values() for path in paths]
        wanted = {str(directory) for chain in chains for directory in chain.directories}
        return bool(self.watches) and self.watches[-1] == wanted and self.told["bystander"] == len(self.watches)

    async def until_told(self, name: str, change: Callable[[], object]) -> None:
        """Returns when the subscription was told of `change` by an event, and everything is watched as it should."""
        before = self.told[name]
        change()
        await eventually_async(lambda: self.told[name] > before)
        await eventually_async(self._is_settled)

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` while the watcher does."""

        async def run() -> None:
            task = asyncio.create_task(Watcher(map(self._subscription, self.told)).run())
            try:
                await eventually_async(lambda: self._is_settled() or task.done())
                assert not task.done(), task
                await work()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(run())


@pytest.fixture
def watched(root: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(root, monkeypatch)


def test_a_file_is_created_changed_replaced_and_removed(root: Path, watched: Watched) -> None:
    path = root / "file"
    watched.watch("file", path)

    def replaced() -> None:
        (root / "draft").write_text("3")
        (root / "draft").rename(path)

    async def work() -> None:
        await watched.until_told("file", lambda: path.write_text("1"))
        await watched.until_told("file", lambda: path.write_text("2"))
        await watched.until_told("file", replaced)
        await watched.until_told("file", path.unlink)
        await watched.until_told("file", lambda: path.write_text("4"))

    watched.run(work)
    assert len(watched.watches) == 1, "none of this needs another watch"


def test_every_swap_of_a_mounted_directory_is_seen(root: Path, watched: Watched) -> None:
    mount = Mount(root / "mount")
    mount.publish(mesh="0")
    watched.watch("mesh", root / "mount" / "mesh")

    async def work() -> None:
        for number in range(1, 6):
            await watched.until_told("mesh", partial(mount.publish, mesh=str(number)))

    watched.run(work)


def test_a_directory_is_removed_and_comes_back(root: Path, watched: Watched) -> None:
    mesh = root / "deep" / "mesh"
    mesh.mkdir(parents=True)
    watched.watch("mesh", mesh)

    async def work() -> None:
        await watched.until_told("mesh", (mesh / "one.yaml").touch)
        await watched.until_told("mesh", lambda: shutil.rmtree(mesh))
        await watched.until_told("mesh", mesh.mkdir)
        await watched.until_told("mesh", (mesh / "two.yaml").touch)
        await watched.until_told("mesh", lambda: shutil.rmtree(root / "deep"))
        await watched.until_told("mesh", lambda: mesh.mkdir(parents=True))
        await watched.until_told("mesh", (mesh / "three.yaml").touch)

    watched.run(work)


def exchanged_by_renames(mesh: Path) -> None:
    (mesh.parent / "next").mkdir()
    mesh.rename(mesh.parent / "aside")
    (mesh.parent / "next").rename(mesh)


def exchanged_by_removal(mesh: Path) -> None:
    mesh.rmdir()
    mesh.mkdir()  # which may well have the number of the one before


def exchanged_with_its_parent(mesh: Path) -> None:
    mesh.parent.rename(mesh.parent.with_name("aside"))
    mesh.mkdir(parents=True)


@pytest.mark.parametrize("exchange", [exchanged_by_renames, exchanged_by_removal, exchanged_with_its_parent])
def test_a_directory_exchanged_for_another_of_its_name(
    root: Path, watched: Watched, exchange: Callable[[Path], None]
) -> None:
    """At once, so that whoever looks afterwards finds everything where it was."""
    mesh = root / "deep" / "mesh"
    mesh.mkdir(parents=True)
    watched.watch("mesh", mesh)

    async def work() -> None:
        await watched.until_told("mesh", lambda: exchange(mesh))
        await eventually_async(lambda: len(watched.watches) > 1 and watched._is_settled())
        await watched.until_told("mesh", (mesh / "one.yaml").touch)

    watched.run(work)


def test_a_path_that_does_not_exist_yet_is_followed_as_it_grows(root: Path, watched: Watched) -> None:
    path = root / "a" / "b" / "file"
    watched.watch("file", path)

    async def work() -> None:
        await watched.until_told("file", (root / "a").mkdir)
        await watched.until_told("file", (root / "a" / "b").mkdir)
        await watched.until_told("file", path.touch)

    watched.run(work)


def test_only_the_subscription_whose_path_changed_is_told(root: Path, watched: Watched) -> None:
    (root / "mesh").mkdir()
    for name in ("one", "two"):
        (root / name).touch()
    watched.watch("one", root / "one")
    watched.watch("two", root / "two")
    watched.watch("mesh", root / "mesh")

    async def work() -> None:
        before = dict(watched.told)
        await watched.until_told("one", lambda: (root / "one").write_text("x"))
        assert watched.told["mesh"] == before["mesh"]
        await watched.until_told("mesh", (root / "mesh" / "new").touch)
        (root / "unwatched").touch()
        await watched.until_told("mesh", (root / "mesh" / "newer").touch)
        assert watched.told["two"] == before["two"]

    watched.run(work)


def test_a_new_path_of_a_subscription_is_watched_from_the_next_event_on(root: Path, watched: Watched) -> None:
    (root / "far").mkdir()
    watched.watch("grows", root / "one")

    async def work() -> None:
        watched.paths["grows"].append(root / "far" / "file")
        await watched.until_told("grows", (root / "one").touch)
        await watched.until_told("grows", (root / "far" / "file").touch)

    watched.run(work)


def test_a_watcher_ends_when_it_is_cancelled(root: Path) -> None:
    told: list[str] = []
    subscription = Subscription("file", lambda: [root / "file"], lambda: told.append("file"))

    async def run() -> None:
        task = asyncio.create_task(Watcher([subscription]).run())
        await eventually_async(lambda: bool(told))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
