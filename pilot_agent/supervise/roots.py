"""The root certificates istiod is verified by, watched: a changed one counts from the next stream on, and is told.

Each stream reads them anew (`identity.channel`), and one that runs is left alone. So nothing is done here but to look.
"""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from pilot_agent.errors import SettingsError
from pilot_agent.identity.channel import read_file
from pilot_agent.log import Scope
from pilot_agent.xds.options import XdsOptions


class IstiodRoots:
    """`options` is asked anew each time. Told is a change of content, not every event of the watcher."""

    def __init__(self, options: Callable[[], XdsOptions], log: Scope) -> None:
        self._options, self._log = options, log
        self._may_have_changed = asyncio.Event()

    def paths(self) -> list[Path]:
        try:
            return self._options().roots
        except SettingsError:
            return []  # told where settings are refused

    def changed(self) -> None:
        """Some of them may have."""
        self._may_have_changed.set()

    async def run(self) -> None:
        before = await asyncio.to_thread(self._digests)
        while True:
            await self._may_have_changed.wait()
            self._may_have_changed.clear()
            now = await asyncio.to_thread(self._digests)
            for path, digest in now.items():
                if digest is None and before.get(path) is not None:
                    self._log.warn(
                        f"root certificate {path} of istiod can't be read any more: the next stream needs it"
                    )
                elif digest is not None and path in before and digest != before[path]:
                    self._log.info(f"root certificate {path} of istiod has changed: the next stream is verified by it")
            before = now

    def _digests(self) -> dict[Path, str | None]:
        return {path: _digest(path) for path in self.paths()}


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(read_file(path)).hexdigest()
    except OSError:
        return None
