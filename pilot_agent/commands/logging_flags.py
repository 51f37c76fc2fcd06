"""The --log_* flags every subcommand takes, and Go's way of writing boolean flags.

Owns how those flags are declared and what `LogOptions` they give; what a level or a target means is for
`pilot_agent.log`. Used by each file of this package; the root command asks which of the flags take a value.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from pilot_agent.commands.flags import LOGGING_FLAGS, Flag, log_options
from pilot_agent.values import Duration, parse_bool

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


VALUED = frozenset(f"--{flag.name}" for flag in LOGGING_FLAGS if not flag.is_boolean)
"""The flags of this file that take a value."""

NAMES = VALUED | {"--log_as_json", "--no-log_as_json"}


class _Text(click.ParamType[Any]):
    """A flag's value, read by the flag itself so that help, completion and `proxy` agree on it."""

    def __init__(self, flag: Flag) -> None:
        self._flag = flag
        kinds = {bool: "boolean", int: "integer", Duration: "duration"}
        self.name = kinds.get(type(flag.default), "text")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._flag.read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[click.shell_completion.CompletionItem]":
        from click.shell_completion import CompletionItem

        del ctx, param
        return [CompletionItem(choice) for choice in self._flag.choices if choice.startswith(incomplete)]


def option(flag: Flag) -> Callable[[Callable[..., Returned]], Callable[..., Returned]]:
    """A flag of the table as click's option."""
    if flag.is_boolean:
        names = f"--{flag.name}/--no-{flag.name}"
        return click.option(names, flag.attribute, default=flag.default, help=flag.help)
    metavar = "|".join(flag.choices) or flag.metavar or None
    return click.option(
        f"--{flag.name}",
        flag.attribute,
        type=_Text(flag),
        multiple=flag.is_repeatable,
        default=flag.default,
        metavar=metavar,
        help=flag.help,
    )


def logging_flags(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """Declare the logging flags on a command; its function gets them as the keyword `log_options`, a LogOptions."""
    attributes = [flag.attribute for flag in LOGGING_FLAGS]

    @wraps(function)
    def call(*args: object, **values: Any) -> Returned:
        given = {name: values.pop(name) for name in attributes}
        return function(*args, log_options=log_options(given), **values)

    declared: Callable[..., Returned] = call
    for flag in reversed(LOGGING_FLAGS):
        declared = option(flag)(declared)
    return declared
