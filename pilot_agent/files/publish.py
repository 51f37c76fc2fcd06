"""Atomic publication of files: readers see the old content or the new, never half of one.

Envoy watches directories for renames (its `watched_directory`), so every publication is a rename into place.
"""

import os
from pathlib import Path


def publish(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write `content` beside `path` and rename it into place. Raises OSError and then leaves nothing behind.

    No fsync: these files are made anew at every start, so what matters is atomicity towards readers, not power loss.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # the umask does not decide what Envoy, perhaps another user, may read
            file.write(content)
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
