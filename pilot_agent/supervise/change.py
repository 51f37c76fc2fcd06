"""Changed settings: worked out again, checked by Envoy, accepted or refused. A refusal leaves everything as it was."""

import asyncio
from typing import Any

from pilot_agent.bootstrap.validate import judge, validation_argv
from pilot_agent.envoy.admin import Admin
from pilot_agent.errors import AgentError, SettingsError
from pilot_agent.files.workspace import Workspace
from pilot_agent.log import Scope
from pilot_agent.supervise.desired import BOOTSTRAP_FILE, Desired, Inputs, work_out
from pilot_agent.supervise.envoys import Envoys, Running
from pilot_agent.supervise.watchdog import until_serving

CANDIDATE_FILE = f"candidate-{BOOTSTRAP_FILE}"
HEIR_HAS_S = 60.0
"""How long the heir of a hot restart may take to serve before the change counts as failed."""


class Change:
    """`refusal` is the reason the last look at the settings was refused, None when it was not."""

    def __init__(self, inputs: Inputs, workspace: Workspace, envoys: Envoys, log: Scope) -> None:
        self._inputs, self._workspace, self._envoys = inputs, workspace, envoys
        self._log = log
        self.refusal: str | None = None
        self.refused_total = 0

    async def accept(self, current: Desired) -> Desired | None:
        """What should run now instead of `current`, checked by Envoy; None when nothing differs or it is refused."""
        try:
            wanted = work_out(self._inputs)
            _check_unchangeable(current, wanted)
            if not wanted.differs_from(current):
                self._settled()
                return None
            await self.ask_envoy(wanted, "the changed bootstrap")
        except AgentError as error:
            self._refuse(str(error))
            return None
        for warning in wanted.settings.warnings:
            if warning not in current.settings.warnings:
                self._log.warn(warning)
        self._settled()
        return wanted

    async def ask_envoy(self, wanted: Desired, what: str) -> None:
        """Raises EnvoyRefused with Envoy's own words."""
        argv = wanted.argv
        candidate = None
        if not wanted.is_custom_file:
            candidate = self._workspace.write(CANDIDATE_FILE, wanted.document)
            argv = [str(candidate) if each.endswith(f"/{BOOTSTRAP_FILE}") else each for each in argv]
        try:
            code, output = await self._envoys.ask(validation_argv(argv), self._inputs.variables)
        finally:
            if candidate is not None:
                candidate.unlink(missing_ok=True)
        judge(code, output, what)

    def _refuse(self, reason: str) -> None:
        if reason != self.refusal:
            self.refused_total += 1
            self._log.error(f"changed settings are refused, Envoy goes on with the last good ones: {reason}")
        self.refusal = reason

    def _settled(self) -> None:
        if self.refusal is not None:
            self._log.info("settings are good again")
        self.refusal = None

    async def until_heir_serves(self, heir: Running, admin: Admin) -> str | None:
        """None when the heir serves; else why it never will."""
        serving = asyncio.ensure_future(until_serving(admin, heir.epoch.number, lambda _: None))
        try:
            either: set[asyncio.Future[Any]] = {serving, heir.exited}
            await asyncio.wait(either, timeout=HEIR_HAS_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
        if heir.exited.done():
            words = f"; its last words: {heir.output.last_words}" if heir.output.last_words else ""
            return f"{heir} ended: {heir.exited.result()}{words}"
        if not serving.done():
            return f"{heir} does not serve after {HEIR_HAS_S:g} s"
        return None


def _check_unchangeable(current: Desired, wanted: Desired) -> None:
    names = ["statusPort", "configPath", *(["interceptionMode"] if current.settings.is_local else [])]
    for name in names:
        before, after = (each.settings.proxy_config.values.get(name) for each in (current, wanted))
        if before != after:
            source = wanted.settings.proxy_config.sources[name]
            raise SettingsError(f"{name} can't change from {before} to {after} (from {source}) while the agent runs")
    if current.settings.is_local and wanted.settings.mesh != current.settings.mesh:
        raise SettingsError(
            "proxyListenPort, proxyInboundListenPort and accessLogFile can't change while the agent runs"
        )
