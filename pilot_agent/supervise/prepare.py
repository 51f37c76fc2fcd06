"""From the command line to a running Envoy, with as little imported as possible: no asyncio, no aiohttp.

Envoy boots while the rest of the agent is imported (DESIGN, invariant 2). What fails here ends the agent with one line,
and takes back everything that was made.
"""

import os
import time
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, NamedTuple

from pilot_agent import __version__
from pilot_agent.bootstrap.render import Renderer
from pilot_agent.bootstrap.validate import checks, judge
from pilot_agent.clock import Clock, Deadline
from pilot_agent.envoy.epoch import Epoch, is_shared_memory_usable, remove_generation
from pilot_agent.envoy.process import Child, spawn
from pilot_agent.errors import AgentError
from pilot_agent.files.workspace import Workspace
from pilot_agent.log import Log, Scope
from pilot_agent.metrics.annotations import AppTarget, parse_annotations
from pilot_agent.node.addresses import has_unspecified_address
from pilot_agent.settings.model import Settings
from pilot_agent.settings.paths import BASE_ID_NAME, XDS_DIRECTORY
from pilot_agent.settings.redaction import redacted
from pilot_agent.status import sockets
from pilot_agent.supervise.desired import Desired, Inputs, config_directory
from pilot_agent.supervise.ports import check_free, port_error
from pilot_agent.supervise.questions import find_out
from pilot_agent.supervise.signals import EarlySignals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pilot_agent.mesh.local import LocalMesh
    from pilot_agent.mesh.model import Options
    from pilot_agent.status.probe_config import Prober
    from pilot_agent.status.workload_probe import WorkloadProbe

ADDRESSES_WITHIN_S, ADDRESSES_STEP_S = 120.0, 0.1


class Phases:
    """Seconds from the start of this process to the end of each phase of the start."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._zero = time.monotonic() - _process_age()

    def end(self, phase: str) -> float:
        self.seconds[phase] = time.monotonic() - self._zero
        return self.seconds[phase]

    def age(self) -> float:
        """Seconds since the start of this process."""
        return time.monotonic() - self._zero

    def __str__(self) -> str:
        return ", ".join(f"{phase} {seconds:.3f} s" for phase, seconds in self.seconds.items())


class Prepared(NamedTuple):
    """All the agent needs to go on. `child` is Envoy, booting; None when a signal asked to stop before its spawn."""

    inputs: Inputs
    desired: Desired
    log: Log
    clock: Clock
    signals: EarlySignals
    phases: Phases
    workspace: Workspace
    status_socket: socket
    apps: tuple[AppTarget, ...]
    probers: "Mapping[str, Prober]"
    workload_probe: "WorkloadProbe | None"
    local_mesh: "LocalMesh | None"
    epoch: Epoch
    child: Child | None

    def write_bootstrap(self, desired: Desired) -> None:
        """Publish the bootstrap where Envoy reads it, and its secrets beside it; a custom file is never written."""
        files = dict.fromkeys(desired.secrets, 0o600)
        content = dict(desired.secrets)
        if not desired.is_custom_file:
            name = desired.config_file.name
            content[name] = desired.document
            files[name] = 0o600 if desired.secrets else 0o644  # the node's metadata says all of ProxyConfig
        for name, mode in files.items():
            path = self.workspace.write(name, content[name], mode=mode)
            if desired.launch.user is not None:
                os.chown(path, desired.launch.user, desired.launch.user)

    def take_back(self) -> None:
        """Remove what was made in the file system."""
        if self.local_mesh is not None:
            self.local_mesh.remove()
        self.workspace.remove()


def _process_age() -> float:
    """Seconds since this process was started, to the kernel's tick of 10 ms."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / 100


