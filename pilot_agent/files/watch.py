"""Watching files and directories for changes, the way Kubernetes makes them.

Every directory on the link chain of a path is watched, non-recursively: a mounted ConfigMap changes by swapping the
`..data` link, which a watch on the file itself sees only once. A slow poll is the net under all of it. Whether
something really changed is for the subscriber to find out by content.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

STEP_MS = 10
"""How long the kernel's events are collected before they are told: a change has 0.1 s to be live."""
POLL_S = 30.0


class Subscription(NamedTuple):
    """`paths` gives files or directories, which need not exist yet; `changed` is called in the event loop."""

    name: str
    paths: Callable[[], Sequence[Path]]
    changed: Callable[[], None]


class Chain(NamedTuple):
    """What to watch for one or more paths: `directories`, and in them the `names` that matter.

    A directory in `whole` matters with everything in it.
    """

    directories: frozenset[Path] = frozenset()
    names: frozenset[Path] = frozenset()
    whole: frozenset[Path] = frozenset()

    def __or__(self, other: "Chain") -> "Chain":
        return Chain(*(mine | theirs for mine, theirs in zip(self, other, strict=True)))

    def is_touched_by(self, path: Path) -> bool:
        return path in self.names or path in self.directories or path.parent in self.whole


def link_chain(path: Path) -> Chain:
    """Everything whose change can change what `path` leads to: itself, and every link on the way.

    Of what does not exist yet, the nearest directory that does is watched.
    """
    directories: set[Path] = set()
    names: set[Path] = set()
    pending, seen = [Path(os.path.normpath(path.absolute()))], set[Path]()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for part in (current, *current.parents):
            if part.is_symlink():
                names.add(part)
                directories.add(part.parent)
                target = Path(os.path.normpath(part.parent / part.readlink()))
                pending.append(target / current.relative_to(part))
        while not current.parent.is_dir():
            names.add(current)
            current = current.parent
        names.add(current)
        directories.add(current.parent)
    whole = {each for each in seen if each.is_dir() and not each.is_symlink()}
    return Chain(frozenset(directories | whole), frozenset(names), frozenset(whole))


def directory_and_links(directory: Path) -> list[Path]:
    """A directory, and what lies in it as a link: a mounted file changes where the link leads."""
    try:
        return [directory, *(path for path in directory.iterdir() if path.is_symlink())]
    except OSError:
        return [directory]  # it is gone for now; the watch on its parent sees it come back


class Watcher:
    """Tells every subscription whose paths saw an event, and all of them every POLL_S seconds."""

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        self._subscriptions = tuple(subscriptions)
        self._stop: asyncio.Event | None = None

    def look_again(self) -> None:
        """The paths of a subscription changed without an event on any of them."""
        if self._stop is not None:
            self._stop.set()

    async def run(self) -> None:
        """Watch until cancelled. Raises OSError or RuntimeError when the kernel refuses a watch: run it again."""
        import watchfiles  # late: it costs 15 ms and is not needed before Envoy is ready

        while True:
            chains = self._chains()
            directories = {directory for chain in chains.values() for directory in chain.directories}
            stop = self._stop = asyncio.Event()
            changes = watchfiles.awatch(
                *sorted(map(str, directories)),
                watch_filter=None,
                debounce=10 * STEP_MS,
                step=STEP_MS,
                rust_timeout=int(POLL_S * 1000),
                yield_on_timeout=True,
                stop_event=stop,
                recursive=False,
            )
            # What changed between the last look and this watch being in place would otherwise wait for the poll.
            second_look = asyncio.get_running_loop().call_later(0.05, self._tell, self._subscriptions)
            try:
                async for batch in changes:
                    paths = [Path(path) for _, path in batch]
                    self._tell(self._touched(chains, paths) if paths else self._subscriptions)
                    # A directory that went may have been followed by another of its name: the watch is on the old one.
                    if not directories.isdisjoint(paths) or self._chains() != chains:
                        break
            except FileNotFoundError:
                # Swapped away between the look and the watch; what is there now is looked at anew.
                await asyncio.sleep(STEP_MS / 1000)
            finally:
                second_look.cancel()  # the agent may be ending, and its subscribers with it
                stop.set()  # the thread behind the watch ends at its next step

    def _touched(self, chains: dict[str, Chain], paths: Sequence[Path]) -> list[Subscription]:
        return [each for each in self._subscriptions if any(chains[each.name].is_touched_by(path) for path in paths)]

    @staticmethod
    def _tell(subscriptions: Iterable[Subscription]) -> None:
        for subscription in subscriptions:
            subscription.changed()

    def _chains(self) -> dict[str, Chain]:
        chains = {}
        for subscription in self._subscriptions:
            chain = Chain()
            for path in subscription.paths():
                chain |= link_chain(path)
            chains[subscription.name] = chain
        return chains
