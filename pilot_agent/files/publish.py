"""Atomic publication of files: readers see the old content or the new, never half of one.

Envoy watches directories for renames (its `watched_directory`), so every publication is a rename into place.
"""

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def publish(path: Path, content: bytes, mode: int = 0o644, owner: int | None = None) -> None:
    """Write `content` beside `path` and rename it into place. Raises OSError and then leaves nothing behind.

    `owner` (user and group id) gets the file before its readers see it. No fsync: these files are made anew at every
    start, so what matters is atomicity towards readers, not power loss.
    """
    publish_all({path: content}, mode, owner)


def publish_all(
    contents: Mapping[Path, bytes], mode: int | Mapping[Path, int] = 0o644, owner: int | None = None
) -> None:
    """Several files, in this order; none is renamed before all of them are written. Raises OSError.

    `mode` is for all of them, or a mapping that has one for each. A disk that gets full leaves all of them as they
    were, and so does a directory where one of them should be.
    """
    modes = dict.fromkeys(contents, mode) if isinstance(mode, int) else {path: mode[path] for path in contents}
    drafts = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in contents}
    try:
        for path, content in contents.items():
            _write(drafts[path], content, modes[path], owner)
        if len(drafts) > 1:  # the rename of a single one is all or nothing by itself
            _check_replaceable(contents)
        for path, draft in drafts.items():
            draft.rename(path)
    except OSError:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
        raise


def _check_replaceable(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def _write(draft: Path, content: bytes, mode: int, owner: int | None) -> None:
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # the umask does not decide what Envoy, perhaps another user, may read
        if owner is not None:
            os.fchown(descriptor, owner, owner)
        file.write(content)
