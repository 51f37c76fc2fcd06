"""Asking Envoy how it is: often until it serves, seldom afterwards, and noticing when it does not answer any more."""

import asyncio
from collections.abc import Callable

from pilot_agent.envoy.admin import STARTUP_STATS, Admin, startup_reason
from pilot_agent.errors import AdminError

EAGER_POLL_S = 0.002
EAGER_FOR_S = 0.25
LONGEST_POLL_S = 0.1
ANSWER_WITHIN_S = 1.0


async def until_serving(admin: Admin, epoch: int, explain: Callable[[str], None]) -> None:
    """Return when the Envoy of `epoch` has its configuration and its workers run; say meanwhile what is missing.

    Envoy has no event for this, so it is asked: every few milliseconds while a quick start may end, then ever less
    often, down to every 0.1 s.
    """
    pause, asked = EAGER_POLL_S, 0
    while True:
        reason = await _missing(admin, epoch)
        if reason is None:
            return
        explain(reason)
        await asyncio.sleep(pause)
        asked += 1
        if asked * EAGER_POLL_S > EAGER_FOR_S:
            pause = min(LONGEST_POLL_S, pause * 1.2)


async def _missing(admin: Admin, epoch: int) -> str | None:
    try:
        reason = startup_reason(await admin.stats(STARTUP_STATS, timeout=ANSWER_WITHIN_S))
        if reason is None and epoch:
            # During a hot restart the old epoch may be the one that answers.
            info = await admin.server_info(timeout=ANSWER_WITHIN_S)
            if info.epoch != epoch:
                reason = f"epoch {info.epoch} still answers for epoch {epoch}"
    except AdminError as error:
        return str(error)
    return reason


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
