"""Changed settings: worked out again, checked by Envoy, accepted or refused. A refusal leaves everything as it was."""

import asyncio
import socket
from typing import Any

from pilot_agent.bootstrap.validate import checks, judge
from pilot_agent.envoy.admin import Admin
from pilot_agent.errors import AgentError, EnvoyRefused, SettingsError
from pilot_agent.files.workspace import Workspace
from pilot_agent.log import Log
from pilot_agent.settings.model import MESH_FIELDS
from pilot_agent.supervise.desired import AGENT_LOG_LEVEL_ANNOTATION, Desired, Inputs, work_out
from pilot_agent.supervise.envoys import Envoys, Running
from pilot_agent.supervise.questions import ADDRESS_WITHIN_S, best_address, build_command, build_of, names_to_resolve
from pilot_agent.supervise.watchdog import until_serving

CANDIDATE_PREFIX = "candidate-"
HEIR_HAS_S = 60.0
"""How long the heir of a hot restart may take to serve before the change counts as failed."""


class Change:
    """`refusal` is the reason the last look at the settings was refused, None when it was not."""

    def __init__(self, inputs: Inputs, workspace: Workspace, envoys: Envoys, log: Log) -> None:
        self._inputs, self._workspace, self._envoys = inputs, workspace, envoys
        self._logs, self._log = log, log.scope()
        self.refusal: str | None = None
        self.refused_total = 0
        self._failed: tuple[Desired, str] | None = None
        """A bootstrap that passed Envoy's check, and that no Envoy could start with; and why."""

    async def accept(self, current: Desired) -> Desired | None:
        """What should run now instead of `current`, checked by Envoy; None when nothing differs or it is refused."""
        try:
            wanted = await self._work_out()
            _check_unchangeable(current, wanted)
            self._use_agent_log_level(current, wanted)
            if not wanted.differs_from(current):
                self._settled()
                return None
            if self._failed is not None and not wanted.differs_from(self._failed[0]):
                raise EnvoyRefused(self._failed[1])
            if wanted.settings.has_envoy:
                await self.ask_envoy(wanted, "the changed bootstrap")
        except AgentError as error:
            self._refuse(str(error))
            return None
        for warning in wanted.warnings:
            if warning not in current.warnings:
                self._log.warn(warning)
        self._settled()
        return wanted

    async def _work_out(self) -> Desired:
        """What is wanted now, with what must be found out for it."""
        wanted = work_out(self._inputs)
        if wanted.unknown:
            await self._find_out(wanted)
            wanted = work_out(self._inputs)
        return wanted

    async def _find_out(self, wanted: Desired) -> None:
        answers = self._inputs.answers
        command = build_command(wanted)
        if command is not None:
            _, output = await self._envoys.ask(command)
            answers = answers._replace(build=build_of(wanted, output))
        for name in names_to_resolve(wanted):
            answers = answers._replace(addresses={**answers.addresses, name: await _resolve(name)})
        self._inputs = self._inputs._replace(answers=answers)

    def _use_agent_log_level(self, current: Desired, wanted: Desired) -> None:
        """The injector made it a flag at the start; an annotation that changed since is newer."""
        before, after = (each.settings.annotations.get(AGENT_LOG_LEVEL_ANNOTATION) for each in (current, wanted))
        if after is not None and after != before:
            self._logs.set_levels(after, f"annotation {AGENT_LOG_LEVEL_ANNOTATION}")

    async def ask_envoy(self, wanted: Desired, what: str) -> None:
        """Raises EnvoyRefused with Envoy's own words."""
        argv = wanted.argv
        candidate = None
        if not wanted.is_custom_file:
            candidate = self._workspace.write(CANDIDATE_PREFIX + wanted.config_file.name, wanted.document)
            argv = [str(candidate) if each == str(wanted.config_file) else each for each in argv]
        try:
            for check in checks(argv, wanted.document):
                code, output = await self._envoys.ask(wanted.launch._replace(argv=check))
                judge(code, output, what)
        finally:
            if candidate is not None:
                candidate.unlink(missing_ok=True)

    def failed(self, wanted: Desired, why: str) -> None:
        """An Envoy could not start with what was accepted: it is refused from now on."""
        reason = f"Envoy refuses the changed bootstrap at its start: {why}"
        self._failed = (wanted, reason)
        self._refuse(reason)

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


async def _resolve(name: str) -> str | None:
    """The address of `name`, None when it has none, or not in time."""
    lookup = asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    try:
        found = await asyncio.wait_for(lookup, ADDRESS_WITHIN_S)
    except (OSError, TimeoutError):
        return None
    return best_address([(family, str(address[0])) for family, _, _, _, address in found])


def _check_unchangeable(current: Desired, wanted: Desired) -> None:
    names = ["statusPort", "configPath", *(["interceptionMode"] if current.settings.is_local else [])]
    for name in names:
        before, after = (each.settings.proxy_config.values.get(name) for each in (current, wanted))
        if before != after:
            source = wanted.settings.proxy_config.sources[name]
            raise SettingsError(f"{name} can't change from {before} to {after} (from {source}) while the agent runs")
    if current.settings.is_local:
        before_mesh, after_mesh = (each.settings.mesh._asdict() for each in (current, wanted))
        changed = [name for field, name in MESH_FIELDS.items() if before_mesh[field] != after_mesh[field]]
        if changed:
            raise SettingsError(f"{', '.join(changed)} of the mesh file can't change while the agent runs")
