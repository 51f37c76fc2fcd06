"""`pilot-agent drain`: asks the agent to drain Envoy, for a preStop hook, and with --wait stays until that is done.

Owns the waiting. What a drain is belongs to the agent (POST /drain), which connections count to `envoy.drain`.
"""

import os
import time
from collections.abc import Callable

from pilot_agent.clock import Clock, Deadline, SystemClock
from pilot_agent.commands.flags import log_options
from pilot_agent.commands.http_call import Call, answer_text
from pilot_agent.commands.parsing import Parsed
from pilot_agent.envoy.drain import ACTIVE_CONNECTIONS_PATH, count_connections
from pilot_agent.errors import EXIT_OK, AgentError
from pilot_agent.log import Log, Scope
from pilot_agent.node.keys import NUMBER, keys_of
from pilot_agent.settings.environment import Environment

DRAIN_TIMEOUT_S = 10.0
"""The agent gives Envoy two seconds to take the request."""
STATS_TIMEOUT_S = 2.0
PERIOD_S = 1.0
_REASON_BYTES = 4096
_STATS_BYTES = 4 * 1024 * 1024


def run(parsed: Parsed) -> int:
    """Drain. Raises AgentError when the agent does not take the request, or connections are left at the end."""
    values = parsed.values
    log = Log(log_options(values)).scope()
    begin(f"http://localhost:{values['status_port']}/drain")
    log.info("Envoy drains: answers tell clients to close their connections")
    if values["wait"]:
        environment = Environment(os.environ)
        own_ports = [environment.number(name) for name in keys_of(NUMBER)]
        url = f"http://localhost:{values['admin_port']}{ACTIVE_CONNECTIONS_PATH}"
        wait_until_drained(lambda: connections_left(url, own_ports), values["timeout"], SystemClock(), log)
    return EXIT_OK


def begin(url: str) -> None:
    """Ask the agent at `url` to drain. Raises AgentError unless it says that Envoy has taken it."""
    with Call("POST", url).answered(DRAIN_TIMEOUT_S) as answer:
        if answer.status != 200:
            text = answer_text(answer, _REASON_BYTES)
            raise AgentError(f"POST {url}: HTTP status code {answer.status}: {text}")


def connections_left(url: str, own_ports: list[int]) -> int:
    """How many connections Envoy has, but for those to `own_ports`. Raises AgentError when it does not say."""
    with Call("GET", url).answered(STATS_TIMEOUT_S) as answer:
        text = answer_text(answer, _STATS_BYTES)
    if answer.status != 200:
        raise AgentError(f"GET {url}: HTTP status code {answer.status}")
    count = count_connections(text, own_ports)
    if count is None:
        raise AgentError("Envoy exports no statistics of its connections: put them into proxyStatsMatcher")
    return count


def wait_until_drained(
    count: Callable[[], int], timeout: int, clock: Clock, log: Scope, pause: Callable[[float], None] = time.sleep
) -> None:
    """Return when `count` is 0, which is asked every second; raises AgentError with the last one after `timeout` s.

    An Envoy that does not say how many there are counts as not drained: it may be busy, or about to come back.
    """
    deadline = Deadline.after(timeout, clock)
    said = None
    while True:
        try:
            left = count()
            state = f"{left} connection{' is' if left == 1 else 's are'} left"
        except AgentError as error:
            left, state = None, str(error)
        if left == 0:
            log.info("drained: no connection is left")
            return
        if deadline.is_over:
            raise AgentError(f"not drained within {timeout} seconds: {state}")
        if state != said:
            log.info(f"Waiting for Envoy to drain (timeout: {timeout} seconds): {state}")
            said = state
        pause(min(PERIOD_S, deadline.left))
