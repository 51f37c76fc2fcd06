"""The click command of `pilot-agent proxy`, for its help and the shell's completion. What runs it is `proxy.run`."""

import click

from pilot_agent.commands.logging_flags import AgentCommand, logging_flags, option
from pilot_agent.commands.proxy_flags import PROXY_FLAGS
from pilot_agent.log import LogOptions


@click.argument("role", metavar="[sidecar|router]", default="sidecar")
@logging_flags
def _describe(role: str, log_options: LogOptions, **flags: object) -> None:
    """Run Envoy: bootstrap it, restart it, answer readiness and metrics on the status port, drain it.

    Without --configDir the configuration comes from istiod. Unknown flags are ignored, as Istio's agent does. Ctrl-C
    or SIGTERM drains Envoy and ends it.
    """
    raise AssertionError(f"main runs proxy without click: {role} {log_options} {flags}")


for _flag in reversed(PROXY_FLAGS):
    _describe = option(_flag)(_describe)

proxy = click.command(
    "proxy", cls=AgentCommand, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)(_describe)
