"""`pilot-agent completion`: prints the script that teaches a shell to complete our words.

The scripts are click's own; they call the agent back with a variable set, which `main` answers. Owns only the
instructions around them.
"""

import click

from pilot_agent.errors import AgentError

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", required=False, default="", metavar="bash|zsh|fish")
@click.argument("others", nargs=-1, type=click.UNPROCESSED, metavar="")
@click.pass_context
def completion(ctx: click.Context, shell: str, others: tuple[str, ...]) -> None:  # noqa: ARG001 - as Istio's, ignored
    """Print the completion script of a shell.

    \b
    bash (4.4 or later), for this session, and for all later ones:
      source <(pilot-agent completion bash)
      pilot-agent completion bash > ~/.local/share/bash-completion/completions/pilot-agent

    \b
    zsh, in a directory of $fpath, before compinit runs:
      pilot-agent completion zsh > "${fpath[1]}/_pilot-agent"

    \b
    fish:
      pilot-agent completion fish > ~/.config/fish/completions/pilot-agent.fish
    """
    if shell == "powershell":
        raise AgentError("there is no completion for powershell: the agent runs on Linux; use bash, zsh or fish")
    if shell not in SHELLS:
        click.echo(ctx.get_help())
        return
    click.echo(script(shell, ctx.find_root().command))


def script(shell: str, root: click.Command) -> str:
    from click.shell_completion import ShellComplete, get_completion_class

    from pilot_agent.commands.root import COMPLETION_VARIABLE, PROGRAM

    maker = get_completion_class(shell)
    assert maker is not None  # click brings all of SHELLS
    # Not `maker(...).source()`: for bash that starts one to ask its version, and an image may have none at all.
    return ShellComplete.source(maker(root, {}, PROGRAM, COMPLETION_VARIABLE))
