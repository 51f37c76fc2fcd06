"""The `pilot-agent` command: finds the subcommand, and turns whatever ends it into one line and an exit code.

A subcommand's module is imported only when it is called or asked for its help, so that `version` never pays for what
`proxy` needs. Owns no flag but --help; the console script and `python -m pilot_agent.commands.main` call `main`.
"""

import errno
import os
import sys
from importlib import import_module
from typing import NamedTuple

import click

from pilot_agent.commands import logging_flags
from pilot_agent.errors import EXIT_OK, EXIT_SETTINGS, EXIT_SIGNAL_BASE, AgentError

PROGRAM = "pilot-agent"
COMPLETION_VARIABLE = "_PILOT_AGENT_COMPLETE"
"""Set by the generated completion functions (`pilot-agent completion`) when they ask us for words."""

_SIGINT, _SIGPIPE = 2, 13  # `signal` costs an import


class Subcommand(NamedTuple):
    module: str
    summary: str


SUBCOMMANDS = {
    "proxy": Subcommand("proxy", "Run Envoy as the proxy of this pod, VM or directory."),
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


def main() -> int:
    """Run the command line of this process and return its exit code (the table of docs/exit-codes.md)."""
    try:
        code = _run(sys.argv[1:])
        # Here, not at the interpreter's exit, where a closed pipe or a full disk can't be reported any more.
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except AgentError as error:
        _complain(str(error))
        return error.exit_code
    except click.ClickException as error:
        _complain(_usage(error))
        return EXIT_SETTINGS
    except (KeyboardInterrupt, click.Abort):
        return EXIT_SIGNAL_BASE + _SIGINT
    except BrokenPipeError:
        # The reader of our output went away (`| head`): end as any filter does, without a word.
        _forget_stdout()
        return EXIT_SIGNAL_BASE + _SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return _end_of_bug(error)
        _forget_stdout()
        _complain(f"can't write the output: {error.strerror}")
        return EXIT_SETTINGS
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug is named as one
        return _end_of_bug(error)


def _run(args: list[str]) -> int:
    if COMPLETION_VARIABLE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(root, {}, PROGRAM, COMPLETION_VARIABLE, os.environ[COMPLETION_VARIABLE])
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


def _complain(text: str) -> None:
    _say_on_stderr(f"Error: {text}\n")


def _end_of_bug(error: Exception) -> int:
    if os.environ.get("PILOT_AGENT_DEBUG"):
        import traceback

        _say_on_stderr("".join(traceback.format_exception(error)))
    words = " ".join(f"{type(error).__name__}: {error}".split())
    _complain(f"internal error: {words} (this is a bug; PILOT_AGENT_DEBUG=1 shows where)")
    return EXIT_SETTINGS


def _say_on_stderr(text: str) -> None:
    try:
        os.write(2, text.encode(errors="backslashreplace"))
    except OSError:
        pass  # nobody listens: the exit code still tells


def _forget_stdout() -> None:
    """Point stdout at /dev/null, so that the interpreter's own flush at exit does not complain about it again."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
