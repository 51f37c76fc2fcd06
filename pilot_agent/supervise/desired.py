"""What should be running, worked out from flags, variables and files: settings, node, arguments and bootstrap.

Worked out at the start and again at every change of a watched file; two results are compared to see what changed. It
writes nothing and asks nobody: what only the world outside knows comes in as `Answers` (`questions.py`).
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pilot_agent import __version__
from pilot_agent.bootstrap.context import LocalFiles, build_context
from pilot_agent.bootstrap.grpc import GrpcBootstrap, grpc_bootstrap
from pilot_agent.bootstrap.override import read_override
from pilot_agent.bootstrap.render import YAML_TEMPLATES, Renderer
from pilot_agent.envoy.build import Build, leaves_istio_parts_out
from pilot_agent.envoy.command import Launch, base_arguments, envoy_user, envoy_variables, find_binary
from pilot_agent.errors import SettingsError
from pilot_agent.identity.options import IdentityOptions, work_out_identity
from pilot_agent.node.addresses import Family, family_of, is_address, node_addresses
from pilot_agent.node.cgroup import read_cpu
from pilot_agent.node.metadata import Node, build_node
from pilot_agent.node.podinfo import PodInfo, read_pod_info
from pilot_agent.node.surroundings import NOTHING_AROUND, Surroundings
from pilot_agent.settings.model import ProxyConfig, ProxyFlags, Settings
from pilot_agent.settings.paths import (
    ANNOTATIONS_FILE,
    BOOTSTRAP_NAME,
    LABELS_FILE,
    LIGHTSTEP_TOKEN_NAME,
    XDS_DIRECTORY,
    XDS_SOCKET_NAME,
)
from pilot_agent.settings.sources import load
from pilot_agent.values import HostPort
from pilot_agent.xds.options import work_out_xds

BOOTSTRAP_TEMPLATE = "bootstrap.json.j2"

LOG_LEVEL_ANNOTATIONS = {
    "sidecar.istio.io/logLevel": "proxy_log_level",
    "sidecar.istio.io/componentLogLevel": "proxy_component_log_level",
}
"""The injector turns them into flags; an annotation that changes later is newer than its flag."""
AGENT_LOG_LEVEL_ANNOTATION = "sidecar.istio.io/agentLogLevel"


class Answers(NamedTuple):
    """What was found out so far. `addresses`: host name to IP address, None where it has none.

    `annotations` are the pod's when the agent started, None before they were read.
    """

    surroundings: Surroundings = NOTHING_AROUND
    build: Build | None = None
    addresses: Mapping[str, str | None] = {}
    annotations: Mapping[str, str] | None = None
    warnings: tuple[str, ...] = ()


class Inputs(NamedTuple):
    """What does not change while the agent runs, but for the answers. `variables`: the environment at the start."""

    flags: ProxyFlags
    variables: Mapping[str, str]
    log_as_json: bool
    answers: Answers = Answers()


class Desired(NamedTuple):
    """`document` is the bootstrap as Envoy reads it from `config_file`; a `customConfigFile` is never written.

    `secrets` are more files for Envoy, by name, that nobody else may read. `grpc` is for gRPC's own xDS client; without
    an Envoy it is all there is, and `document` is empty. `unknown` says what must be found out before this is final:
    `build`, or `address:HOST`.
    """

    settings: Settings
    node: Node
    identity: IdentityOptions
    family: Family
    launch: Launch
    config_file: Path
    document: bytes
    is_custom_file: bool
    has_own_parts: bool
    secrets: Mapping[str, bytes]
    grpc: GrpcBootstrap | None
    warnings: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def argv(self) -> list[str]:
        return self.launch.argv

    @property
    def binary(self) -> Path:
        return Path(self.launch.argv[0])

    def differs_from(self, other: "Desired") -> bool:
        """Whether something must be done to get from one to the other: Envoy restarted, where there is one."""
        if not self.settings.has_envoy:
            return self.grpc != other.grpc
        mine, theirs = ((each.launch, each.document, each.secrets) for each in (self, other))
        return mine != theirs


def config_directory(settings: Settings) -> Path:
    return Path(settings.proxy_config.config_path).absolute()


def local_files(settings: Settings) -> LocalFiles | None:
    if not settings.is_local:
        return None
    lds, cds = (config_directory(settings) / XDS_DIRECTORY / kind for kind in ("lds", "cds"))
    return LocalFiles(str(lds / "lds.json"), str(lds), str(cds / "cds.json"), str(cds))


def work_out(inputs: Inputs, *, needs_binary: bool = True) -> Desired:
    """Raises SettingsError (or its TemplateError) with one line that names source, field and value. Writes nothing.

    Without `needs_binary` a missing Envoy is no error, and its place in the arguments is the name `envoy`.
    """
    pod = read_pod_info()
    settings = _settings(inputs, pod)
    unknown: list[str] = []
    warnings: list[str] = [*settings.warnings, *pod.warnings, *inputs.answers.warnings]
    settings = settings._replace(proxy_config=_with_statsd(settings.proxy_config, inputs.answers, unknown, warnings))
    addresses = node_addresses(settings.environment.text("INSTANCE_IP"), settings.annotations)
    node = build_node(settings, pod, addresses, __version__, inputs.answers.surroundings)
    identity = work_out_identity(settings, has_workload_sds=inputs.answers.surroundings.has_workload_sds)
    warnings += identity.warnings
    if not settings.is_local:
        work_out_xds(settings)  # what can't work should be known before Envoy is started
    elif not settings.has_envoy:
        raise SettingsError("DISABLE_ENVOY=true and --configDir: local mode is Envoy's; take one of them away")
    binary = _binary(settings, needs_binary and settings.has_envoy)
    document, own_parts, override = b"", False, None
    if settings.has_envoy:
        document, own_parts = _document(settings, node, inputs, binary, unknown, warnings)
        override = _override(settings, warnings)
    config_file = bootstrap_file(settings)
    arguments = base_arguments(settings, config_file, addresses, override)
    variables = envoy_variables(settings, inputs.variables)
    return Desired(
        settings,
        node,
        identity,
        family_of(addresses, is_dual_stack=settings.environment.flag("ISTIO_DUAL_STACK")),
        Launch([str(binary), *arguments], variables, envoy_user(settings, os.geteuid())),
        config_file,
        document,
        bool(settings.proxy_config.custom_config_file),
        own_parts or override is not None,
        _secrets(settings),
        _grpc(settings, node, identity.output),
        tuple(dict.fromkeys([*warnings, *node.warnings])),
        tuple(unknown),
    )


def _settings(inputs: Inputs, pod: PodInfo) -> Settings:
    annotations = pod.annotations or {}
    before = inputs.answers.annotations
    newer: dict[str, Any] = {}
    if before is not None:
        for name, attribute in LOG_LEVEL_ANNOTATIONS.items():
            if name in annotations and annotations[name] != before.get(name):
                newer[attribute] = annotations[name]
    flags = inputs.flags._replace(**newer)
    return load(flags, inputs.variables, annotations, log_as_json=inputs.log_as_json, cpu_allowance=read_cpu)


def _with_statsd(config: ProxyConfig, answers: Answers, unknown: list[str], warnings: list[str]) -> ProxyConfig:
    """Envoy takes an IP address for statsd: the name's, or no statsd where it has none (as Istio's agent)."""
    text = config.values.get("statsdUdpAddress")
    if not text:
        return config
    parsed = HostPort.parse(text)
    address: str | None = parsed.host
    if not is_address(parsed.host):
        if parsed.host not in answers.addresses:
            unknown.append(f"address:{parsed.host}")
        address = answers.addresses.get(parsed.host)
        if address is None and not unknown:
            warnings.append(f"statsdUdpAddress: {parsed.host} has no address: there will be no statsd")
    values = {key: value for key, value in config.values.items() if key != "statsdUdpAddress"}
    if address is not None:
        values["statsdUdpAddress"] = str(HostPort(address, parsed.port))
    return ProxyConfig(values, config.sources)


def _binary(settings: Settings, is_needed: bool) -> Path:
    try:
        return find_binary(settings.proxy_config, sys.path)
    except SettingsError:
        if is_needed:
            raise
        return Path("envoy")


def _document(
    settings: Settings, node: Node, inputs: Inputs, binary: Path, unknown: list[str], warnings: list[str]
) -> tuple[bytes, bool]:
    """The bootstrap, and whether any of it is the user's own."""
    custom = settings.proxy_config.custom_config_file
    if custom:
        return _read_custom_file(custom), True
    build = inputs.answers.build
    if build is not None and build.path != binary:
        build = None
    is_stock = leaves_istio_parts_out(settings.flags.stock_envoy, build)
    context = build_context(settings, node, local_files(settings), is_stock=is_stock)
    if context.istio_parts and settings.flags.stock_envoy == "auto" and build is None:
        unknown.append("build")
    warnings += context.warnings
    own = own_template(settings)
    rendered = Renderer().render(str(Path(own).absolute()) if own else BOOTSTRAP_TEMPLATE, context.variables)
    return json.dumps(rendered, separators=(",", ":")).encode(), bool(own)


