"""`pilot-agent proxy`: the main mode. Parses flags, gets Envoy started, and only then imports the rest of the agent."""

import os
from collections.abc import Callable
from typing import Any

import click

from pilot_agent.clock import SystemClock
from pilot_agent.commands.logging_flags import AgentCommand, logging_flags
from pilot_agent.errors import EXIT_OK, AgentError
from pilot_agent.log import Log, LogOptions
from pilot_agent.settings.model import ProxyFlags
from pilot_agent.settings.sources import ROLES
from pilot_agent.values import Duration

DEFAULTS = ProxyFlags()


class DurationType(click.ParamType[Duration]):
    """A duration in Go's syntax, such as 5s or 1m30s."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Duration:
        if isinstance(value, Duration):
            return value
        try:
            duration = Duration.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if duration.nanoseconds < 0:
            self.fail(f"{value!r} is negative", param, ctx)
        return duration


def _flag(name: str, attribute: str, effect: str, **more: Any) -> Callable[[Callable[..., int]], Callable[..., int]]:
    default = getattr(DEFAULTS, attribute)
    shown = {True: "true", False: "false", "": "empty"}.get(default, str(default))
    if isinstance(default, Duration):
        more.setdefault("type", DurationType())
    return click.option(f"--{name}", attribute, default=default, help=f"{effect} (default {shown})", **more)


_FLAGS = (
    _flag("domain", "domain", "DNS domain of the node; empty means POD_NAMESPACE.svc.cluster.local", metavar="DOMAIN"),
    _flag("meshConfig", "mesh_config", "MeshConfig file; a missing one is no error", metavar="FILE"),
    _flag(
        "configDir",
        "config_dir",
        "Local mode: take the configuration from the Istio YAML files in this directory instead of istiod",
        metavar="DIR",
    ),
    _flag("stsPort", "sts_port", "Node metadata STS_PORT; there is no STS server any more"),
    _flag("tokenManagerPlugin", "token_manager_plugin", "Accepted for compatibility, without effect"),
    _flag("serviceCluster", "service_cluster", "Service name, when the proxy configuration explicitly has none"),
    _flag(
        "proxyLogLevel",
        "proxy_log_level",
        "Envoy's log level, with or without component:level pairs",
        metavar="LEVEL,...",
    ),
    _flag(
        "proxyComponentLogLevel",
        "proxy_component_log_level",
        "Deprecated: component:level pairs, when --proxyLogLevel has none",
    ),
    _flag("concurrency", "concurrency", "Envoy's worker threads; 0 leaves it to the proxy configuration"),
    _flag(
        "templateFile", "template_file", "Jinja2 template of the bootstrap instead of the shipped one", metavar="FILE"
    ),
    _flag("outlierLogPath", "outlier_log_path", "Log file of outlier detection events", metavar="FILE"),
    _flag("profiling/--no-profiling", "profiling", "Accepted for compatibility: Go's profiles do not exist here"),
    _flag(
        "onEnvoyExit",
        "on_envoy_exit",
        "When Envoy ends by itself: restart it with a back-off, or exit with its code as Istio's agent ends",
        type=click.Choice(["restart", "exit"]),
    ),
    _flag(
        "maxCrashes", "max_crashes", "Give up after so many ends of Envoy within --crashWindow", type=click.IntRange(1)
    ),
    _flag("crashWindow", "crash_window", "The time over which --maxCrashes counts"),
    _flag("hungChecks", "hung_checks", "Checks in a row that a hung Envoy leaves unanswered", type=click.IntRange(1)),
    _flag("hungCheckInterval", "hung_check_interval", "Time between two such checks"),
    _flag(
        "restartHungEnvoy/--no-restartHungEnvoy",
        "restart_hung_envoy",
        "Kill and restart an Envoy that hangs; it is counted and makes the proxy unready either way",
    ),
    _flag("preDrainDelay", "pre_drain_delay", "Time between SIGTERM and the drain, with readiness false already"),
    _flag(
        "terminationDeadline",
        "termination_deadline",
        "Most time from SIGTERM until Envoy is told to end; 0 means terminationDrainDuration, or one hour where the "
        "drain ends on zero connections",
    ),
    _flag(
        "subreaper/--no-subreaper",
        "subreaper",
        "Adopt and reap orphaned descendants though the agent is not PID 1",
    ),
)


def _proxy_flags(function: Callable[..., int]) -> Callable[..., int]:
    for flag in reversed(_FLAGS):
        function = flag(function)
    return function


@click.command(
    "proxy",
    cls=AgentCommand,
    # As Istio's agent: unknown flags are ignored, so that a newer injector can drive an older agent.
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("role", metavar="[sidecar|router]", default="sidecar")
@_proxy_flags
@logging_flags
@click.pass_context
def proxy(ctx: click.Context, /, role: str, log_options: LogOptions, **flags: Any) -> int:
    """Run Envoy: bootstrap it, restart it, answer readiness and metrics on the status port, drain it.

    Without --configDir the configuration comes from istiod. Ctrl-C or SIGTERM drains and ends it.
    """
    from pilot_agent.supervise.desired import Inputs
    from pilot_agent.supervise.prepare import prepare
    from pilot_agent.supervise.reaper import become_subreaper
    from pilot_agent.supervise.signals import EarlySignals

    signals = EarlySignals()
    log = Log(log_options)
    settings_flags = ProxyFlags(role=role, **flags)
    if settings_flags.role not in ROLES:
        raise click.UsageError(f"invalid proxy Type: {role}; use one of {', '.join(ROLES)}")
    if settings_flags.subreaper:
        become_subreaper()
    for unknown in ctx.args:
        log.scope().warn(f"unknown argument {unknown!r} is ignored")
    inputs = Inputs(settings_flags, dict(os.environ), log_options.as_json)
    try:
        prepared = prepare(inputs, log, SystemClock(), signals)
    except AgentError as error:
        log.scope().error(str(error))  # main says it on standard error as well, as Istio's agent does
        raise
    if prepared.child is None:
        log.scope().info(f"{signals.stop} before Envoy was started: nothing to end")
        prepared.take_back()
        return EXIT_OK
    from pilot_agent.supervise.agent import supervise  # asyncio and the rest, while Envoy boots

    return supervise(prepared)
