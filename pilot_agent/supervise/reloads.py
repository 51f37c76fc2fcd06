"""Reading the local mesh again, beside the event loop: a part of the agent, asked by the file watcher and SIGHUP."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilot_agent.mesh.local import Change, LocalMesh


class MeshReloads:
    """Reloads the mesh when asked, one at a time, in a thread: a thousand services keep nobody's probe waiting."""

    def __init__(self, mesh: "LocalMesh", reloaded: "Callable[[Change], None]") -> None:
        self._mesh, self._reloaded = mesh, reloaded
        self._asked = asyncio.Event()

    def ask(self) -> None:
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled, and not before the thread has written its last file."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            reload = asyncio.get_running_loop().run_in_executor(None, self._mesh.reload)
            try:
                self._reloaded(await asyncio.shield(reload))
            except asyncio.CancelledError:
                await reload
                raise
