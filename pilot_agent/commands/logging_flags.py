"""The --log_* flags every subcommand takes, and Go's way of writing boolean flags.

Owns how those flags are declared and what `LogOptions` they give; what a level or a target means is for
`pilot_agent.log`. Used by each file of this package; the root command asks which of the flags take a value.
"""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import click

from pilot_agent.log import LogOptions
from pilot_agent.values import parse_bool

Returned = TypeVar("Returned")


class AgentCommand(click.Command):
    """A command whose boolean flags may also be written `--flag=true` and `--flag=false`.

    Istio's injector and the charts write them so (pflag's syntax), and click knows only `--flag` and `--no-flag`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        negations = {
            name: parameter.secondary_opts[0] if parameter.secondary_opts else None
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and parameter.is_bool_flag and not parameter.is_eager
            for name in parameter.opts
        }
        words = _until_double_dash(args)
        for index, word in enumerate(words):
            name, equals, text = word.partition("=")
            if not equals or name not in negations:
                continue
            try:
                wanted = parse_bool(text)
            except ValueError as error:
                raise click.BadOptionUsage(name, f"invalid argument for {name}: {error}", ctx) from None
            words[index] = name if wanted else negations[name] or ""
            if not words[index]:
                raise click.BadOptionUsage(name, f"{name} can't be set to false: leave it out", ctx)
        return super().parse_args(ctx, words + args[len(words) :])


def _until_double_dash(args: list[str]) -> list[str]:
    return args[: args.index("--")] if "--" in args else list(args)


_OPTIONS = (
    click.option(
        "--log_as_json/--no-log_as_json",
        default=False,
        help="Write one JSON object per log line instead of tab-separated columns (default false).",
    ),
    click.option(
        "--log_target",
        multiple=True,
        default=("stdout",),
        metavar="PATH",
        help="Where log lines go: a path, stdout or stderr (default stdout). Give it again to write to several.",
    ),
    click.option(
        "--log_output_level",
        default="default:info,grpc:none",
        metavar="SCOPE:LEVEL,...",
        help="What is logged, per scope (default default:info,grpc:none). A level alone is for scope default; "
        "scope all is every scope. Levels: debug, info, warn, error, fatal, none.",
    ),
    click.option(
        "--log_stacktrace_level",
        default="default:none",
        metavar="SCOPE:LEVEL,...",
        help="From which level on a line carries a stack trace, per scope (default default:none).",
    ),
    click.option(
        "--log_caller",
        default="",
        metavar="SCOPE,...",
        help="Scopes whose lines name file and line of the caller; all is every scope (default none).",
    ),
    click.option(
        "--vklog",
        type=int,
        default=0,
        help="Verbosity of Kubernetes' Go client library (default 0). Accepted for compatibility: there is none here.",
    ),
)

VALUED = frozenset({"--log_target", "--log_output_level", "--log_stacktrace_level", "--log_caller", "--vklog"})
"""The flags of this file that take a value."""

NAMES = VALUED | {"--log_as_json", "--no-log_as_json"}


def logging_flags(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """Declare the logging flags on a command; its function gets them as the keyword `log_options`, a LogOptions."""

    @wraps(function)
    def call(
        *args: object,
        log_as_json: bool,
        log_target: tuple[str, ...],
        log_output_level: str,
        log_stacktrace_level: str,
        log_caller: str,
        vklog: int,  # noqa: ARG001 - accepted for compatibility, see its help
        **others: object,
    ) -> Returned:
        options = LogOptions(log_as_json, log_target, log_output_level, log_stacktrace_level, log_caller)
        return function(*args, log_options=options, **others)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call
