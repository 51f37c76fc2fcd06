"""`pilot-agent version`: what this build is, in Istio's words and key names.

Owns the `BuildInfo` of the running agent. The revision, status and tag come from `_build.json` in the package, which
the image build writes; a checkout has none and says "unknown".
"""

import sys
from pathlib import Path
from typing import NamedTuple

import click

from pilot_agent import __version__
from pilot_agent.commands.logging_flags import AgentCommand, logging_flags
from pilot_agent.log import Log, LogOptions

UNKNOWN = "unknown"
BUILD_FILE = "_build.json"


class BuildInfo(NamedTuple):
    """Field names and order are those of Istio's JSON; `golang_version` says which Python it is instead."""

    version: str
    revision: str
    golang_version: str
    status: str
    tag: str


def build_info(directory: Path | None = None) -> BuildInfo:
    """What is known of this build; `directory` is where `_build.json` would be, by default the package."""
    stamped = _stamp((directory or Path(__file__).resolve().parent.parent) / BUILD_FILE)
    numbers = ".".join(map(str, sys.version_info[:3]))
    return BuildInfo(
        version=__version__,
        revision=stamped.get("revision") or UNKNOWN,
        golang_version=f"CPython {numbers}",
        status=stamped.get("status") or UNKNOWN,
        tag=stamped.get("tag") or UNKNOWN,
    )


def _stamp(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    import json

    try:
        content = json.loads(text)
    except ValueError:
        return {}  # what a broken stamp would say is not worth failing for
    return {key: str(value) for key, value in content.items()} if isinstance(content, dict) else {}


def describe(info: BuildInfo, output: str) -> str:
    """`output` is `json`, `yaml` or, for Istio's dump of its Go struct, empty."""
    if output == "json":
        import json

        return json.dumps({"clientVersion": info._asdict()}, indent=2) + "\n"
    if output == "yaml":
        import yaml

        # Sorted, as Istio's YAML library does.
        return str(yaml.safe_dump({"clientVersion": info._asdict()}, sort_keys=True))
    names = ("Version", "GitRevision", "GolangVersion", "BuildStatus", "GitTag")
    fields = ", ".join(f'{name}:"{value}"' for name, value in zip(names, info, strict=True))
    return f"client version: version.BuildInfo{{{fields}}}"


@click.command(cls=AgentCommand)
@click.option("-s", "--short/--no-short", default=False, help="Print only the version number (default false).")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default=None,
    help="Print as yaml or json (default: one line of text).",
)
@logging_flags
def version(short: bool, output: str | None, log_options: LogOptions) -> None:
    """Print what this build is."""
    Log(log_options)  # nothing to log, but a wrong level or target is an error here as anywhere
    info = build_info()
    click.echo(info.version if short and not output else describe(info, output or ""))
