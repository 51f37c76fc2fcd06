"""The two requests that change something: `/drain` and `/quitquitquit`. Who may send them is judged by `server`.

What draining and quitting mean is the supervisor's, behind `Control`.
"""

import asyncio
from typing import Protocol

from aiohttp import web

from pilot_agent.errors import AgentError
from pilot_agent.log import Scope


class Control(Protocol):
    """What the supervisor does on request.

    Both may be called again; the text starts with `OK`, and says what follows.
    """

    async def drain(self) -> str:
        """Tell Envoy to drain its listeners; returns when Envoy has answered, within a deadline of its own."""

    def quit(self) -> str:
        """Ask the agent to stop without draining; returns at once."""


class ControlHandlers:
    def __init__(self, control: Control, log: Scope) -> None:
        self._control, self._log = control, log
        self._draining: asyncio.Task[str] | None = None

    async def drain(self, _request: web.BaseRequest) -> web.StreamResponse:
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._control.drain(), name="drain on request")
        try:
            # A drain that was asked for goes on when the caller hangs up.
            text = await asyncio.shield(self._draining)
        except AgentError as error:
            self._log.error(f"/drain failed: {error}")
            return web.Response(status=500, text=f"drain failed: {error}\n")
        return web.Response(text=text)

    async def quit(self, _request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=self._control.quit())

    async def close(self) -> None:
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.gather(self._draining, return_exceptions=True)
