"""Asking Envoy how it is: often until it serves, seldom afterwards, and noticing when it does not answer any more."""

import asyncio
from collections.abc import Callable

from pilot_agent.envoy.admin import STARTUP_STATS, Admin, config_reason, workers_reason
from pilot_agent.envoy.heartbeat import Heartbeat
from pilot_agent.errors import AdminError
from pilot_agent.supervise.lifecycle import Missing

EAGER_POLL_S = 0.002
EAGER_FOR_S = 0.25
LONGEST_POLL_S = 0.1
ANSWER_WITHIN_S = 1.0

PULSE_EVERY_S = 0.3
SILENT_AFTER_S = 0.6
"""Together less than a second, so that a hang is known within one. Most of it goes to waiting: a busy main thread (a
large configuration, a large dump) is silent for some tenths of a second. Three questions a second: 0.1 % of a CPU.
"""
OWN_DELAY_S = 0.05
"""When our own loop was late, the answer may be there already, unread."""


async def until_serving(admin: Admin, epoch: int, explain: Callable[[Missing], None]) -> None:
    """Return when the Envoy of `epoch` has its configuration and its workers run; say meanwhile what is missing.

    Envoy has no event for this, so it is asked: every few milliseconds while a quick start may end, then ever less
    often, down to every 0.1 s.
    """
    pause, asked = EAGER_POLL_S, 0
    while True:
        missing = await _missing(admin, epoch)
        if missing.first is None:
            return
        explain(missing)
        await asyncio.sleep(pause)
        asked += 1
        if asked * EAGER_POLL_S > EAGER_FOR_S:
            pause = min(LONGEST_POLL_S, pause * 1.2)


async def _missing(admin: Admin, epoch: int) -> Missing:
    try:
        stats = await admin.stats(STARTUP_STATS, timeout=ANSWER_WITHIN_S)
        missing = Missing(config=config_reason(stats), workers=workers_reason(stats))
        if missing.first is None and epoch:
            # During a hot restart the old epoch may be the one that answers.
            info = await admin.server_info(timeout=ANSWER_WITHIN_S)
            if info.epoch != epoch:
                return Missing.all_of(f"epoch {info.epoch} still answers for epoch {epoch}")
    except AdminError as error:
        return Missing.all_of(str(error))
    return missing


class Pulse:
    """Whether Envoy answers right now: what readiness looks at. What is done about a hang is the watchdog's."""

    def __init__(self, admin: Callable[[], Admin]) -> None:
        self._admin = admin
        self._heartbeat: Heartbeat | None = None
        self.is_silent = False

    @property
    def reason(self) -> str | None:
        # No moving number: readiness logs every new reason.
        return "its admin interface does not answer" if self.is_silent else None

    def forget(self) -> None:
        """Another Envoy runs now."""
        self.is_silent = False
        if self._heartbeat is not None:
            self._heartbeat.close()
            self._heartbeat = None

    async def run(self, is_serving: Callable[[], bool], changed: Callable[[], None]) -> None:
        """Ask until cancelled; `changed` is called whenever `is_silent` changed."""
        try:
            while True:
                await asyncio.sleep(PULSE_EVERY_S)
                if is_serving():
                    await self._ask(is_serving, changed)
        finally:
            self.forget()

    async def _ask(self, is_serving: Callable[[], bool], changed: Callable[[], None]) -> None:
        if self._heartbeat is None:
            admin = self._admin()
            self._heartbeat = Heartbeat(admin.host, admin.port)
        asked = self._heartbeat

        def found(*, is_silent: bool) -> None:
            # It may have ended, been stopped or replaced while we waited.
            if is_silent != self.is_silent and asked is self._heartbeat and is_serving():
                self.is_silent = is_silent
                changed()

        asking = asyncio.ensure_future(asked.beat())
        try:
            for patience in (SILENT_AFTER_S, OWN_DELAY_S):
                if not asking.done():
                    await asyncio.wait({asking}, timeout=patience)
            if not asking.done():
                found(is_silent=True)
            await asking
            found(is_silent=False)
        except AdminError:
            found(is_silent=True)
        finally:
            asking.cancel()


class Watchdog:
    """Asks Envoy's admin interface every `interval` seconds; `checks` silent answers in a row mean it hangs."""

    def __init__(self, admin: Callable[[], Admin], interval: float, checks: int) -> None:
        self._admin = admin
        self._interval, self._checks = interval, checks
        self.silent_checks_total = 0
        self.silent_in_a_row = 0

    @property
    def reason(self) -> str | None:
        """Why Envoy counts as hung; None while it does not."""
        if self.silent_in_a_row < self._checks:
            return None
        # No moving number: readiness logs every new reason.
        return f"Envoy hangs: its admin interface left {self._checks} or more checks in a row without an answer"

    def forget(self) -> None:
        """Another Envoy runs now."""
        self.silent_in_a_row = 0

    async def run(self, is_serving: Callable[[], bool], changed: Callable[[], None]) -> None:
        """Watch until cancelled; `changed` is called after every check that changed `reason`."""
        while True:
            await asyncio.sleep(self._interval)
            if not is_serving():
                continue
            before = self.reason
            try:
                await self._admin().server_info(timeout=ANSWER_WITHIN_S)
                self.silent_in_a_row = 0
            except AdminError:
                if is_serving():  # it may have ended, or been stopped, while we waited
                    self.silent_in_a_row += 1
                    self.silent_checks_total += 1
            if self.reason != before:
                changed()
