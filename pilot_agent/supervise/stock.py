"""Whether this Envoy is a stock one, and the filter in front of it then (--stockEnvoy).

The binary itself is asked, once, and only when istiod has sent something that a stock one may not know: an answer takes
about 45 ms of Envoy's time, which no start should pay that need not.
"""

import asyncio
from collections.abc import Awaitable, Callable

from pilot_agent.envoy.build import Build, extensions_argv, read_build
from pilot_agent.envoy.command import Launch
from pilot_agent.log import Scope
from pilot_agent.supervise.desired import Desired
from pilot_agent.xds.account import XdsAccount
from pilot_agent.xds.stock import StockFilter

Ask = Callable[[Launch], Awaitable[tuple[int | None, str]]]
"""Runs a command to its end: its exit code, and what it wrote."""


class StockEnvoy:
    """`build` is what is known of the binary already. One answer for each binary."""

    def __init__(
        self, desired: Callable[[], Desired], ask: Ask, build: Build | None, account: XdsAccount, log: Scope
    ) -> None:
        self._desired, self._ask, self._build, self._log = desired, ask, build, log
        self._account = account
        self._everything = StockFilter(lambda _name: True, account.left_out, log)
        self._filter = self._everything if build is None else self._for(build)
        self._asking = asyncio.Lock()

    def is_suspect(self, type_url: str, response: bytes) -> bool:
        """Whether there may be anything in a response that Envoy must not get."""
        desired = self._desired()
        choice = desired.settings.flags.stock_envoy
        if choice == "false" or (choice == "auto" and self._has_everything(desired)):
            return False
        return self._everything.is_suspect(type_url, response)

    def _has_everything(self, desired: Desired) -> bool:
        """Whether the binary is known to be Istio's build: then no push is searched any more."""
        build = self._build
        return build is not None and build.path == desired.binary and (build.is_istio or not build.is_known)

    async def pass_on(self, type_url: str, response: bytes, is_delta: bool) -> bytes:
        """What Envoy gets of a response that `is_suspect`; the same object where it can load all of it."""
        choice = self._desired().settings.flags.stock_envoy
        if choice == "false":  # since then, by a reload
            return response
        chosen = self._everything if choice == "true" else await self._fitting()
        # Hundreds of listeners take tenths of a second: in a thread, so that probes are answered meanwhile.
        return await asyncio.to_thread(chosen.response, type_url, response, is_delta=is_delta)

    async def _fitting(self) -> StockFilter:
        """The filter for the binary that is used now."""
        async with self._asking:
            desired = self._desired()
            if self._build is None or self._build.path != desired.binary:
                _, output = await self._ask(desired.launch._replace(argv=extensions_argv(desired.binary)))
                self._build = read_build(desired.binary, output)
                self._filter = self._for(self._build)
        return self._filter

    def _for(self, build: Build) -> StockFilter:
        if not build.is_known:
            self._log.warn(f"{build.path} doesn't say which extensions it has: it is taken for Istio's build of Envoy")
        has_it = not build.is_known or build.is_istio
        return StockFilter(lambda name: not has_it and name not in build.extensions, self._account.left_out, self._log)
