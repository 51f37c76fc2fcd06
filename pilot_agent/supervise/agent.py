"""The agent under the event loop: composition of all parts, and the run loop that owns their lifetime.

`prepare` has started Envoy already. Signals, ends of processes, changed files and timers only put events into one
queue; the run loop takes them one by one, so that no two of them ever decide at the same time.
"""

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from pilot_agent.dns.table import NameTable
from pilot_agent.envoy.process import ExitFacts
from pilot_agent.files.watch import Subscription, Watcher, directory_and_links
from pilot_agent.metrics.own import AgentFacts, EnvoyExit
from pilot_agent.metrics.scrape import ScrapeLimits, Scraper
from pilot_agent.settings.paths import BASE_ID_NAME
from pilot_agent.status.port import StatusServer
from pilot_agent.status.probes import AppProbes, ProbeOptions
from pilot_agent.status.readiness import Gate, Readiness
from pilot_agent.supervise.desired import watched_files
from pilot_agent.supervise.envoys import Envoys, Running
from pilot_agent.supervise.events import EnvoyEnded, Events, Failed, Happened, RestartDue, StopAsked
from pilot_agent.supervise.facts import StatusFacts
from pilot_agent.supervise.gates import (
    BootstrapGate,
    CertificatesGate,
    ConfigGate,
    EnvoyGate,
    GrpcBootstrapGate,
    NameTableGate,
    TerminatingGate,
    WorkersGate,
)
from pilot_agent.supervise.identity import Identity
from pilot_agent.supervise.lifecycle import Lifecycle, State
from pilot_agent.supervise.memory import give_back
from pilot_agent.supervise.parts import Parts
from pilot_agent.supervise.prepare import Prepared
from pilot_agent.supervise.reaper import Reaper, adoption_warning
from pilot_agent.supervise.reloads import MeshReloads
from pilot_agent.supervise.serving import Serving
from pilot_agent.supervise.stopping import Stopping
from pilot_agent.supervise.workload import Nobody, ServingGate, workload_health
from pilot_agent.supervise.xds import Xds
from pilot_agent.values import HostPort
from pilot_agent.xds.options import work_out_xds

if TYPE_CHECKING:
    from pilot_agent.mesh.local import Change

FILE_WATCHER = "file watcher"
MESH_RELOADS = "mesh reloads"
IDLE_PARTS_AFTER_S = 5.0
"""When Envoy is not ready by then, a changed file matters all the same."""

GIVE_BACK_AFTER_S = 6.0
"""By then all parts run, and what their imports and first messages needed is free."""


