"""The root of the command line in click: finds the subcommand, imports its module, runs it.

A subcommand's module is imported only when it is called or asked for its help. Owns no flag but --help. Called by main
for everything but a running `proxy`.
"""

import os
from importlib import import_module
from typing import NamedTuple

import click

from pilot_agent.commands import logging_flags
from pilot_agent.commands.flags import asks_for_help
from pilot_agent.errors import EXIT_OK, UsageError

PROGRAM = "pilot-agent"
COMPLETION_VARIABLE = "_PILOT_AGENT_COMPLETE"
"""Set by the generated completion functions (`pilot-agent completion`) when they ask us for words."""


class Subcommand(NamedTuple):
    module: str
    summary: str


SUBCOMMANDS = {
    "proxy": Subcommand("proxy_help", "Run Envoy as the proxy of this pod, VM or directory."),
    "wait": Subcommand("wait", "Wait until the proxy is ready."),
    "request": Subcommand("request", "Make one HTTP request to the agent or to Envoy's admin interface."),
    "version": Subcommand("version", "Print what this build is."),
    "completion": Subcommand("completion", "Print the completion script of a shell."),
}
"""In the order of the help text. The summaries are here so that the help of the root imports nothing."""


class LazyGroup(click.Group):
    """A group that imports a subcommand's module, `pilot_agent.commands.<module>`, when it is first needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in SUBCOMMANDS:
            return None
        command = getattr(import_module(f"pilot_agent.commands.{SUBCOMMANDS[cmd_name].module}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, rearrange(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in SUBCOMMANDS and not ctx.resilient_parsing:
            hint = _nearest(args[0], SUBCOMMANDS) or f"; see {PROGRAM} --help"
            raise click.UsageError(f'unknown command "{args[0]}" for "{PROGRAM}"{hint}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, subcommand.summary) for name, subcommand in SUBCOMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[click.shell_completion.CompletionItem]":
        from click.shell_completion import CompletionItem

        items = [
            CompletionItem(name, help=subcommand.summary)
            for name, subcommand in SUBCOMMANDS.items()
            if name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)


def rearrange(args: list[str]) -> list[str]:
    """The root's words in the order click needs: the subcommand first, no unknown flags, `help x` as `x --help`.

    Flags before the subcommand are the logging flags, which go behind it, or unknown ones, which Istio's agent ignores
    on the root. An unknown flag takes the next word with it only where that word is no subcommand: Istio's swallows it
    always, and then `--unknown version` prints the help.
    """
    kept: list[str] = []
    index = 0
    while index < len(args) and args[index].startswith("-") and args[index] not in ("-h", "--help", "--"):
        name, equals, _ = args[index].partition("=")
        following = args[index + 1 : index + 2]
        if name in logging_flags.NAMES:
            taken = [args[index], *(following if name in logging_flags.VALUED and not equals else [])]
            kept += taken
        else:
            swallows = not equals and following and not following[0].startswith("-") and following[0] not in SUBCOMMANDS
            taken = [args[index], *(following if swallows and set(args[index + 2 :]) & SUBCOMMANDS.keys() else [])]
        index += len(taken)
    rest = args[index:]
    if rest[:1] == ["help"]:
        return [*rest[1:2], "--help"]
    return [rest[0], *kept, *rest[1:]] if rest and not rest[0].startswith("-") else rest


@click.group(
    name=PROGRAM,
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.pass_context
def root(ctx: click.Context) -> None:
    """Run Envoy as an Istio sidecar: bootstrap it, restart it, drain it, explain it."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(args: list[str]) -> int:
    """Run the command line `args`; the exit code. Raises UsageError, AgentError, KeyboardInterrupt."""
    try:
        return _run(args)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        raise UsageError(_usage(error)) from None
    except click.Abort:
        raise KeyboardInterrupt from None


def _run(args: list[str]) -> int:
    if COMPLETION_VARIABLE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(root, {}, PROGRAM, COMPLETION_VARIABLE, os.environ[COMPLETION_VARIABLE])
    words = rearrange(args)
    if words[:1] == ["proxy"] and not asks_for_help(words):
        from pilot_agent.commands import proxy

        return proxy.run(words[1:])
    # Not `root()`: click would turn usage errors into 2, and a closed pipe into 1.
    with root.make_context(PROGRAM, args) as ctx:
        code = root.invoke(ctx)
    return code if isinstance(code, int) else EXIT_OK


def _usage(error: click.ClickException) -> str:
    """The words of pflag, which scripts around Istio's agent look for, where it has words of its own."""
    if isinstance(error, click.NoSuchOption):
        context = error.ctx
        known = (
            [name for parameter in context.command.get_params(context) for name in parameter.opts] if context else []
        )
        return f"unknown flag: {error.option_name}{_nearest(error.option_name, known)}"
    text = " ".join(error.format_message().split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _nearest(word: str, known: "list[str] | dict[str, Subcommand]") -> str:
    from difflib import get_close_matches

    matches = get_close_matches(word, known, n=1)
    return f'; did you mean "{matches[0]}"?' if matches else ""
