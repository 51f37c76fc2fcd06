"""Keeping one Envoy serving: its start, its crashes, hot restarts and full restarts. Called by the run loop only.

A crash starts a new generation at epoch 0; a planned change hands over to epoch + 1; a failed heir poisons the shared
memory, so a full restart follows it (DESIGN, invariant 4).
"""

import asyncio
import os
from typing import NamedTuple

from pilot_agent.bootstrap.validate import refusal_in
from pilot_agent.envoy.admin import Admin
from pilot_agent.envoy.epoch import Epoch
from pilot_agent.envoy.process import ExitFacts
from pilot_agent.errors import EXIT_GAVE_UP, EnvoyRefused, SettingsError
from pilot_agent.node.cgroup import Memory, read_memory
from pilot_agent.supervise.change import Change
from pilot_agent.supervise.desired import Desired
from pilot_agent.supervise.envoys import Envoys, Running
from pilot_agent.supervise.events import Events, Happened, RestartDue, cancel
from pilot_agent.supervise.lifecycle import Lifecycle, State
from pilot_agent.supervise.postmortem import RESTART_REASONS, Verdict, evidence, explain
from pilot_agent.supervise.prepare import Prepared, drain_seconds
from pilot_agent.supervise.restart import RestartPolicy
from pilot_agent.supervise.shutdown import GRACE_S
from pilot_agent.supervise.watchdog import Pulse, Watchdog, until_serving


def workers(desired: Desired) -> int:
    """Envoy's worker threads: as configured, else one for each CPU."""
    return desired.settings.proxy_config.concurrency or os.cpu_count() or 1


class LastExit(NamedTuple):
    facts: ExitFacts
    reason: str


