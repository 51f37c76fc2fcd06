"""A Unix socket that listens before there is a server behind it: Envoy connects, and waits in the backlog.

Bound before Envoy is spawned (DESIGN, invariant 2), so it needs no more than `socket`. Who accepts is `relay`.
"""

import os
import socket
import stat
import struct
from pathlib import Path

from pilot_agent.errors import SettingsError

BACKLOG = 1024
MODE = 0o666
"""Envoy may run as another user (reference security-xds.md, section 1)."""

LONGEST_PATH = 107
"""Bytes of a Unix socket's path: sockaddr_un has 108, one of them for the end."""


CREDENTIALS = struct.Struct("3i")
"""SO_PEERCRED: pid, uid and gid of the other end."""


def check_length(path: Path, what: str) -> None:
    """Raises SettingsError for a path that no Unix socket can have."""
    size = len(os.fsencode(path))
    if size > LONGEST_PATH:
        raise SettingsError(
            f"{what}: the socket's path {path} has {size} bytes, and a Unix socket's can have {LONGEST_PATH}: "
            "start the agent in a directory with a shorter path, or shorten the name"
        )


def behind(path: Path, pid: int) -> Path:
    """The server's own socket behind the public one at `path`: it also tells that the process `pid` is an agent."""
    return path.with_name(f".{path.name}.{pid}")


class Listener:
    """Listening from its creation on; `close` takes the socket's file away, unless somebody else's is there by then."""

    def __init__(self, path: Path, what: str) -> None:
        """Whatever is at `path` is replaced; who is alive there was probed before. Raises SettingsError naming it."""
        check_length(path, what)
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._made: list[Path] = []
        try:
            self._make_parents()
            path.unlink(missing_ok=True)
            self.socket.bind(os.fspath(path))
            path.chmod(MODE)
            self.socket.listen(BACKLOG)
            self.socket.setblocking(False)
            self._identity = _identity(path)
        except OSError as error:
            self._give_up()
            raise SettingsError(f"{what}: can't listen on {path}: {error.strerror}{_place(path)}") from None

    def close(self) -> None:
        self.socket.close()
        try:
            if _identity(self.path) == self._identity:
                self.path.unlink()
        except OSError:
            pass  # gone already, or the directory became read-only: nothing more to do at the end of a run
        self._remove_directories()

    def _give_up(self) -> None:
        is_bound = bool(self.socket.getsockname())
        self.socket.close()
        if is_bound:
            try:
                self.path.unlink()
            except OSError:
                pass  # what was wrong with it is told already
        self._remove_directories()

    def _make_parents(self) -> None:
        missing = [each for each in self.path.parents if not each.exists()]
        for directory in reversed(missing):
            directory.mkdir(mode=0o750)
            self._made.append(directory)

    def _remove_directories(self) -> None:
        for directory in reversed(self._made):
            try:
                directory.rmdir()
            except OSError:
                break  # not only ours any more
        self._made.clear()


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _place(path: Path) -> str:
    """Owner and mode of the nearest directory there is: what one needs to know to mend a refusal."""
    for directory in path.parents:
        try:
            found = directory.stat()
        except OSError:
            continue
        return (
            f" ({directory} belongs to uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}; we are {os.geteuid()})"
        )
    return ""
