"""The agent under the event loop: composition of all parts, and the run loop that owns their lifetime.

`prepare` has started Envoy already. Signals, ends of processes, changed files and timers only put events into one
queue; the run loop takes them one by one, so that no two of them ever decide at the same time.
"""

import asyncio
import signal
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from pilot_agent.envoy.admin import Admin
from pilot_agent.envoy.drain import DrainOptions
from pilot_agent.envoy.epoch import Epoch
from pilot_agent.envoy.process import ExitFacts
from pilot_agent.errors import EXIT_GAVE_UP, EXIT_OK
from pilot_agent.files.watch import Subscription, Watcher, directory_and_links
from pilot_agent.metrics.own import AgentFacts, EnvoyExit
from pilot_agent.metrics.scrape import Scraper
from pilot_agent.node.cgroup import Memory, read_memory
from pilot_agent.status.port import StatusServer
from pilot_agent.status.readiness import Readiness
from pilot_agent.supervise.change import Change
from pilot_agent.supervise.desired import Desired, watched_files
from pilot_agent.supervise.envoys import Envoys, Running
from pilot_agent.supervise.gates import EnvoyGate, TerminationGate
from pilot_agent.supervise.lifecycle import Lifecycle, State
from pilot_agent.supervise.parts import Parts
from pilot_agent.supervise.postmortem import RESTART_REASONS, Verdict, evidence, explain
from pilot_agent.supervise.prepare import BASE_ID_FILE, Prepared, drain_seconds
from pilot_agent.supervise.reaper import Reaper, adoption_warning
from pilot_agent.supervise.restart import RestartPolicy
from pilot_agent.supervise.shutdown import GRACE_S, Drained, Shutdown, plan_for, post_drain
from pilot_agent.supervise.watchdog import Watchdog, until_serving
from pilot_agent.values import HostPort

IDLE_PARTS_AFTER_S = 5.0
"""When Envoy is not ready by then, a scrape and a changed file matter all the same."""


class StopAsked(NamedTuple):
    """`is_graceful`: drain first."""

    reason: str
    is_graceful: bool = True


class EnvoyEnded(NamedTuple):
    running: Running
    facts: ExitFacts


class RestartDue(NamedTuple):
    """`reason`: one of RESTART_REASONS."""

    reason: str


class Happened(Enum):
    SETTINGS_CHANGED = auto()
    HUNG_CHANGED = auto()


Event = StopAsked | EnvoyEnded | RestartDue | Happened


