"""The `pilot-agent` command: runs what its words say, and turns whatever ends it into one line and an exit code.

Every command goes past click, which only help and completion import (`root`): Envoy, a postStart hook or a probe waits
for us. The console script and `python -m pilot_agent.commands.main` call `main`.
"""

import errno
import io
import os
import sys
from importlib import import_module

from pilot_agent.commands.line import COMPLETION_VARIABLE, find, read, rearrange
from pilot_agent.commands.table import Command
from pilot_agent.errors import EXIT_OK, EXIT_SETTINGS, EXIT_SIGNAL_BASE, AgentError

_SIGINT, _SIGPIPE = 2, 13  # `signal` costs an import


def main() -> int:
    """Run the command line of this process and return its exit code (the table of docs/exit-codes.md)."""
    try:
        _make_streams_writable()
        code = _run(sys.argv[1:])
        # Here, not at the interpreter's exit, where a closed pipe or a full disk can't be reported any more.
        sys.stdout.flush()
        return code
    except AgentError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
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


def istio_iptables() -> int:
    """The same program under the name that Istio's images have for it."""
    sys.argv[1:1] = ["istio-iptables"]
    return main()


def _make_streams_writable() -> None:
    """What was closed before we came is None in Python: it becomes /dev/null, or every print would have to ask.

    And a locale without some letter of a setting is no reason to fail.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - open to the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(args: list[str]) -> int:
    if COMPLETION_VARIABLE in os.environ:
        from pilot_agent.commands import root

        return root.complete(os.environ[COMPLETION_VARIABLE])
    words = rearrange(args)
    if not words or words[0].startswith("-"):
        return _show_help(None)
    command = find(words[0])
    parsed = read(command, words[1:])
    if parsed.asks_for_help:
        return _show_help(command)
    module, _, function = command.reference.partition(":")
    code = getattr(import_module(module), function)(parsed)
    assert isinstance(code, int)
    return code


def _show_help(command: Command | None) -> int:
    from pilot_agent.commands import root

    print(root.help_of(command))
    return EXIT_OK


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
