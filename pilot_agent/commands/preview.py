"""What `proxy` would run with the same flags, variables and files, worked out without running it.

`config` and `bootstrap` show it. Nothing is written, no port is opened; questions that only the world outside can
answer (Envoy's build, the address of a name) are asked as `proxy` asks them.
"""

import os

from pilot_agent.clock import SystemClock
from pilot_agent.commands.flags import log_options
from pilot_agent.commands.parsing import Parsed
from pilot_agent.commands.proxy_flags import proxy_flags
from pilot_agent.log import Log
from pilot_agent.supervise.desired import Desired, Inputs
from pilot_agent.supervise.questions import find_out

NO_BUILD = "there is no Envoy to ask for its build: this is the bootstrap for Istio's"


def preview(parsed: Parsed, *, needs_binary: bool = False) -> Desired:
    """Raises UsageError and SettingsError as `proxy` does; for a missing Envoy only where `needs_binary`."""
    options = log_options(parsed.values)
    Log(options)  # a wrong level or target is an error of `proxy` too
    inputs = Inputs(proxy_flags(parsed), dict(os.environ), options.as_json)
    _, desired = find_out(inputs, SystemClock(), lambda: False, needs_binary=needs_binary)
    has_nobody_asked = "build" in desired.unknown
    return desired._replace(warnings=(*desired.warnings, NO_BUILD)) if has_nobody_asked else desired


def has_binary(desired: Desired) -> bool:
    """Whether an Envoy was found; else its place in the arguments is just a name."""
    return desired.binary.is_absolute()
