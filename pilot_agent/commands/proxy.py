"""`pilot-agent proxy`: the main mode. Gets Envoy started, and only then imports the rest of the agent.

Anything imported before the spawn costs start time, so the rest of the agent is imported by `run`, late.
"""

import gc
import os

from pilot_agent.clock import SystemClock
from pilot_agent.commands.flags import log_options
from pilot_agent.commands.parsing import Parsed
from pilot_agent.commands.proxy_flags import proxy_flags
from pilot_agent.errors import EXIT_OK, AgentError
from pilot_agent.log import Log
from pilot_agent.supervise.signals import EarlySignals


def run(parsed: Parsed) -> int:
    """Run the agent; the exit code. Raises AgentError."""
    gc.disable()  # modules are no garbage: looking for some while they load takes a tenth of the time to Envoy's spawn
    signals = EarlySignals()
    options = log_options(parsed.values)
    log = Log(options)
    flags = proxy_flags(parsed)
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
        if prepared.child is None and signals.stop is not None:
            log.scope().info(f"{signals.stop} before anything was started: nothing to end")
            prepared.take_back()
            return EXIT_OK

        from pilot_agent.supervise.agent import supervise  # asyncio and the rest, while Envoy boots

        gc.freeze()  # or the first search would go through all of it
        gc.enable()
        return supervise(prepared)
    except AgentError as error:
        log.scope().error(str(error))  # main says it on standard error as well, as Istio's agent does
        raise
