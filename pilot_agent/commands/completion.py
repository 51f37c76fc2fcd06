"""`pilot-agent completion`: prints the script that teaches a shell to complete our words.

All but PowerShell's are click's own; each calls the agent back with a variable set, which `main` answers.
"""

from pilot_agent.commands.line import COMPLETION_VARIABLE, PROGRAM, find
from pilot_agent.commands.parsing import Parsed
from pilot_agent.errors import EXIT_OK

SHELLS = ("bash", "zsh", "fish", "powershell")


def run(parsed: Parsed) -> int:
    """Print the script; without a shell we know, print how to install one, as Istio's agent does."""
    from pilot_agent.commands.root import help_of

    shell = parsed.words[0] if parsed.words else ""
    print(script(shell) if shell in SHELLS else help_of(find("completion")))
    return EXIT_OK


def script(shell: str) -> str:
    if shell == "powershell":
        return POWERSHELL
    from click.shell_completion import ShellComplete, get_completion_class

    from pilot_agent.commands.root import root

    maker = get_completion_class(shell)
    assert maker is not None  # click brings the other three
    # Not `maker(...).source()`: for bash that starts one to ask its version, and an image may have none at all.
    return ShellComplete.source(maker(root, {}, PROGRAM, COMPLETION_VARIABLE))


POWERSHELL = f"""\
# Completion of {PROGRAM} for PowerShell: asks the program itself, in the form it answers fish.
Register-ArgumentCompleter -Native -CommandName {PROGRAM} -ScriptBlock {{
    param($wordToComplete, $commandAst, $cursorPosition)
    $before = @($commandAst.CommandElements | Where-Object {{ $_.Extent.EndOffset -lt $cursorPosition }})
    $env:{COMPLETION_VARIABLE} = 'fish_complete'
    $env:COMP_WORDS = (@($before | ForEach-Object {{ $_.Extent.Text }}) + $wordToComplete) -join ' '
    $env:COMP_CWORD = $wordToComplete
    try {{
        {PROGRAM} | ForEach-Object {{
            $kind, $rest = $_ -split ',', 2
            $word, $help = $rest -split "`t", 2
            if ($kind -eq 'plain') {{
                $tip = if ($help) {{ $help }} else {{ $word }}
                [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $tip)
            }}
        }}
    }} finally {{
        Remove-Item Env:{COMPLETION_VARIABLE}, Env:COMP_WORDS, Env:COMP_CWORD
    }}
}}"""
