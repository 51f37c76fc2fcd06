"""The command line in click's terms, made from the tables: for help texts and for the shells' completion only.

A command is translated when it is first needed. Nothing is parsed or run here: that is `main`'s, without click.
"""

from typing import Any

import click
from click.shell_completion import CompletionItem, shell_complete

from pilot_agent.commands.flags import Flag
from pilot_agent.commands.line import COMPLETION_VARIABLE, PROGRAM
from pilot_agent.commands.table import COMMANDS, Command

_WIDEST = 120
SUBCOMMANDS = {command.name: command for command in COMMANDS if not command.is_hidden}
"""Those that help and completion show, in their order."""


class _Text(click.ParamType[Any]):
    """A flag's value: only its name and its choices count here."""

    def __init__(self, flag: Flag) -> None:
        self.name, self._choices = flag.kind, flag.choices

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        del ctx, param
        return [CompletionItem(choice) for choice in self._choices if choice.startswith(incomplete)]


class _Word(click.ParamType[Any]):
    """Words: what the first one may be is completed, where the table says."""

    name = "text"

    def __init__(self, choices: tuple[str, ...]) -> None:
        self._choices = choices

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if ctx.params.get(str(param.name)):
            return []
        return [CompletionItem(choice) for choice in self._choices if choice.startswith(incomplete)]


def option(flag: Flag) -> click.Option:
    """A flag of the table as click's option."""
    short = [f"-{flag.short}"] if flag.short else []
    if flag.is_boolean:
        names = [*short, f"--{flag.name}/--no-{flag.name}", flag.attribute]
        return click.Option(names, default=flag.default, help=flag.help)
    return click.Option(
        [*short, f"--{flag.name}", flag.attribute],
        type=_Text(flag),
        multiple=flag.is_repeatable,
        metavar="|".join(flag.choices) or flag.metavar or None,
        help=flag.help,
    )


def translated(command: Command) -> click.Command:
    """A command of the table as click's."""
    parameters: list[click.Parameter] = [option(flag) for flag in command.all_flags()]
    if command.words.usage:
        words = command.words
        parameters.append(click.Argument(["words"], type=_Word(words.choices), nargs=-1, metavar=words.usage))
    return click.Command(
        command.name,
        params=parameters,
        help=command.help.strip(),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST},
    )


class LazyGroup(click.Group):
    """A group that translates a subcommand when it is first needed: `proxy`'s flags cost an import."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        found = next((command for command in COMMANDS if cmd_name in (command.name, *command.aliases)), None)
        return translated(found) if found is not None else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in SUBCOMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = [
            CompletionItem(name, help=command.summary)
            for name, command in SUBCOMMANDS.items()
            if name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)


root = LazyGroup(
    PROGRAM,
    invoke_without_command=True,
    help="Run Envoy as an Istio sidecar: bootstrap it, restart it, drain it, explain it.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST},
)


def help_of(command: Command | None) -> str:
    """The help text of a command, or of the whole without one."""
    with click.Context(root, info_name=PROGRAM, **root.context_settings) as above:
        if command is None:
            return root.get_help(above)
        made = translated(command)
        with click.Context(made, info_name=command.name, parent=above, **made.context_settings) as context:
            return made.get_help(context)


def complete(instruction: str) -> int:
    """Answer a completion function of a shell: `instruction` is the value of its variable. The exit code."""
    return shell_complete(root, {}, PROGRAM, COMPLETION_VARIABLE, instruction)