def prepare(inputs: Inputs, log: Log, clock: Clock, signals: EarlySignals) -> Prepared:
    """Raises SettingsError for anything that keeps Envoy from being started; then nothing is left behind."""
    phases = Phases()
    inputs, desired = _find_out(inputs, clock, signals)
    scope = log.scope()
    _announce(desired, scope)
    phases.end("settings")
    apps = _scrape_targets(desired.settings)
    probers = _probers(desired.settings, scope)
    workload_probe = _workload_probe(desired.settings)
    status_socket = _open_ports(desired)
    workspace = Workspace(config_directory(desired.settings))
    try:
        workspace.create(*_directories(desired.settings))
        base_id_path = workspace.claim(BASE_ID_NAME)
        remove_generation(base_id_path)  # of an agent that was killed before it could
        local_mesh = _load_local_mesh(desired, workspace, log)
        epoch = Epoch(can_hot_restart=_can_hot_restart(scope))
        prepared = Prepared(
            inputs,
            desired,
            log,
            clock,
            signals,
            phases,
            workspace,
            status_socket,
            apps,
            probers,
            workload_probe,
            local_mesh,
            epoch,
            None,
        )
        try:
            prepared.write_bootstrap(desired)
            if desired.has_own_parts:
                _ask_envoy(desired, clock)
            phases.end("bootstrap")
            scope.info(f"Envoy command: [{' '.join(_without_override(desired.argv))}]")
            if signals.stop is None:
                child = spawn(desired.launch, epoch, drain_seconds(desired), base_id_path, clock)
                phases.end("envoy_spawned")
                prepared = prepared._replace(child=child)
        except AgentError:
            prepared.take_back()
            raise
    except AgentError:
        workspace.remove()
        status_socket.close()
        raise
    return prepared


def _find_out(inputs: Inputs, clock: Clock, signals: EarlySignals) -> tuple[Inputs, Desired]:
    wait_for_addresses(clock, signals)
    return find_out(inputs, clock, lambda: signals.stop is not None)


def wait_for_addresses(clock: Clock, signals: EarlySignals) -> None:
    """An interface without an address yet means that the pod's network is being set up (as Istio's agent has it)."""
    deadline = Deadline.after(ADDRESSES_WITHIN_S, clock)
    while has_unspecified_address() and not deadline.is_over and signals.stop is None:
        time.sleep(ADDRESSES_STEP_S)


def drain_seconds(desired: Desired) -> int:
    return int(desired.settings.proxy_config.drain_duration.seconds)


def _announce(desired: Desired, scope: Scope) -> None:
    settings = desired.settings
    for name, value in settings.flags._asdict().items():
        if name != "role":
            scope.info(f'FLAG: --{_flag_name(name)}="{_shown(value)}"')
    scope.info(f"Version {__version__}")
    scope.info(
        "Proxy role",
        ips=desired.node.addresses,
        type=settings.flags.role,
        id=desired.node.id.split("~")[2],
        domain=settings.domain,
        mode="local" if settings.is_local else "mesh",
    )
    for warning in desired.warnings:
        scope.warn(warning)
    config = settings.proxy_config
    for name, source in sorted(config.sources.items()):
        if source != "default" and name in config.values:
            scope.info(f"proxy config: {name}={_shown(redacted(name, config.values[name]))} (from {source})")


def _without_override(argv: list[str]) -> list[str]:
    """The arguments as the log may have them: an override is the user's own, and may hold anything."""
    words = list(argv)
    if "--config-yaml" in words:
        index = words.index("--config-yaml") + 1
        words[index] = f"({len(words[index])} characters of ISTIO_BOOTSTRAP_OVERRIDE)"
    return words


def _flag_name(attribute: str) -> str:
    first, *rest = attribute.split("_")
    return first + "".join(part.title() for part in rest)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _scrape_targets(settings: Settings) -> tuple[AppTarget, ...]:
    if not settings.is_sidecar or not settings.environment.is_set("ISTIO_PROMETHEUS_ANNOTATIONS"):
        return ()
    text = settings.environment.text("ISTIO_PROMETHEUS_ANNOTATIONS")
    return parse_annotations(text, settings.proxy_config.status_port)


def _probers(settings: Settings, scope: Scope) -> "Mapping[str, Prober]":
    """How the application's probes are asked, by path; most pods have none."""
    text = settings.environment.text("ISTIO_KUBE_APP_PROBERS")
    if not text:
        return {}
    from pilot_agent.status.probe_config import parse_probers

    probers, warnings = parse_probers(text, settings.proxy_config.status_port)
    for warning in warnings:
        scope.warn(warning)
    return probers


