"""The end of the agent: who asks for it, whether Envoy drains first, and telling what happened when.

`status` calls it for /drain and /quitquitquit, the run loop for signals and for the end itself. How a drain is waited
for is `shutdown`'s.
"""

import asyncio

from pilot_agent.clock import Clock
from pilot_agent.envoy.drain import DrainOptions
from pilot_agent.errors import EXIT_OK, AdminError
from pilot_agent.log import Scope
from pilot_agent.supervise.envoys import Envoys, Running
from pilot_agent.supervise.events import Events, StopAsked
from pilot_agent.supervise.lifecycle import Lifecycle, State
from pilot_agent.supervise.serving import Serving
from pilot_agent.supervise.shutdown import GRACE_S, Drained, Shutdown, plan_for, post_drain
from pilot_agent.supervise.timeline import Timeline


class Stopping:
    """The first one who asks decides how; whoever asks again cuts the waiting short (`status.control.Control`)."""

    def __init__(
        self, serving: Serving, envoys: Envoys, lifecycle: Lifecycle, events: Events, log: Scope, clock: Clock
    ) -> None:
        self._serving, self._envoys, self._lifecycle = serving, envoys, lifecycle
        self._events, self._log, self._clock = events, log, clock
        self.timeline = Timeline(clock)
        self._asked: StopAsked | None = None
        self._hurry = asyncio.Event()
        self._drained: tuple[Running, float] | None = None
        """The Envoy that was told to drain by POST /drain, and when: another one does not drain."""

    def ask(self, asked: StopAsked) -> None:
        if self._asked is None:
            self._asked = asked
            self.timeline.begin(asked.reason)
            self._events.put(asked)
        else:
            self._log.info(f"{asked.reason} while stopping: not waiting any longer")
            self.timeline.note("asked again", f"{asked.reason}: it waits no longer")
            self._hurry.set()

    async def drain(self) -> str:
        """POST /drain: listeners drain but stay open, until a stop ends it all."""
        if not self._serving.desired.settings.has_envoy:
            self._log.info("drain requested: there is no Envoy whose listeners could drain (DISABLE_ENVOY)")
            return "OK: no Envoy is run, there is nothing to drain"
        self._log.info("drain requested: listeners answer with connection: close from now on")
        options = DrainOptions(self._serving.desired.settings.is_sidecar, skip_exit=True)
        current = self._envoys.current
        if current is None or not await post_drain(self._serving.admin(), options, self._log):
            raise AdminError("Envoy did not take the request; the log says why")
        if self._drained is None or self._drained[0] is not current:
            self._drained = (current, self._clock.monotonic())
        return "OK"

    def quit(self) -> str:
        """POST /quitquitquit: stop without a drain."""
        self.ask(StopAsked("/quitquitquit called", is_graceful=False))
        return "OK"

    async def end(self, asked: StopAsked) -> int:
        """Drain where that is wanted, and end every Envoy; the exit code."""
        self._serving.leave_alone()
        began = self._clock.monotonic()
        drained = await self._drain(asked)
        rule = drained.rule if drained else asked.reason
        self.timeline.note("Envoy is told to end", rule)
        self._lifecycle.to(State.STOPPING, rule)
        ending = self._envoys.all
        await self._envoys.stop(GRACE_S)
        ends = ", ".join(f"{each}: {each.exited.result()}" for each in ending) or "no Envoy was running"
        self.timeline.note("Envoy has ended", ends)
        waited = f"drained for {drained.seconds:.1f} s until: {drained.rule}; " if drained else ""
        self._log.info(f"shutdown took {self._clock.monotonic() - began:.1f} s; {waited}{ends}")
        return EXIT_OK

    async def _drain(self, asked: StopAsked) -> Drained | None:
        """None when there is nothing to drain, or nobody wants it."""
        drained_for = None
        if self._drained is not None and self._drained[0] is self._envoys.current:
            drained_for = self._clock.monotonic() - self._drained[1]
        plan = plan_for(self._serving.desired.settings, drained_for)
        shutdown = Shutdown(plan, self._serving.admin(), self._clock, self._log, self._hurry, self.timeline.note)
        has_served, current = self._serving.first_ready is not None, self._envoys.current
        if not asked.is_graceful or not has_served or current is None:
            return None
        self._lifecycle.to(State.DRAINING, asked.reason)
        self._log.info(f"shutdown begins ({asked.reason}): {plan.timeline()}")
        self.timeline.plan = plan.timeline()
        self.timeline.note("readiness is false")

        async def begin_drain() -> None:
            if drained_for is None:
                has_taken = await post_drain(self._serving.admin(), plan.drain, self._log)
                self.timeline.note("Envoy was asked to drain", "" if has_taken else "it did not take the request")

        return await shutdown.drain(begin_drain, current.exited)
