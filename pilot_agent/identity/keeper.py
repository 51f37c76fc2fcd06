"""Looks at one set of certificate files: when told of a change, every POLL_S, and soon while something is wrong."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from pilot_agent.clock import Backoff, Clock
from pilot_agent.identity.account import Account
from pilot_agent.identity.mounted import Mounted, Reading
from pilot_agent.log import Scope

POLL_S = 30.0
LONGEST_RETRY_S = 5.0
PATIENCE_S = 10.0
"""How long files may be wrong before who waits for them is told (reference security-xds.md, section 3.7)."""


class Keeper:
    """`take` gets each reading, and says whether the set is as it should be. `changed` may be called at any time."""

    def __init__(
        self,
        mounted: Mounted,
        take: Callable[[Reading, bool, bool], Awaitable[bool]],
        executor: Executor,
        account: Account,
        log: Scope,
        clock: Clock,
        debounce_s: float,
    ) -> None:
        """`take(reading, is_news, is_late)`: late when the set has been wrong for PATIENCE_S."""
        self.mounted = mounted
        self._take, self._executor, self._account, self._log, self._clock = take, executor, account, log, clock
        self._debounce_s = max(0.01, debounce_s)
        self._event = asyncio.Event()
        self._failing_since: float | None = None

    def changed(self) -> None:
        self._event.set()

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(self._debounce_s, LONGEST_RETRY_S)
        while True:
            self._event.clear()
            if await self._look():
                backoff.reset()
                delay = POLL_S
            else:
                delay = backoff.next()
            try:
                async with asyncio.timeout(delay):
                    await self._event.wait()
            except TimeoutError:
                pass  # the net under the watcher, or the retry

    async def _look(self) -> bool:
        loop = asyncio.get_running_loop()
        reading, is_news = await loop.run_in_executor(self._executor, self.mounted.read, self._clock.wall())
        self._account.checked_at = self._clock.wall()
        if is_news:
            self._report(reading)
        since, now = self._failing_since, self._clock.monotonic()
        is_good = await self._take(reading, is_news, since is not None and now - since >= PATIENCE_S)
        self._failing_since = None if is_good else now if since is None else since
        return is_good

    def _report(self, reading: Reading) -> None:
        for error in reading.errors:
            self._account.file_failures += 1
            self._account.failures[error.kind] += 1
            self._log.error(f"{error}; what was good before stays in use")
        for warning in reading.warnings:
            self._log.warn(warning)
        if not reading.errors:
            self._account.file_changes += 1
