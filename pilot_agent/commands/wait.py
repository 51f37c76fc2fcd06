"""`pilot-agent wait`: asks the readiness port until it says 200, and says meanwhile why it does not.

The postStart hook and the start script of other containers call it, so its first probe leaves at once: a proxy that is
ready costs them only our own start. Owns the polling; the HTTP client is `http_call`'s.
"""

import time
from typing import NamedTuple

from pilot_agent.clock import Clock, Deadline, SystemClock
from pilot_agent.commands.flags import log_options
from pilot_agent.commands.http_call import Call, RequestFailed, answer_text
from pilot_agent.commands.parsing import Parsed
from pilot_agent.errors import EXIT_OK, AgentError
from pilot_agent.log import Log, Scope

_REASON_BYTES = 4096


class Polling(NamedTuple):
    """How to ask; all times in seconds."""

    url: str
    timeout: float
    request_timeout: float
    period: float


def refusal(url: str, timeout: float) -> str | None:
    """Why `url` does not say 200, or None when it does."""
    try:
        with Call("GET", url).answered(timeout) as answer:
            if answer.status == 200:
                return None
            body = answer_text(answer, _REASON_BYTES)
            return f"HTTP status code {answer.status}" + (f": {body}" if body else "")
    except RequestFailed as error:
        return str(error).removeprefix(f"GET {url}: ")


def poll(polling: Polling, clock: Clock, log: Scope) -> None:
    """Return when the proxy is ready; raises AgentError with the last reason when it is not in time."""
    deadline = Deadline.after(polling.timeout, clock)
    said = None
    while True:
        # With --timeoutSeconds=0 one full probe is still made.
        reason = refusal(polling.url, min(polling.request_timeout, deadline.left or polling.request_timeout))
        if reason is None:
            log.info("Envoy is ready!")
            return
        if reason != said:
            log.info(f"Waiting for Envoy proxy to be ready (timeout: {polling.timeout:g} seconds): {reason}")
            said = reason
        time.sleep(min(polling.period, deadline.left))
        if deadline.is_over:
            raise AgentError(f"timeout waiting for Envoy proxy to become ready. Last error: {reason}")


def run(parsed: Parsed) -> int:
    values = parsed.values
    polling = Polling(
        values["url"], float(values["timeout"]), values["request_timeout"] / 1000, values["period"] / 1000
    )
    poll(polling, SystemClock(), Log(log_options(values)).scope())
    return EXIT_OK