class Agent:
    """Made from what `prepare` got ready; `run` returns the exit code."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared, self._desired = prepared, prepared.desired
        self._log, self._clock = prepared.log.scope(), prepared.clock
        settings, flags = prepared.desired.settings, prepared.desired.settings.flags
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._lifecycle = Lifecycle(self._log, self._clock, self._state_changed)
        self._reaper = Reaper(self._log)
        base_id_path = prepared.workspace.root / BASE_ID_FILE
        self._envoys = Envoys(prepared.log, self._clock, self._reaper, base_id_path, self._envoy_ended)
        self._policy = RestartPolicy(flags.max_crashes, flags.crash_window.seconds)
        interval, checks = flags.hung_check_interval.seconds, flags.hung_checks
        self._watchdog = Watchdog(lambda: self._admin, self._clock, interval, checks)
        self._envoy_gate = EnvoyGate(self._lifecycle, self._watchdog)
        self._readiness = Readiness(
            [self._envoy_gate, TerminationGate(self._lifecycle)], self._log, self._clock, self._notes
        )
        envoy_metrics = HostPort(
            prepared.desired.family.localhost, settings.environment.number("ENVOY_PROMETHEUS_PORT")
        )
        merges_envoy = settings.environment.flag("PILOT_AGENT_MERGE_ENVOY_STATS")
        self._scraper = Scraper(self._facts, envoy_metrics if merges_envoy else None, prepared.apps, self._log)
        self._status = StatusServer(
            prepared.status_socket,
            self._readiness,
            self._scraper,
            self,
            self._log,
            self._clock,
            are_metrics_local_only=settings.environment.flag("METRICS_LOCALHOST_ACCESS_ONLY"),
        )
        self._parts = Parts(self._log)
        self._change = Change(prepared.inputs, prepared.workspace, self._envoys, self._log, self._clock)
        self._watching_start: asyncio.Task[None] | None = None
        self._changing: asyncio.Task[None] | None = None
        self._shutdown: Shutdown | None = None
        self._stop: StopAsked | None = None
        self._drained_at: float | None = None
        self._reloads_accepted = 0
        self._restarts = dict.fromkeys(RESTART_REASONS, 0)
        self._last_exit: EnvoyExit | None = None
        self._memory: Memory | None = None
        self._has_changed_again = False
        self._first_ready: float | None = None

    @property
    def _admin(self) -> Admin:
        return Admin(self._desired.family.localhost, self._desired.settings.proxy_config.admin_port)

    async def run(self) -> int:
        """Run until one of the ways out; the status port answers until the very end.

        The ways out, and the exit codes (docs/exit-codes.md):
        1. SIGTERM, SIGINT: drain, end Envoy, 0.
        2. POST /quitquitquit, SIGQUIT: end Envoy without a drain, 0.
        3. Envoy ended by itself under --onEnvoyExit=exit: Envoy's own code, or 128 + signal.
        4. Envoy crashed too often (--maxCrashes in --crashWindow): the same.
        5. Envoy can't be started again (its binary vanished): 255.
        6. A bug: the error, one line, 255; Envoy is killed on the way.
        """
        loop = asyncio.get_running_loop()
        self._prepared.signals.hand_over(loop.add_signal_handler, self._signalled)
        try:
            await self._status.start()
            self._prepared.phases.end("status_port")
            self._begin()
            return await self._loop()
        finally:
            self._cancel(self._watching_start)
            self._cancel(self._changing)
            await self._parts.stop()
            await self._envoys.kill()
            self._lifecycle.to(State.STOPPED, "every child has ended")
            await self._status.close()
            self._prepared.take_back()

    def _begin(self) -> None:
        warning = adoption_warning()
        if warning:
            self._log.warn(warning)
        child = self._prepared.child
        if child is not None:
            self._serve(self._envoys.adopt(child, self._prepared.epoch))
        self._reaper.sweep()  # whatever ended before SIGCHLD had a handler
        self._parts.start("watchdog", lambda: self._watchdog.run(self._is_serving, self._hung_changed))
        asyncio.get_running_loop().call_later(IDLE_PARTS_AFTER_S, self._start_idle_parts)

    async def _loop(self) -> int:
        code: int | None = None
        while code is None:
            match await self._events.get():
                case StopAsked() as asked:
                    code = await self._end(asked)
                case EnvoyEnded(running, facts):
                    code = await self._after_end(running, facts)
                case RestartDue(reason):
                    await self._restart(reason)
                case Happened.SETTINGS_CHANGED:
                    self._after_change()
                case Happened.HUNG_CHANGED:
                    self._after_hung_check()
        return code

    # Producers: everything that happens becomes an event, or is answered on the spot without deciding anything.

    def _signalled(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            self._reaper.sweep()
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._ask_to_stop(StopAsked(number.name))
        elif number == signal.SIGQUIT:
            self._ask_to_stop(StopAsked(number.name, is_graceful=False))
        elif number == signal.SIGHUP:
            self._log.info("SIGHUP: looking at all settings again")
            self._look_again()
        elif number == signal.SIGUSR1 and self._envoys.current is not None:
            self._envoys.current.child.signal(signal.SIGUSR1)  # Envoy reopens its access logs
        elif number == signal.SIGUSR2:
            self._log.info("SIGUSR2: " + self._readiness.verbose().replace("\n", "; ").rstrip("; "))

    def _ask_to_stop(self, asked: StopAsked) -> None:
        if self._stop is None:
            self._stop = asked
            self._events.put_nowait(asked)
        elif self._shutdown is not None:
            self._log.info(f"{asked.reason} again: not waiting any longer")
            self._shutdown.hurry.set()

    def _envoy_ended(self, running: Running, facts: ExitFacts) -> None:
        self._events.put_nowait(EnvoyEnded(running, facts))

    def _hung_changed(self) -> None:
        self._events.put_nowait(Happened.HUNG_CHANGED)

    def _look_again(self) -> None:
        self._mesh_changed()
        self._settings_changed()

    def _mesh_changed(self) -> None:
        if self._prepared.local_mesh is not None:
            if self._prepared.local_mesh.reload().is_effective:
                self._reloads_accepted += 1
            self._readiness.note_change()

    def _settings_changed(self) -> None:
        self._events.put_nowait(Happened.SETTINGS_CHANGED)

    def _watched_files(self) -> list[Path]:
        return watched_files(self._prepared.inputs, self._desired.settings)

    def _state_changed(self) -> None:
        self._readiness.note_change()

    # Starting

    def _serve(self, running: Running) -> None:
        """`running` is the Envoy that is to serve; readiness follows when it does."""
        self._envoys.current = running
        self._memory = read_memory()
        self._watchdog.forget()
        self._cancel(self._watching_start)
        self._watching_start = asyncio.create_task(self._watch_start(running))

    async def _watch_start(self, running: Running) -> None:
        await until_serving(self._admin, running.epoch.number, self._lifecycle.explain)
        running.epoch = running.epoch._replace(base_id=self._envoys.base_id())
        self._lifecycle.to(State.SERVING, f"{running} serves")
        if self._first_ready is None:
            self._first_ready = self._prepared.phases.end("ready")
            self._log.info(f"Envoy proxy is ready ({self._prepared.phases})")
            self._start_idle_parts()

    def _start_idle_parts(self) -> None:
        """What is not needed before the first ready is loaded after it, or when that does not come soon."""
        if self._parts.has("file watcher"):
            return
        self._status.preload()
        subscriptions = [Subscription("settings", self._watched_files, self._settings_changed)]
        mesh = self._prepared.local_mesh
        if mesh is not None:
            subscriptions.append(
                Subscription("configDir", lambda: directory_and_links(mesh.directory), self._mesh_changed)
            )
        self._parts.start("file watcher", Watcher(subscriptions, self._log).run)

    def _spawn(self, epoch: Epoch) -> Running:
        desired = self._desired
        return self._envoys.spawn(desired.argv, self._prepared.inputs.variables, epoch, drain_seconds(desired))

    # Ends of Envoy

    async def _after_end(self, running: Running, facts: ExitFacts) -> int | None:
        """The exit code of the agent when this end is the end of all; None when it goes on."""
        if running.is_retired:
            self._log.info(f"{running} has left: {facts}")
            return None
        if running.is_heir:
            return None  # the change that spawned it looks at its end
        self._cancel(self._changing)
        self._cancel(self._watching_start)
        verdict = explain(
            str(running),
            facts,
            is_hung=running.is_hung,
            last_words=running.output.last_words,
            before=self._memory,
            after=read_memory(),
        )
        self._last_exit = EnvoyExit(facts.agent_code, facts.signal_name, verdict.reason)
        self._log.error(verdict.text)
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
        flags = self._desired.settings.flags
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
        due = RestartDue(reason)
        asyncio.get_running_loop().call_later(delay, self._events.put_nowait, due)

    async def _restart(self, reason: str) -> None:
        if self._policy.crashes_in_window > 1:
            # It may crash because of what is configured, and that may have been mended.
            self._use(await self._change.accept(self._desired))
        self._lifecycle.to(State.STARTING, f"Envoy starts again at epoch 0 after: {reason}")
        self._restarts[reason] += 1
        self._serve(self._spawn(Epoch(can_hot_restart=self._prepared.epoch.can_hot_restart)))

    def _after_hung_check(self) -> None:
        reason, current = self._watchdog.reason, self._envoys.current
        self._readiness.note_change()
        if reason is None or current is None:
            return
        self._log.error(f"{reason}: {evidence(current.child.pid)}")
        if self._desired.settings.flags.restart_hung_envoy:
            current.is_hung = True
            current.child.kill_group()

    # Changes of settings

    def _after_change(self) -> None:
        if self._changing is None or self._changing.done():
            self._changing = asyncio.create_task(self._apply_changes())
        else:
            self._has_changed_again = True

    async def _apply_changes(self) -> None:
        """From changed files to an Envoy that runs with them; a refused change leaves everything as it is."""
        self._has_changed_again = True
        while self._has_changed_again:
            self._has_changed_again = False
            wanted = await self._change.accept(self._desired)
            current = self._envoys.current
            if wanted is None or current is None:
                continue  # a restart looks at the settings itself
            self._use(wanted)
            if self._lifecycle.state is State.SERVING and current.epoch.base_id is not None:
                await self._hot_restart(current)
            else:
                await self._restart_fully("the bootstrap changed, and hot restart is not possible now")

    def _use(self, wanted: Desired | None) -> None:
        if wanted is not None:
            self._prepared.write_bootstrap(wanted)
            self._desired = wanted

    async def _hot_restart(self, current: Running) -> None:
        self._lifecycle.to(State.HOT_RESTARTING, "the bootstrap changed")
        heir = self._spawn(current.epoch.next())
        heir.is_heir = True
        self._envoys.heir = heir
        failure = await self._change.until_heir_serves(heir, self._admin)
        if failure is not None:
            self._log.error(f"hot restart failed: {failure}")
            await self._restart_fully("a failed heir leaves the shared memory unusable for every later one")
            return
        heir.is_heir, current.is_retired = False, True
        self._envoys.inherit()
        self._restarts["hot-restart"] += 1
        self._watchdog.forget()
        self._lifecycle.to(State.SERVING, f"{heir} has taken over")

    async def _restart_fully(self, why: str) -> None:
        """Stop every epoch and start anew at epoch 0 with what is desired now."""
        for each in self._envoys.all:
            each.is_retired = True
        self._cancel(self._watching_start)
        self._lifecycle.to(State.RESTARTING, why)
        await self._envoys.stop(GRACE_S)
        self._restart_later("full-restart", 0.0)

    # Stopping

    async def drain(self) -> str:
        """POST /drain: listeners drain but stay open, until a stop ends it all."""
        self._log.info("drain requested: listeners answer with connection: close from now on")
        options = DrainOptions(self._desired.settings.is_sidecar, skip_exit=True)
        if await post_drain(self._admin, options, self._log) and self._drained_at is None:
            self._drained_at = self._clock.monotonic()
        return "OK"

    def quit(self) -> str:
        """POST /quitquitquit: stop without a drain."""
        self._ask_to_stop(StopAsked("/quitquitquit called", is_graceful=False))
        return "OK"

    async def _end(self, asked: StopAsked) -> int:
        self._cancel(self._changing)
        self._cancel(self._watching_start)
        began = self._clock.monotonic()
        drained = await self._drain(asked)
        self._lifecycle.to(State.STOPPING, drained.rule if drained else asked.reason)
        ending = self._envoys.all
        await self._envoys.stop(GRACE_S)
        ends = ", ".join(f"{each}: {each.exited.result()}" for each in ending) or "no Envoy was running"
        waited = f"drained for {drained.seconds:.1f} s until: {drained.rule}; " if drained else ""
        self._log.info(f"shutdown took {self._clock.monotonic() - began:.1f} s; {waited}{ends}")
        return EXIT_OK

    async def _drain(self, asked: StopAsked) -> Drained | None:
        """None when there is nothing to drain, or nobody wants it."""
        drained_for = None if self._drained_at is None else self._clock.monotonic() - self._drained_at
        plan = plan_for(self._desired.settings, drained_for)
        self._shutdown = Shutdown(plan, self._admin, self._clock, self._log)
        has_served, current = self._first_ready is not None, self._envoys.current
        if not asked.is_graceful or not has_served or current is None:
            return None
        self._lifecycle.to(State.DRAINING, asked.reason)
        self._log.info(f"shutdown begins ({asked.reason}): {plan.timeline()}")

        async def begin_drain() -> None:
            if drained_for is None:
                await post_drain(self._admin, plan.drain, self._log)

        return await self._shutdown.drain(begin_drain, current.exited)

    # What others ask

    def _is_serving(self) -> bool:
        return self._lifecycle.state is State.SERVING

    def _notes(self) -> list[str]:
        mesh = self._prepared.local_mesh
        notes = [f"local configuration refused: {text}" for text in mesh.errors.values()] if mesh else []
        if self._change.refusal:
            notes.append(f"changed settings refused: {self._change.refusal}")
        return notes

    def _facts(self) -> AgentFacts:
        mesh, current = self._prepared.local_mesh, self._envoys.current
        return AgentFacts(
            is_ready=self._readiness.reason() is None,
            startup_seconds=self._first_ready,
            start_phase_seconds=self._prepared.phases.seconds,
            envoy_epoch=current.epoch.number if current else 0,
            envoy_restarts=self._restarts,
            envoy_last_exit=self._last_exit,
            envoy_hung_checks=self._watchdog.silent_checks_total,
            reaped_orphans=self._reaper.reaped_orphans,
            broken_files=tuple(mesh.errors) if mesh else (),
            config_reloads_accepted=self._reloads_accepted + self._restarts["hot-restart"],
            config_reloads_refused=(mesh.refused_total if mesh else 0) + self._change.refused_total,
        )

    @staticmethod
    def _cancel(task: "asyncio.Task[None] | None") -> None:
        if task is not None and not task.done():
            task.cancel()


def supervise(prepared: Prepared) -> int:
    """Run the agent to its end in this thread; the exit code."""
    prepared.log.adopt_stdlib()

    async def run() -> int:
        return await Agent(prepared).run()

    return asyncio.run(run())