class Agent:
    """Made from what `prepare` got ready; `run` returns the exit code."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._log, self._clock = prepared.log.scope(), prepared.clock
        self._has_envoy = prepared.desired.settings.has_envoy
        self._events = Events()
        self._lifecycle = Lifecycle(self._log, self._clock, self._state_changed)
        self._reaper = Reaper(self._log)
        base_id_path = prepared.workspace.root / BASE_ID_NAME
        self._envoys = Envoys(prepared.log, self._clock, self._reaper, base_id_path, self._envoy_ended)
        self._serving = Serving(prepared, self._envoys, self._lifecycle, self._events)
        self._parts = Parts(self._log)
        self._watcher: Watcher | None = None
        self._identity = self._make_identity()
        wants_names = prepared.xds is not None and work_out_xds(prepared.desired.settings).takes_names
        self._names = NameTable() if wants_names else None
        self._xds = self._make_xds()
        self._readiness = Readiness(self._gates(), self._log, self._clock, self._notes)
        self._probes = self._app_probes()
        self._stopping = Stopping(self._serving, self._envoys, self._lifecycle, self._events, self._log, self._clock)
        self._status = self._status_server()
        self._meshes_accepted = 0
        mesh = prepared.local_mesh
        self._reloads = MeshReloads(mesh, self._mesh_reloaded) if mesh is not None else None

    def _gates(self) -> list[Gate]:
        grpc = self._prepared.desired.grpc
        return [
            BootstrapGate(self._prepared.phases.seconds),
            *self._envoy_gates(),
            *([GrpcBootstrapGate(grpc.certificates)] if grpc is not None else []),
            CertificatesGate(self._identity_reason),
            NameTableGate(self._names.reason if self._names is not None else lambda: None),
            TerminatingGate(self._lifecycle),
        ]

    def _identity_reason(self) -> str | None:
        """Without an Envoy, and without OUTPUT_CERTS, nobody waits for a certificate."""
        desired = self._prepared.desired
        is_wanted = desired.settings.has_envoy or desired.identity.output is not None
        return self._identity.secrets.reason() if self._identity is not None and is_wanted else None

    def _envoy_gates(self) -> list[Gate]:
        if not self._has_envoy:
            return []
        lifecycle, serving = self._lifecycle, self._serving
        return [
            EnvoyGate(lifecycle, serving.pulse, serving.watchdog, lambda: self._envoys.current is not None),
            ConfigGate(lifecycle, self._xds.problem if self._xds is not None else lambda: None),
            WorkersGate(lifecycle),
        ]

    def _make_identity(self) -> Identity | None:
        opened = self._prepared.identity
        if opened is None:
            return None
        return Identity(
            self._prepared,
            opened,
            lambda: self._serving.desired,
            self._watch_again,
            lambda: self._parts.failures.get(FILE_WATCHER, 0),
        )

    def _make_xds(self) -> Xds | None:
        listener, identity = self._prepared.xds, self._identity
        if listener is None or identity is None:
            return None
        set_trust_bundle = identity.secrets.workload.set_trust_bundle
        take_names = self._names.take if self._names is not None else None
        return Xds(
            self._prepared,
            listener,
            lambda: self._serving.desired,
            identity.tokens,
            set_trust_bundle,
            self._envoys.ask,
            take_names,
        )

    def _status_server(self) -> StatusServer:
        prepared, desired = self._prepared, self._prepared.desired
        environment = desired.settings.environment
        envoy = HostPort(desired.family.localhost, environment.number("ENVOY_PROMETHEUS_PORT"))
        merges_envoy = self._has_envoy and environment.flag("PILOT_AGENT_MERGE_ENVOY_STATS")
        limits = ScrapeLimits(in_flight=desired.settings.flags.scrapes_in_flight)
        scraper = Scraper(self._facts, envoy if merges_envoy else None, prepared.apps, self._log, limits)
        return StatusServer(
            prepared.status_socket,
            self._readiness,
            scraper,
            self._stopping,
            self._log,
            self._clock,
            are_metrics_local_only=environment.flag("METRICS_LOCALHOST_ACCESS_ONLY"),
            probes=self._probes,
            facts=StatusFacts(
                prepared,
                self._serving,
                self._envoys,
                self._lifecycle,
                self._readiness,
                scraper.account,
                self._stopping.timeline,
                lambda: self._meshes_accepted,
                self._identity,
                self._xds,
                self._names,
            ),
        )

    def _app_probes(self) -> AppProbes:
        prepared, settings = self._prepared, self._prepared.desired.settings
        environment = settings.environment
        options = ProbeOptions(
            instance_ip=environment.text("INSTANCE_IP"),
            status_port=settings.proxy_config.status_port,
            legacy_localhost=environment.flag("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION"),
            keepalive=environment.flag("ENABLE_PROBE_KEEPALIVE_CONNECTIONS"),
            http2=environment.flag("ISTIO_ENABLE_HTTP2_PROBING"),
            log=prepared.log.scope("probes"),
        )
        return AppProbes(prepared.probers, options)

    async def run(self) -> int:
        """Run until one of the ways out; the status port answers until the very end.

        The ways out, and the exit codes (docs/exit-codes.md):
        1. SIGTERM, SIGINT: drain, end Envoy, 0.
        2. POST /quitquitquit, SIGQUIT: end Envoy without a drain, 0.
        3. Envoy ended by itself under --onEnvoyExit=exit: Envoy's own code, or 128 + signal.
        4. Envoy ended too often (--maxCrashes in --crashWindow): the same, but 1 where its own code is 0.
        5. Envoy can't be started again (its binary vanished): 255.
        6. A bug: the error, one line, 255; Envoy is killed on the way.
        """
        loop = asyncio.get_running_loop()
        try:
            self._adopt_children()
            self._prepared.signals.hand_over(loop.add_signal_handler, self._signalled)
            self._reaper.sweep()  # whatever ended before SIGCHLD had a handler
            await self._status.start()
            self._prepared.phases.end("status_port")
            self._begin()
            if not self._has_envoy:
                self._serving.serve_without_envoy()
            return await self._loop()
        finally:
            self._serving.leave_alone()
            await self._parts.stop()
            if self._identity is not None:
                self._identity.close()
            await self._envoys.kill()
            self._lifecycle.to(State.STOPPED, "every child has ended")
            await self._status.close()
            await self._probes.close()
            self._prepared.take_back()

    def _adopt_children(self) -> None:
        """Before any signal is handled: a SIGCHLD from before would have its end taken for an orphan's."""
        if self._has_envoy:
            assert self._prepared.child is not None
            self._serving.serve(self._envoys.adopt(self._prepared.child, self._prepared.epoch))
        if self._identity is not None:
            self._identity.adopt(self._reaper)

    def _begin(self) -> None:
        warning = adoption_warning()
        if warning:
            self._log.warn(warning)
        if self._identity is not None:
            self._identity.start(self._parts)
        if self._xds is not None:
            self._xds.start(self._parts)
        gate = ServingGate(self._lifecycle)
        health = workload_health(self._prepared, gate, self._reaper, self._xds if self._xds is not None else Nobody())
        if health is not None:
            self._parts.start("workload health", health.run)
        if self._has_envoy:
            self._watch_envoy()
        loop = asyncio.get_running_loop()
        loop.call_later(IDLE_PARTS_AFTER_S, self._start_idle_parts)
        loop.call_later(GIVE_BACK_AFTER_S, give_back)

    def _watch_envoy(self) -> None:
        self._parts.start("pulse", lambda: self._serving.pulse.run(self._is_serving, self._readiness.note_change))
        self._parts.start("watchdog", lambda: self._serving.watchdog.run(self._is_serving, self._hung_changed))

    async def _loop(self) -> int:
        code: int | None = None
        while code is None:
            match await self._events.next():
                case StopAsked() as asked:
                    code = await self._stopping.end(asked)
                case EnvoyEnded(running, facts):
                    code = await self._serving.after_end(running, facts)
                case RestartDue(reason):
                    await self._serving.restart(reason)
                case Failed(error):
                    raise error
                case Happened.SERVING_FOR_THE_FIRST_TIME:
                    self._start_idle_parts()
                case Happened.SETTINGS_CHANGED:
                    self._serving.after_change()
                case Happened.HUNG_CHANGED:
                    self._readiness.note_change()
                    self._serving.after_hung_check()
        return code

    def _start_idle_parts(self) -> None:
        """What is not needed before the first ready starts after it, or when that does not come soon."""
        if self._parts.has(FILE_WATCHER):
            return
        subscriptions = [Subscription("settings", self._watched_files, self._settings_changed)]
        mesh = self._prepared.local_mesh
        if mesh is not None and self._reloads is not None:
            self._parts.start(MESH_RELOADS, self._reloads.run)
            subscriptions.append(
                Subscription("configDir", lambda: directory_and_links(mesh.directory), self._reloads.ask)
            )
        if self._identity is not None:
            secrets = self._identity.secrets
            subscriptions.append(Subscription("certificates", secrets.paths, secrets.files_changed))
        if self._xds is not None:
            roots = self._xds.roots
            subscriptions.append(Subscription("istiod's roots", roots.paths, roots.changed))
        self._watcher = Watcher(subscriptions)
        self._parts.start(FILE_WATCHER, self._watcher.run)

    def _watch_again(self) -> None:
        if self._watcher is not None:
            self._watcher.look_again()

    # Producers: what happens becomes an event, or is answered on the spot without deciding anything.

    def _signalled(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            self._reaper.sweep()
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._stopping.ask(StopAsked(number.name))
        elif number == signal.SIGQUIT:
            self._stopping.ask(StopAsked(number.name, is_graceful=False))
        elif number == signal.SIGHUP:
            self._log.info("SIGHUP: looking at all settings again")
            if self._reloads is not None:
                self._reloads.ask()
            self._settings_changed()
            if self._identity is not None:
                self._identity.secrets.files_changed()
            if self._xds is not None:
                self._xds.roots.changed()
        elif number == signal.SIGUSR1 and self._envoys.current is not None:
            self._envoys.current.child.signal(signal.SIGUSR1)  # Envoy reopens its access logs
        elif number == signal.SIGUSR2:
            report = self._readiness.verbose().strip().replace("\n", "; ")
            self._log.info(f"SIGUSR2: {self._lifecycle.state.value}; {report}")

    def _envoy_ended(self, running: Running, facts: ExitFacts) -> None:
        self._events.put(EnvoyEnded(running, facts))

    def _state_changed(self) -> None:
        self._readiness.note_change()

    def _hung_changed(self) -> None:
        self._events.put(Happened.HUNG_CHANGED)

    def _settings_changed(self) -> None:
        self._events.put(Happened.SETTINGS_CHANGED)

    def _mesh_reloaded(self, change: "Change") -> None:
        self._meshes_accepted += change.is_effective
        self._readiness.note_change()

    def _watched_files(self) -> list[Path]:
        return watched_files(self._prepared.inputs, self._serving.desired.settings)

    # What others ask

    def _is_serving(self) -> bool:
        return self._lifecycle.state is State.SERVING

    def _notes(self) -> list[str]:
        mesh, refusal = self._prepared.local_mesh, self._serving.change.refusal
        notes = [f"local configuration refused: {text}" for text in mesh.errors.values()] if mesh else []
        if refusal:
            notes.append(f"changed settings refused: {refusal}")
        problem = self._xds.problem() if self._xds is not None else None
        if problem is not None:
            notes.append(f"istiod: {problem}")
        return [*notes, *(self._identity.secrets.notes() if self._identity is not None else [])]

    def _facts(self) -> AgentFacts:
        mesh, current, serving = self._prepared.local_mesh, self._envoys.current, self._serving
        last = serving.last_exit
        return AgentFacts(
            is_ready=self._readiness.reason() is None,
            startup_seconds=serving.first_ready,
            start_phase_seconds=self._prepared.phases.seconds,
            envoy_epoch=current.epoch.number if current else 0,
            envoy_restarts=serving.restarts,
            envoy_last_exit=EnvoyExit(last.facts.agent_code, last.facts.signal_name, last.reason) if last else None,
            envoy_hung_checks=serving.watchdog.silent_checks_total,
            reaped_orphans=self._reaper.reaped_orphans,
            broken_files=tuple(mesh.errors) if mesh else (),
            config_reloads_accepted=self._meshes_accepted + serving.accepted_changes,
            config_reloads_refused=(mesh.refused_total if mesh else 0) + serving.change.refused_total,
            identity=self._identity.facts() if self._identity is not None else {},
            xds=self._xds.facts() if self._xds is not None else {},
        )


def supervise(prepared: Prepared) -> int:
    """Run the agent to its end in this thread; the exit code."""
    prepared.log.adopt_stdlib()

    async def run() -> int:
        return await Agent(prepared).run()

    return asyncio.run(run())
