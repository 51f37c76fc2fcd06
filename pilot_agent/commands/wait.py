"""`pilot-agent wait`: asks the readiness port until it says 200, and says meanwhile which gate is closed, and why.

The postStart hook and the start script of other containers call it, so its first probe leaves at once: a proxy that is
ready costs them only our own start. Owns the polling; the HTTP client is `http_call`'s.
"""

import time
from typing import NamedTuple
from urllib.parse import urlsplit

from pilot_agent.clock import Clock, Deadline, SystemClock
from pilot_agent.commands.flags import log_options
from pilot_agent.commands.http_call import Call, RequestFailed, answer_text
from pilot_agent.commands.parsing import Parsed
from pilot_agent.errors import EXIT_OK, AgentError
from pilot_agent.log import Log, Scope

_REASON_BYTES = 4096


class Polling(NamedTuple):
    """How to ask; all times in seconds. `reason_url`: where the agent says why, while `url` does not answer."""

    url: str
    timeout: float
    request_timeout: float
    period: float
    reason_url: str | None = None


class Refusal(NamedTuple):
    """`error`: why this counts as not ready; `reason`: `<gate>: <reason>` of the agent, None when it did not say."""

    error: str
    reason: str | None = None

    @property
    def text(self) -> str:
        return f"{self.error}: {self.reason}" if self.reason else self.error


def refusal(url: str, timeout: float) -> Refusal | None:
    """Why `url` does not say 200, or None when it does."""
    try:
        with Call("GET", url).answered(timeout) as answer:
            if answer.status == 200:
                return None
            body = answer_text(answer, _REASON_BYTES)
            return Refusal(f"HTTP status code {answer.status}", " ".join(body.split()) or None)
    except RequestFailed as error:
        return Refusal(str(error).removeprefix(f"GET {url}: "))


def explained(found: Refusal, url: str | None, timeout: float) -> Refusal:
    """`found` with the agent's own reason from `url`: Envoy's readiness port is closed until its workers start."""
    if found.reason is not None or url is None:
        return found
    told = refusal(url, timeout)
    # Ready there, or nobody there either: nothing to add.
    return found._replace(reason=told.reason if told is not None else None)


def reason_url(url: str, port: int) -> str | None:
    """Readiness on the agent's own port of the host of `url`; None for port 0, and for what is no URL."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return None
    if not host or not port:
        return None
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/healthz/ready"


def poll(polling: Polling, clock: Clock, log: Scope) -> None:
    """Return when the proxy is ready; raises AgentError with the last reason when it is not in time."""
    deadline = Deadline.after(polling.timeout, clock)
    said = None
    while True:
        # With --timeoutSeconds=0 one full probe is still made.
        patience = min(polling.request_timeout, deadline.left or polling.request_timeout)
        found = refusal(polling.url, patience)
        if found is None:
            log.info("Envoy is ready!")
            return
        found = explained(found, polling.reason_url, patience)
        if said is None:
            log.info(f"Waiting for Envoy proxy to be ready (timeout: {polling.timeout:g} seconds)...")
        if (found.reason or found.error) != said:
            said = found.reason or found.error
            log.info(f"waiting: {said}")
        time.sleep(min(polling.period, deadline.left))
        if deadline.is_over:
            raise AgentError(f"timeout waiting for Envoy proxy to become ready. Last error: {found.text}")


def run(parsed: Parsed) -> int:
    values = parsed.values
    polling = Polling(
        values["url"],
        float(values["timeout"]),
        values["request_timeout"] / 1000,
        values["period"] / 1000,
        reason_url(values["url"], values["status_port"]),
    )
    poll(polling, SystemClock(), Log(log_options(values)).scope())
    return EXIT_OK
