"""`pilot-agent version`: what this build is, in Istio's words and key names.

Owns the `BuildInfo` of the running agent. The revision, status and tag come from `_build.json` in the package, which
the image build writes; a checkout has none and says "unknown".
"""

import sys
from typing import TYPE_CHECKING, NamedTuple

from pilot_agent import __version__
from pilot_agent.commands.flags import log_options
from pilot_agent.commands.parsing import Parsed
from pilot_agent.errors import EXIT_OK
from pilot_agent.log import Log

if TYPE_CHECKING:
    from pathlib import Path  # costs 2 ms, a tenth of this command

UNKNOWN = "unknown"
BUILD_FILE = "_build.json"


class BuildInfo(NamedTuple):
    """Field names and order are those of Istio's JSON; `golang_version` says which Python it is instead."""

    version: str
    revision: str
    golang_version: str
    status: str
    tag: str


def build_info(directory: "Path | None" = None) -> BuildInfo:
    """What is known of this build; `directory` is where `_build.json` would be, by default the package."""
    package = __file__.rpartition("/commands/")[0]
    stamped = _stamp(f"{directory or package}/{BUILD_FILE}")
    numbers = ".".join(map(str, sys.version_info[:3]))
    return BuildInfo(
        version=__version__,
        revision=stamped.get("revision") or UNKNOWN,
        golang_version=f"CPython {numbers}",
        status=stamped.get("status") or UNKNOWN,
        tag=stamped.get("tag") or UNKNOWN,
    )


def _stamp(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as above
            text = file.read()
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


def run(parsed: Parsed) -> int:
    Log(log_options(parsed.values))  # nothing to log, but a wrong level or target is an error here as anywhere
    info = build_info()
    output = parsed.values["output"]
    print(info.version if parsed.values["short"] and not output else describe(info, output))
    return EXIT_OK
