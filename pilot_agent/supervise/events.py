"""What can happen to the agent: the run loop takes these one by one, everything else only puts them into the queue."""

import asyncio
from collections.abc import Coroutine
from enum import Enum, auto
from typing import Any, NamedTuple

from pilot_agent.envoy.process import ExitFacts
from pilot_agent.supervise.envoys import Running


class StopAsked(NamedTuple):
    """`is_graceful`: drain first."""

    reason: str
    is_graceful: bool = True


class EnvoyEnded(NamedTuple):
    running: Running
    facts: ExitFacts


class RestartDue(NamedTuple):
    """`reason`: one of `postmortem.RESTART_REASONS`."""

    reason: str


class Failed(NamedTuple):
    """A task of the agent's own ended with an error: the run loop raises it."""

    error: BaseException


class Happened(Enum):
    SERVING_FOR_THE_FIRST_TIME = auto()
    SETTINGS_CHANGED = auto()
    HUNG_CHANGED = auto()


Event = StopAsked | EnvoyEnded | RestartDue | Failed | Happened


class Events:
    """The queue, and tasks whose failure becomes an event instead of a message at garbage collection."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    def put(self, event: Event) -> None:
        self._queue.put_nowait(event)

    def put_later(self, delay: float, event: Event) -> None:
        asyncio.get_running_loop().call_later(delay, self.put, event)

    async def next(self) -> Event:
        return await self._queue.get()

    def task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_failure)
        return task

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.put(Failed(error))


def cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None and not task.done():
        task.cancel()
