"""`pilot-agent proxy`: the main mode. Gets Envoy started, and only then imports the rest of the agent.

`run` is called with the raw arguments by main, without click; the click command below is for help and completion.
"""

import os
from collections.abc import Sequence

from pilot_agent.clock import SystemClock
from pilot_agent.commands.flags import LOGGING_FLAGS, log_options, parse
from pilot_agent.commands.proxy_flags import PROXY_FLAGS
from pilot_agent.errors import EXIT_OK, AgentError, UsageError
from pilot_agent.log import Log
from pilot_agent.settings.model import ProxyFlags
from pilot_agent.settings.sources import ROLES
from pilot_agent.supervise.signals import EarlySignals


def run(args: Sequence[str]) -> int:
    """Run the agent with the arguments behind `proxy`; the exit code. Raises AgentError."""
    signals = EarlySignals()
    parsed = parse((*PROXY_FLAGS, *LOGGING_FLAGS), args)
    options = log_options(parsed.values)
    log = Log(options)
    role = parsed.words[0] if parsed.words else ProxyFlags().role
    if role not in ROLES:
        raise UsageError(f"invalid proxy Type: {role}; use one of {', '.join(ROLES)}")
    flags = ProxyFlags(role, **{flag.attribute: parsed.values[flag.attribute] for flag in PROXY_FLAGS})
    for unknown in parsed.unknown:
        log.scope().warn(f"unknown flag {unknown!r} is ignored")

    from pilot_agent.supervise.desired import Inputs
    from pilot_agent.supervise.prepare import prepare
    from pilot_agent.supervise.reaper import become_subreaper

    if flags.subreaper:
        become_subreaper()

    inputs = Inputs(flags, dict(os.environ), options.as_json)
    try:
        prepared = prepare(inputs, log, SystemClock(), signals)
        if prepared.child is None:
            log.scope().info(f"{signals.stop} before Envoy was started: nothing to end")
            prepared.take_back()
            return EXIT_OK

        from pilot_agent.supervise.agent import supervise  # asyncio and the rest, while Envoy boots

        return supervise(prepared)
    except AgentError as error:
        log.scope().error(str(error))  # main says it on standard error as well, as Istio's agent does
        raise
