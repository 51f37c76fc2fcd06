"""The Envoy processes of this agent: the one that serves, an heir during a hot restart, old epochs that still drain.

Owns spawning, reaping (through the reaper), output and shared memory; decides nothing. The run loop hears of each end.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from pilot_agent.clock import Clock, Deadline
from pilot_agent.envoy.command import Launch
from pilot_agent.envoy.epoch import Epoch, read_base_id, remove_generation
from pilot_agent.envoy.output import Output
from pilot_agent.envoy.process import Child, ExitFacts, spawn
from pilot_agent.log import Log
from pilot_agent.supervise.reaper import Reaper

READ_SIZE = 64 * 1024
LONGEST_ANSWER = 1024 * 1024


class Running:
    """One Envoy under the event loop. `exited` is set, with the facts, when it has been reaped."""

    def __init__(self, child: Child, epoch: Epoch, output: Output) -> None:
        self.child, self.epoch, self.output = child, epoch, output
        self.exited: asyncio.Future[ExitFacts] = asyncio.get_running_loop().create_future()
        self.is_hung = False
        """The agent kills it because it hangs."""
        self.is_heir = False
        """It has not taken over yet: whoever spawned it looks at its end."""
        self.is_retired = False
        """Its end is wanted."""

    def __str__(self) -> str:
        return f"Envoy epoch {self.epoch.number} (pid {self.child.pid})"


class Envoys:
    """`current` is None only between a crash and the restart. `ended` is called once for each that ends."""

    def __init__(
        self, log: Log, clock: Clock, reaper: Reaper, base_id_path: Path, ended: Callable[[Running, ExitFacts], None]
    ) -> None:
        self._log, self._clock, self._reaper, self._ended = log, clock, reaper, ended
        self._base_id_path = base_id_path
        self.current: Running | None = None
        self.heir: Running | None = None
        self.older: list[Running] = []

    @property
    def all(self) -> list[Running]:
        return [each for each in (self.current, self.heir, *self.older) if each is not None]

    def adopt(self, child: Child, epoch: Epoch) -> Running:
        """Take a child spawned before there was an event loop. The caller makes it `current` or `heir`."""
        running = Running(child, epoch, Output(self._log))
        loop = asyncio.get_running_loop()
        os.set_blocking(child.stderr_fd, False)
        loop.add_reader(child.stderr_fd, self._read_output, running)
        self._reaper.own(child.pid, lambda: self._collect(running))
        return running

    def spawn(self, launch: Launch, epoch: Epoch, drain_seconds: int) -> Running:
        """Raises SettingsError when the binary can't be executed (any more)."""
        return self.adopt(spawn(launch, epoch, drain_seconds, self._base_id_path, self._clock), epoch)

    def inherit(self) -> None:
        """The heir serves: it becomes current, and the one before it drains until its parent-shutdown time."""
        assert self.heir is not None
        if self.current is not None:
            self.older.append(self.current)
        self.current, self.heir = self.heir, None

    async def until_drained(self) -> None:
        """Return when no older epoch is left; Envoy ends each at its parent-shutdown time."""
        await self._all_ended(list(self.older), None)

    def base_id(self) -> int | None:
        return read_base_id(self._base_id_path)

    async def stop(self, grace: float) -> None:
        """End all of them: SIGTERM, `grace` seconds, SIGKILL. Returns when all are gone.

        SIGKILL alone loses buffered access logs and the last telemetry.
        """
        running = self.all
        for each in running:
            each.child.signal(signal.SIGTERM)
        await self._all_ended(running, Deadline.after(grace, self._clock).left)
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL to all of them, and wait until the kernel has let go of them."""
        running = self.all
        for each in running:
            each.child.kill_group()
        await self._all_ended(running, None)
        self.forget_generation()

    def forget_generation(self) -> None:
        """Remove the shared memory of the generation; only when none of it runs."""
        remove_generation(self._base_id_path)

    @staticmethod
    async def _all_ended(running: list[Running], patience: float | None) -> None:
        pending = [each.exited for each in running if not each.exited.done()]
        if pending:
            await asyncio.wait(pending, timeout=patience)

    async def ask(self, launch: Launch) -> tuple[int, str]:
        """Run a command of Envoy's that answers and ends: exit code (128 + n for a signal) and standard error."""
        child = Child(launch, self._clock, is_quiet=True)
        said = bytearray()
        ended: asyncio.Future[ExitFacts] = asyncio.get_running_loop().create_future()
        os.set_blocking(child.stderr_fd, False)

        def read() -> bool:
            try:
                data = os.read(child.stderr_fd, READ_SIZE)
            except BlockingIOError:
                return False
            said.extend(data[: LONGEST_ANSWER - len(said)])
            if not data:
                loop.remove_reader(child.stderr_fd)
            return bool(data)

        def collect() -> bool:
            facts = child.poll()
            if facts is None:
                return False
            while read():
                pass
            loop.remove_reader(child.stderr_fd)
            child.close()
            if not ended.done():
                ended.set_result(facts)
            return True

        loop = asyncio.get_running_loop()
        loop.add_reader(child.stderr_fd, read)
        self._reaper.own(child.pid, collect)
        try:
            facts = await ended
        finally:
            child.kill_group()
        return facts.agent_code, said.decode(errors="replace")

    def _read_output(self, running: Running) -> None:
        if not running.output.read(running.child.stderr_fd):
            # Readable and empty: Envoy closed it, or is gone and will be collected.
            asyncio.get_running_loop().remove_reader(running.child.stderr_fd)

    def _collect(self, running: Running) -> bool:
        facts = running.child.poll()
        if facts is None:
            return False
        # Its last words may still be in the pipe; as a grandchild may hold that open, only what is there now counts.
        while running.output.read(running.child.stderr_fd):
            pass
        running.output.feed(b"")
        asyncio.get_running_loop().remove_reader(running.child.stderr_fd)
        running.child.close()
        self._forget(running)
        running.exited.set_result(facts)
        self._ended(running, facts)
        return True

    def _forget(self, running: Running) -> None:
        if running is self.current:
            self.current = None
        elif running is self.heir:
            self.heir = None
        else:
            self.older = [each for each in self.older if each is not running]
