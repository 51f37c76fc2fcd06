"""`pilot-agent wait`: asks the readiness port until it says 200, and says meanwhile why it does not.

The postStart hook and the start script of other containers call it, so its first probe leaves at once: a proxy that is
ready costs them only our own start. Owns the polling; the HTTP client is `request`'s.
"""

import time
from typing import NamedTuple

import click

from pilot_agent.clock import Clock, Deadline, SystemClock
from pilot_agent.commands.logging_flags import AgentCommand, logging_flags
from pilot_agent.commands.request import Call, RequestFailed, answer_text
from pilot_agent.errors import AgentError
from pilot_agent.log import Log, LogOptions, Scope

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


@click.command(cls=AgentCommand, context_settings={"max_content_width": 120})
@click.option(
    "--timeoutSeconds",
    "timeout",
    type=click.IntRange(min=0),
    default=60,
    help="Give up after so many seconds (default 60); 0 asks once.",
)
@click.option(
    "--requestTimeoutMillis",
    "request_timeout",
    type=click.IntRange(min=1),
    default=500,
    help="How long one request may take, in milliseconds (default 500).",
)
@click.option(
    "--periodMillis",
    "period",
    type=click.IntRange(min=1),
    default=500,
    help="Pause between two requests, in milliseconds (default 500). The first is made at once.",
)
@click.option(
    "--url",
    default="http://localhost:15021/healthz/ready",
    help="What to ask; ready is status 200 (default http://localhost:15021/healthz/ready).",
)
@logging_flags
def wait(timeout: int, request_timeout: int, period: int, url: str, log_options: LogOptions) -> None:
    """Wait until the proxy is ready.

    Each new reason why it is not is logged once. Fails with 255 and the last reason when the time is over.
    """
    polling = Polling(url, float(timeout), request_timeout / 1000, period / 1000)
    poll(polling, SystemClock(), Log(log_options).scope())
