"""A server in an event loop of its own thread, for tests that stay synchronous: what it serves is the caller's."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Looped:
    """Runs `serve` from its creation until `stop`, which cancels it."""

    def __init__(self, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._serve = serve
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._has_begun.wait()

    def _run(self) -> None:
        async def serve() -> None:
            self._task = asyncio.current_task()
            self._has_begun.set()
            try:
                await self._serve()
            except asyncio.CancelledError:
                pass

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(serve())

    def do(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the loop, where what is served belongs to."""

        async def run() -> Result:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def stop(self) -> None:
        if self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