def own_template(settings: Settings) -> str:
    """The path of the user's own bootstrap template, empty for the shipped one."""
    return settings.environment.text("ISTIO_BOOTSTRAP") or settings.proxy_config.template_path


def bootstrap_file(settings: Settings) -> Path:
    """Where Envoy reads its bootstrap: a customConfigFile where it lies, else a file in configPath.

    What a YAML template renders is published as JSON, which is YAML too, under the name Istio gives it.
    """
    custom = settings.proxy_config.custom_config_file
    if custom:
        return Path(custom).absolute()
    suffix = "yaml" if own_template(settings).endswith(YAML_TEMPLATES) else "json"
    return config_directory(settings) / f"{BOOTSTRAP_NAME}.{suffix}"


def _read_custom_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"customConfigFile {path} can't be read: {error.strerror}") from None


def _override(settings: Settings, warnings: list[str]) -> str | None:
    path = settings.environment.text("ISTIO_BOOTSTRAP_OVERRIDE")
    return read_override(path, settings.environment.text("HOST_IP"), warnings) if path else None


def _secrets(settings: Settings) -> dict[str, bytes]:
    lightstep = (settings.proxy_config.values.get("tracing") or {}).get("lightstep")
    if not lightstep:
        return {}
    return {LIGHTSTEP_TOKEN_NAME: str(lightstep.get("accessToken", "")).encode()}


def _grpc(settings: Settings, node: Node, output: Path | None) -> GrpcBootstrap | None:
    path = settings.environment.text("GRPC_XDS_BOOTSTRAP")
    if settings.is_local or not path:
        return None
    return grpc_bootstrap(Path(path).absolute(), node, config_directory(settings) / XDS_SOCKET_NAME, output)


def watched_files(inputs: Inputs, settings: Settings) -> list[Path]:
    """Files whose change can change what `work_out` gives."""
    override = settings.environment.text("ISTIO_BOOTSTRAP_OVERRIDE")
    custom = settings.proxy_config.custom_config_file
    files = [inputs.flags.mesh_config, ANNOTATIONS_FILE, LABELS_FILE, own_template(settings), override, custom]
    return [Path(file) for file in files if file]
