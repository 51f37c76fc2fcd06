"""`pilot-agent bootstrap`: prints the bootstrap that `proxy` would give to Envoy, or has the real Envoy check it.

Needs no free port, and never touches configPath: what Envoy must find as files for a check lies in a temporary folder.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pilot_agent.bootstrap.validate import checks, judge
from pilot_agent.clock import SystemClock
from pilot_agent.commands.parsing import Parsed
from pilot_agent.commands.preview import preview
from pilot_agent.envoy.build import version_argv
from pilot_agent.envoy.process import Child
from pilot_agent.errors import EXIT_OK, SettingsError
from pilot_agent.settings.paths import XDS_DIRECTORY
from pilot_agent.supervise.desired import Desired, config_directory

VERSION_WITHIN_S = 10.0
_NOTHING = b'{"resources":[]}'


def run(parsed: Parsed) -> int:
    """Raises SettingsError, or EnvoyRefused with Envoy's own words."""
    wants_check = bool(parsed.values["check"])
    desired = preview(parsed, needs_binary=wants_check)
    for warning in desired.warnings:
        print(f"Warning: {warning}", file=sys.stderr)
    if not desired.settings.has_envoy:
        show_grpc(desired, is_check=wants_check)
    elif wants_check:
        check(desired)
        print(f"bootstrap is valid ({desired.binary}, {version_line(desired.binary)})")
    else:
        sys.stdout.buffer.write(shown(desired, parsed.values["output"]))
    return EXIT_OK


def show_grpc(desired: Desired, *, is_check: bool) -> None:
    """DISABLE_ENVOY: what gRPC's xDS client gets. Raises SettingsError where that is nothing, or can't be checked."""
    if desired.grpc is None:
        raise SettingsError("DISABLE_ENVOY=true and an empty GRPC_XDS_BOOTSTRAP: no bootstrap is made for anybody")
    if is_check:
        raise SettingsError("DISABLE_ENVOY=true: there is no Envoy to check the bootstrap; without --check it is shown")
    sys.stdout.buffer.write(desired.grpc.document)


def shown(desired: Desired, output: str) -> bytes:
    """The document as `json` or `yaml`; a customConfigFile as it is."""
    if desired.is_custom_file:
        return desired.document
    document = json.loads(desired.document)
    if output == "yaml":
        import yaml

        return str(yaml.safe_dump(document, sort_keys=False)).encode()
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def check(desired: Desired) -> None:
    """Have Envoy validate the document. Raises EnvoyRefused, or SettingsError when Envoy can't be run."""
    with tempfile.TemporaryDirectory(prefix="pilot-agent-") as name:
        argv = _with_files(desired, Path(name)) if not desired.is_custom_file else desired.argv
        for each in checks(argv, desired.document):
            # As whoever asks, not as the user `proxy` would choose: who could not read the folder.
            launch = desired.launch._replace(argv=each, user=None)
            code, output = Child(launch, SystemClock(), is_quiet=True).wait()
            judge(code, output, "the bootstrap")


def _with_files(desired: Desired, folder: Path) -> list[str]:
    """Write what `proxy` would write into configPath into `folder`; Envoy's arguments that read it there."""
    files = dict(desired.secrets)
    if desired.settings.is_local:
        # Empty ones: Envoy refuses paths of files that are not there, and what is in them is not the bootstrap's.
        files |= {f"{XDS_DIRECTORY}/{kind}/{kind}.json": _NOTHING for kind in ("lds", "cds")}
    before, after = (json.dumps(f"{place}/")[:-1].encode() for place in (config_directory(desired.settings), folder))
    document = desired.document
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    if files:
        document = document.replace(before, after)
    config_file = folder / desired.config_file.name
    config_file.write_bytes(document)
    return [str(config_file) if word == str(desired.config_file) else word for word in desired.argv]


def version_line(binary: Path) -> str:
    """What `envoy --version` says behind the path. Raises SettingsError when it does not answer."""
    try:
        done = subprocess.run(
            version_argv(binary), capture_output=True, text=True, timeout=VERSION_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no answer within {VERSION_WITHIN_S:g}s"
        raise SettingsError(f"{binary} --version: {reason}") from None
    text = " ".join(done.stdout.split())
    return text.removeprefix(f"{binary} ") or "unknown version"
