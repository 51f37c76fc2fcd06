"""The whole command line: which command it calls, flags before that, and whether the rest fits the command.

Called by `main` for every start, so it imports nothing but the tables.
"""

from collections.abc import Iterable, Sequence

from pilot_agent.commands.flags import LOGGING_FLAGS
from pilot_agent.commands.parsing import HELP, Parsed, parse
from pilot_agent.commands.table import COMMANDS, Command
from pilot_agent.errors import UsageError

PROGRAM = "pilot-agent"
COMPLETION_VARIABLE = "_PILOT_AGENT_COMPLETE"
"""Set by the generated completion functions (`pilot-agent completion`) when they ask us for words."""
NAMES = frozenset(name for command in COMMANDS for name in (command.name, *command.aliases))


def rearrange(args: list[str]) -> list[str]:
    """The root's words with the subcommand first, without unknown flags, and with `help x` as `x --help`.

    Flags before the subcommand are the logging flags, which go behind it, or unknown ones, which Istio's agent ignores
    on the root. An unknown flag takes the next word with it only where that word is no subcommand: Istio's swallows it
    always, and then `--unknown version` prints the help.
    """
    valued = {f"--{flag.name}" for flag in LOGGING_FLAGS if not flag.is_boolean}
    switches = {f"--{no}{flag.name}" for flag in LOGGING_FLAGS if flag.is_boolean for no in ("", "no-")}
    kept: list[str] = []
    index = 0
    while index < len(args) and args[index].startswith("-") and args[index] not in (*HELP, "--"):
        name, equals, _ = args[index].partition("=")
        following = args[index + 1 : index + 2]
        if name in valued or name in switches:
            taken = [args[index], *(following if name in valued and not equals else [])]
            kept += taken
        else:
            swallows = not equals and following and not following[0].startswith("-") and following[0] not in NAMES
            taken = [args[index], *(following if swallows and set(args[index + 2 :]) & NAMES else [])]
        index += len(taken)
    rest = args[index:]
    if rest[:1] == ["--"]:
        rest = rest[1:]
    if rest[:1] == ["help"]:
        return [*rest[1:2], HELP[-1]]
    return [rest[0], *kept, *rest[1:]] if rest and not rest[0].startswith("-") else rest


def find(name: str) -> Command:
    """The command called `name`. Raises UsageError with the nearest one there is."""
    for command in COMMANDS:
        if name in (command.name, *command.aliases):
            return command
    visible = [command.name for command in COMMANDS if not command.is_hidden]
    hint = nearest(name, visible) or f"; see {PROGRAM} --help"
    raise UsageError(f'unknown command "{name}" for "{PROGRAM}"{hint}')


def read(command: Command, args: Sequence[str]) -> Parsed:
    """What `args` say to `command`. Raises UsageError for what it does not take, unless they ask for help."""
    flags = command.all_flags()
    parsed = parse(flags, args)
    if parsed.asks_for_help:
        return parsed
    if parsed.unknown and not command.ignores_unknown_flags:
        name = parsed.unknown[0].partition("=")[0]
        names = [f"--{flag.name}" for flag in flags]
        raise UsageError(f"unknown flag: {name}{nearest(name, names)}")
    _count(command, parsed.words)
    return parsed


def _count(command: Command, words: list[str]) -> None:
    usage, least, most = command.words
    if len(words) < least:
        raise UsageError(f"missing argument '{usage.split()[len(words)]}'")
    if most is not None and len(words) > most:
        extra = words[most:]
        raise UsageError(f"got unexpected extra argument{'s' if extra[1:] else ''} ({' '.join(extra)})")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` where a known word is close to `word`, else nothing."""
    from difflib import get_close_matches

    matches = get_close_matches(word, list(known), n=1)
    return f'; did you mean "{matches[0]}"?' if matches else ""
