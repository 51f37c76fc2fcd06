"""What should be running, worked out from flags, variables and files: settings, node, arguments and bootstrap.

Worked out at the start and again at every change of a watched file; two results are compared to see what changed.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pilot_agent import __version__
from pilot_agent.bootstrap.context import LocalFiles, build_context
from pilot_agent.bootstrap.render import Renderer
from pilot_agent.envoy.command import base_arguments, find_binary
from pilot_agent.errors import SettingsError
from pilot_agent.node.addresses import Family, family_of, node_addresses
from pilot_agent.node.metadata import build_node
from pilot_agent.node.podinfo import ANNOTATIONS_FILE, LABELS_FILE, read_pod_info
from pilot_agent.settings.model import ProxyFlags, Settings
from pilot_agent.settings.sources import load

BOOTSTRAP_TEMPLATE = "bootstrap.json.j2"
BOOTSTRAP_FILE = "envoy-rev.json"
XDS_DIRECTORY = "xds"


class Inputs(NamedTuple):
    """What does not change while the agent runs. `variables` is the environment at the start."""

    flags: ProxyFlags
    variables: Mapping[str, str]
    log_as_json: bool


class Desired(NamedTuple):
    """`document` is the bootstrap as Envoy reads it; a `customConfigFile` is used where it lies, and never written."""

    settings: Settings
    family: Family
    binary: Path
    arguments: list[str]
    document: bytes
    is_custom_file: bool
    has_own_template: bool

    @property
    def argv(self) -> list[str]:
        return [str(self.binary), *self.arguments]

    def differs_from(self, other: "Desired") -> bool:
        """Whether Envoy must be restarted to get from one to the other."""
        return (self.argv, self.document) != (other.argv, other.document)


def config_directory(settings: Settings) -> Path:
    return Path(settings.proxy_config.config_path).absolute()


def local_files(settings: Settings) -> LocalFiles | None:
    if not settings.is_local:
        return None
    lds, cds = (config_directory(settings) / XDS_DIRECTORY / kind for kind in ("lds", "cds"))
    return LocalFiles(str(lds / "lds.json"), str(lds), str(cds / "cds.json"), str(cds))


def work_out(inputs: Inputs) -> Desired:
    """Raises SettingsError (or its TemplateError) with one line that names source, field and value. Writes nothing."""
    pod = read_pod_info()
    settings = load(inputs.flags, inputs.variables, pod.annotations or {}, log_as_json=inputs.log_as_json)
    settings = settings._replace(warnings=(*settings.warnings, *pod.warnings))
    addresses = node_addresses(settings.environment.text("INSTANCE_IP"), settings.annotations)
    family = family_of(addresses, is_dual_stack=settings.environment.flag("ISTIO_DUAL_STACK"))
    node = build_node(settings, pod, addresses, __version__)
    own_template = settings.environment.text("ISTIO_BOOTSTRAP") or settings.proxy_config.template_path
    custom = settings.proxy_config.custom_config_file
    if custom:
        document = _read_custom_file(custom)
    else:
        template = str(Path(own_template).absolute()) if own_template else BOOTSTRAP_TEMPLATE
        rendered = Renderer().render(template, build_context(settings, node, local_files(settings)))
        document = json.dumps(rendered, separators=(",", ":")).encode()
    config_file = Path(custom).absolute() if custom else config_directory(settings) / BOOTSTRAP_FILE
    arguments = base_arguments(settings, config_file, addresses)
    binary = find_binary(settings.proxy_config, sys.path)
    return Desired(settings, family, binary, arguments, document, bool(custom), bool(own_template or custom))


def _read_custom_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"customConfigFile {path} can't be read: {error.strerror}") from None


def watched_files(inputs: Inputs, settings: Settings) -> list[Path]:
    """Files whose change can change what `work_out` gives."""
    own_template = settings.environment.text("ISTIO_BOOTSTRAP") or settings.proxy_config.template_path
    custom = settings.proxy_config.custom_config_file
    files = [inputs.flags.mesh_config, ANNOTATIONS_FILE, LABELS_FILE, own_template, custom]
    return [Path(file) for file in files if file]
