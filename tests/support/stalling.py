"""A TCP relay with a switch: stalled, it neither reads nor writes and keeps every socket open, as a network that loses
all packets does. New connections are accepted then, and left alone.
"""

import asyncio
import threading

from tests.support.looped import Looped

HOST = "127.0.0.1"


class Stalling:
    """From `port` to 127.0.0.1:`target`, from its creation until `stop`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._is_listening = threading.Event()
        self._looped = Looped(self._serve)
        self._is_listening.wait()

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def stall(self) -> None:
        self._looped.do(self._flows.clear)

    def resume(self) -> None:
        """What was held back arrives."""
        self._looped.do(self._flows.set)

    def cut(self) -> None:
        """Close every connection, at both ends."""

        def close() -> None:
            for writer in self._writers:
                writer.close()

        self._looped.do(close)

    def connections(self) -> int:
        return self._looped.do(lambda: len(self._tasks))

    def stop(self) -> None:
        self._looped.stop()

    def __enter__(self) -> "Stalling":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._is_listening.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._flows.wait()
            behind_reader, behind_writer = await asyncio.open_connection(HOST, self._target)
            self._writers.add(behind_writer)
            try:
                await self._join(reader, writer, behind_reader, behind_writer)
            finally:
                self._writers.discard(behind_writer)
                behind_writer.close()
        except (OSError, asyncio.CancelledError):
            pass  # one end is gone, or the test is over
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        behind_reader: asyncio.StreamReader,
        behind_writer: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.create_task(self._copy(reader, behind_writer)),
            asyncio.create_task(self._copy(behind_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._flows.wait()
            data = await reader.read(65536)
            await self._flows.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()