def _workload_probe(settings: Settings) -> "WorkloadProbe | None":
    message = settings.proxy_config.values.get("readinessProbe")
    if not message:
        return None
    from pilot_agent.status.workload_probe import parse_workload_probe

    return parse_workload_probe(message)


def _open_ports(desired: Desired) -> socket:
    """Bind the status port, and see that Envoy will find its own free. Raises PortInUse."""
    settings, family = desired.settings, desired.family
    status_port = settings.proxy_config.status_port
    try:
        status_socket = sockets.bind(status_port)
    except OSError as error:
        raise port_error(error, status_port, "statusPort, the agent's own") from None
    environment = settings.environment
    addresses = [
        (family.localhost, settings.proxy_config.admin_port, "proxyAdminPort, Envoy's admin"),
        (family.wildcard, environment.number("ENVOY_STATUS_PORT"), "ENVOY_STATUS_PORT, readiness"),
        (family.wildcard, environment.number("ENVOY_PROMETHEUS_PORT"), "ENVOY_PROMETHEUS_PORT, Envoy's metrics"),
    ]
    if not settings.is_local:
        addresses += [
            (family.wildcard, environment.number(name), f"{name}, metrics over mutual TLS")
            for name in ("ENVOY_SECURE_METRICS_PORT", "ENVOY_SECURE_MERGED_METRICS_PORT")
            if environment.number(name)
        ]
    if settings.is_local:
        options = mesh_options(desired)
        addresses += [
            (family.wildcard, options.outbound_port, "virtualOutbound"),
            (family.wildcard, options.inbound_port, "virtualInbound"),
        ]
    try:
        check_free(addresses)
    except AgentError:
        status_socket.close()
        raise
    return status_socket


def _directories(settings: Settings) -> list[str]:
    return [XDS_DIRECTORY] if settings.is_local else []


def mesh_options(desired: Desired) -> "Options":
    from pilot_agent.mesh.model import Options

    settings, environment = desired.settings, desired.settings.environment
    return Options(
        interception_mode=settings.proxy_config.interception_mode,  # type: ignore[arg-type]
        address_family="IPv6" if ":" in desired.family.localhost else "IPv4",
        namespace=environment.text("POD_NAMESPACE") or "default",
        outbound_port=settings.mesh.proxy_listen_port,
        inbound_port=settings.mesh.proxy_inbound_listen_port,
        access_log=settings.mesh.access_log_file,
        reserved=(
            settings.proxy_config.admin_port,
            settings.proxy_config.status_port,
            environment.number("ENVOY_STATUS_PORT"),
            environment.number("ENVOY_PROMETHEUS_PORT"),
        ),
    )


def _load_local_mesh(desired: Desired, workspace: Workspace, log: Log) -> "LocalMesh | None":
    settings = desired.settings
    if not settings.is_local:
        log.scope().warn(
            "mesh mode without a control plane connection: this version serves no xDS and no SDS to Envoy yet, "
            "so it gets no listeners and does not become ready; use --configDir for local mode"
        )
        return None
    from pilot_agent.mesh.local import LocalMesh
    from pilot_agent.mesh.publish import Publisher

    publisher = Publisher(workspace.root / XDS_DIRECTORY, Renderer, mesh_options(desired))
    mesh = LocalMesh(Path(settings.flags.config_dir), publisher, log.scope())
    try:
        mesh.load()
    except AgentError:
        mesh.remove()
        raise
    return mesh


def _can_hot_restart(scope: Scope) -> bool:
    if is_shared_memory_usable():
        return True
    scope.warn("/dev/shm is not writable: Envoy runs without hot restart, a changed bootstrap restarts it at once")
    return False


def _ask_envoy(desired: Desired, clock: Clock) -> None:
    """A template, file or override of the user's own is checked before anything depends on it; ours are tested."""
    for argv in checks(desired.argv, desired.document):
        code, output = Child(desired.launch._replace(argv=argv), clock, is_quiet=True).wait()
        judge(code, output, "the bootstrap")
