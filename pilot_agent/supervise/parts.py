"""Background parts of the agent: none of them may end it. A part that fails is logged, counted and run again."""

import asyncio
from collections.abc import Awaitable, Callable

from pilot_agent.clock import Backoff
from pilot_agent.log import Scope


class Parts:
    """Runs each part until `stop`, again after a failure, with a back-off."""

    def __init__(self, log: Scope) -> None:
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []
        self.failures: dict[str, int] = {}
        self._is_stopping = False

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        self.failures[name] = 0
        self._tasks.append(asyncio.create_task(self._keep_running(name, run), name=name))

    async def _keep_running(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(0.5, 15.0)
        while True:
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - whatever it is, the agent must survive it (invariant 1)
                if self._is_stopping:
                    # gRPC was seen to answer a cancellation with an error of its own: it is an end all the same.
                    self._log.debug(f"{name} ended with {error!r}")
                    return
                self.failures[name] += 1
                delay = backoff.next()
                self._log.error(f"{name} failed and runs again in {delay:.1f} s: {error!r}")
                await asyncio.sleep(delay)

    def has(self, name: str) -> bool:
        return name in self.failures

    async def stop(self) -> None:
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