class Serving:
    """The Envoy that serves, and what is done about it. `desired` is what it runs with."""

    def __init__(self, prepared: Prepared, envoys: Envoys, lifecycle: Lifecycle, events: Events) -> None:
        self._prepared, self._envoys, self._lifecycle, self._events = prepared, envoys, lifecycle, events
        self._log, self._clock = prepared.log.scope(), prepared.clock
        self.desired: Desired = prepared.desired
        flags = self.desired.settings.flags
        self._policy = RestartPolicy(flags.max_crashes, flags.crash_window.seconds)
        self.change = Change(prepared.inputs, prepared.workspace, envoys, prepared.log)
        interval, checks = flags.hung_check_interval.seconds, flags.hung_checks
        self.watchdog, self.pulse = Watchdog(self.admin, interval, checks), Pulse(self.admin)
        self.restarts = dict.fromkeys(RESTART_REASONS, 0)
        self.last_exit: LastExit | None = None
        self.first_ready: float | None = None
        """Seconds from the start of the agent's process."""
        self.accepted_changes = 0
        self._last_good: Desired | None = None
        """What the last Envoy that served was started with."""
        self._is_poisoned = False
        """A failed heir has made the shared memory of this generation unusable for every later one."""
        self._memory: Memory | None = None
        self._watching_start: asyncio.Task[None] | None = None
        self._changing: asyncio.Task[None] | None = None
        self._has_changed_again = False

    def admin(self) -> Admin:
        """The admin interface of the newest epoch: Envoy hands the port over."""
        return Admin(self.desired.family.localhost, self.desired.settings.proxy_config.admin_port)

    def leave_alone(self) -> None:
        """The agent is ending: nothing is restarted or changed any more."""
        cancel(self._watching_start)
        cancel(self._changing)

    def serve(self, running: Running) -> None:
        """`running` is the Envoy that is to serve; readiness follows when it does."""
        self._envoys.current = running
        self._memory = read_memory()
        self._forget_silence()
        cancel(self._watching_start)
        self._watching_start = self._events.task(self._watch_start(running))

    def serve_without_envoy(self) -> None:
        """DISABLE_ENVOY: what there is to serve with is there from the start."""
        self._become_ready("no Envoy is run: DISABLE_ENVOY", "the agent is ready")

    def _become_ready(self, reason: str, words: str) -> None:
        self._lifecycle.to(State.SERVING, reason)
        if self.first_ready is None:
            self.first_ready = self._prepared.phases.end("ready")
            self._log.info(f"{words} ({self._prepared.phases})")
            self._events.put(Happened.SERVING_FOR_THE_FIRST_TIME)

    def _forget_silence(self) -> None:
        """Another Envoy answers from now on."""
        self.watchdog.forget()
        self.pulse.forget()

    async def _watch_start(self, running: Running) -> None:
        await until_serving(self.admin(), running.epoch.number, self._lifecycle.explain)
        running.epoch = running.epoch._replace(base_id=self._envoys.base_id())
        self._last_good = self.desired
        self._become_ready(f"{running} serves", "Envoy proxy is ready")

    def _spawn(self, epoch: Epoch) -> Running:
        desired = self.desired
        return self._envoys.spawn(desired.launch, epoch, drain_seconds(desired))

    async def after_end(self, running: Running, facts: ExitFacts) -> int | None:
        """The exit code of the agent when this end is the end of all; None when it goes on."""
        if running.is_retired:
            self._log.info(f"{running} has left: {facts}")
            return None
        if running.is_heir:
            return None  # the change that spawned it looks at its end
        cancel(self._changing)
        cancel(self._watching_start)
        verdict = explain(
            str(running),
            facts,
            is_hung=running.is_hung,
            last_words=running.output.last_words,
            before=self._memory,
            after=read_memory(),
        )
        is_first_end, self.last_exit = self.last_exit is None, LastExit(facts, verdict.reason)
        self._log.error(verdict.text)
        refusal = refusal_in(running.output.last_words) if facts.code == 1 else None
        if is_first_end and self.first_ready is None and facts.code == 1:
            # It may have refused its bootstrap: that is a fault of the settings, and no restart mends it.
            await self.change.ask_envoy(self.desired, "the bootstrap")
            if refusal is not None:
                raise EnvoyRefused(f"Envoy refuses the bootstrap at its start: {refusal}")
        elif refusal is not None:
            self._go_back(refusal)
        code, delay = self._decide(facts, verdict)
        if delay is None:
            self._lifecycle.to(State.STOPPING, verdict.text)
            return code
        self._lifecycle.to(State.RESTARTING, f"{verdict.text}; restart in {delay:.1f} s")
        await self._envoys.kill()  # an heir or an older epoch can't go on without the one between them
        self._restart_later(verdict.reason, delay)
        return None

    def _decide(self, facts: ExitFacts, verdict: Verdict) -> tuple[int, float | None]:
        """The code to exit with, and the delay before a restart; None for no restart."""
        flags = self.desired.settings.flags
        if flags.on_envoy_exit == "exit":
            self._log.info("no restart: --onEnvoyExit=exit")
            return facts.agent_code, None
        delay = self._policy.next_delay(self._clock.monotonic(), facts.uptime)
        if delay is None:
            count = self._policy.crashes_in_window
            self._log.error(f"giving up: Envoy ended {count} times within {flags.crash_window} ({verdict.text})")
        # An Envoy that keeps ending with 0 though nobody asked is still a failure of ours.
        return facts.agent_code or EXIT_GAVE_UP, delay

    def _restart_later(self, reason: str, delay: float) -> None:
        self._events.put_later(delay, RestartDue(reason))

    async def restart(self, reason: str) -> None:
        if self._policy.crashes_in_window > 1:
            # It may crash because of what is configured, and that may have been mended.
            self._use(await self.change.accept(self.desired))
        self._lifecycle.to(State.STARTING, f"Envoy starts again at epoch 0 after: {reason}")
        self.restarts[reason] += 1
        self._is_poisoned = False
        self.serve(self._spawn(Epoch(can_hot_restart=self._prepared.epoch.can_hot_restart)))

    def after_hung_check(self) -> None:
        reason, current = self.watchdog.reason, self._envoys.current
        if reason is None or current is None:
            return
        self._log.error(f"{reason}: {evidence(current.child.pid)}")
        if self.desired.settings.flags.restart_hung_envoy:
            current.is_hung = True
            current.child.kill_group()

    def after_change(self) -> None:
        if self._changing is None or self._changing.done():
            self._changing = self._events.task(self._apply_changes())
        else:
            self._has_changed_again = True

    async def _apply_changes(self) -> None:
        """From changed files to an Envoy that runs with them; a refused change leaves everything as it is."""
        self._has_changed_again = True
        while self._has_changed_again:
            self._has_changed_again = False
            wanted = await self.change.accept(self.desired)
            if not self.desired.settings.has_envoy:
                self._use(wanted)
                continue
            current = self._envoys.current
            if wanted is None or current is None:
                continue  # a restart looks at the settings itself
            if self._envoys.older:
                # A third epoch makes the second end the first at once, with the requests it still has.
                self._log.info("the changed bootstrap waits until the epoch before has drained")
                await self._envoys.until_drained()
                self._has_changed_again = True  # what is wanted may be something else by now
                continue
            if workers(wanted) < workers(self.desired):
                # Measured: 5 of 14 such changes under load lost one connection each, none of the others did.
                self._log.warn(
                    f"{workers(self.desired)} worker threads become {workers(wanted)}: connections that wait to be "
                    "accepted by a worker that goes may be reset; Envoy hands its accept queues over one by one"
                )
            self._use(wanted)
            if self._lifecycle.state is State.SERVING and current.epoch.base_id is not None and not self._is_poisoned:
                await self._hot_restart(current)
            else:
                await self._restart_fully("the bootstrap changed, and hot restart is not possible now")

    def _use(self, wanted: Desired | None) -> None:
        if wanted is not None:
            self._prepared.write_bootstrap(wanted)
            self.desired = wanted
            self.accepted_changes += 1

    def _go_back(self, refusal: str) -> bool:
        """Desire again what worked last, when what is desired now can't be started; whether there was such."""
        good = self._last_good
        if good is None or not self.desired.differs_from(good):
            return False
        self.change.failed(self.desired, refusal)
        self._prepared.write_bootstrap(good)
        self.desired = good
        self.accepted_changes -= 1
        return True

    async def _hot_restart(self, current: Running) -> None:
        self._lifecycle.to(State.HOT_RESTARTING, "the bootstrap changed")
        try:
            heir = self._spawn(current.epoch.next())
        except SettingsError as error:
            self._log.error(f"hot restart failed, the old epoch goes on: {error}")
            self._lifecycle.to(State.SERVING, "no heir could be started")
            return
        heir.is_heir = True
        self._envoys.heir = heir
        failure = await self.change.until_heir_serves(heir, self.admin())
        if failure is not None:
            self._log.error(f"hot restart failed: {failure}")
            self._is_poisoned = True
            refusal = refusal_in(heir.output.last_words)
            if refusal is not None and self._envoys.current is current and self._go_back(refusal):
                self._lifecycle.to(State.SERVING, f"{current} goes on with the bootstrap it has")
                return
            await self._restart_fully("a failed heir leaves the shared memory unusable for every later one")
            return
        heir.is_heir, current.is_retired = False, True
        self._last_good = self.desired
        self._envoys.inherit()
        self.restarts["hot-restart"] += 1
        self._forget_silence()
        self._lifecycle.to(State.SERVING, f"{heir} has taken over")

    async def _restart_fully(self, why: str) -> None:
        """Stop every epoch and start anew at epoch 0 with what is desired now."""
        for each in self._envoys.all:
            each.is_retired = True
        cancel(self._watching_start)
        self._lifecycle.to(State.RESTARTING, why)
        await self._envoys.stop(GRACE_S)
        self._restart_later("full-restart", 0.0)
