"""From the command line to a running Envoy, with as little imported as possible: no asyncio, no aiohttp.

Envoy boots while the rest of the agent is imported (DESIGN, invariant 2). What fails here ends the agent with one line,
and takes back everything that was made.
"""

import time
from contextlib import ExitStack
from socket import socket
from typing import TYPE_CHECKING, NamedTuple

from pilot_agent.bootstrap.validate import checks, judge
from pilot_agent.clock import Clock, Deadline
from pilot_agent.envoy.epoch import Epoch, is_shared_memory_usable, remove_generation
from pilot_agent.envoy.process import Child, spawn
from pilot_agent.errors import AgentError, SettingsError
from pilot_agent.files.workspace import Workspace
from pilot_agent.log import Log, Scope
from pilot_agent.metrics.annotations import AppTarget, parse_annotations
from pilot_agent.node.addresses import has_unspecified_address
from pilot_agent.settings.model import Settings
from pilot_agent.settings.paths import BASE_ID_NAME, XDS_DIRECTORY
from pilot_agent.status import sockets
from pilot_agent.supervise.announcement import announce, without_override
from pilot_agent.supervise.desired import Desired, Inputs, config_directory
from pilot_agent.supervise.local_mesh import load_local_mesh
from pilot_agent.supervise.memory import share_one_heap
from pilot_agent.supervise.opening import OpenedIdentity, begin_request, open_identity, open_xds
from pilot_agent.supervise.phases import Phases
from pilot_agent.supervise.ports import check_free, port_error
from pilot_agent.supervise.questions import find_out
from pilot_agent.supervise.signals import EarlySignals
from pilot_agent.uds.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pilot_agent.mesh.local import LocalMesh
    from pilot_agent.status.probe_config import Prober
    from pilot_agent.status.workload_probe import WorkloadProbe

ADDRESSES_WITHIN_S, ADDRESSES_STEP_S = 120.0, 0.1


class Prepared(NamedTuple):
    """All the agent needs to go on. `child` is Envoy, booting; None when there is to be none (DISABLE_ENVOY), and when
    a signal asked to stop before its spawn."""

    inputs: Inputs
    desired: Desired
    log: Log
    clock: Clock
    signals: EarlySignals
    phases: Phases
    workspace: Workspace
    grpc_workspace: Workspace | None
    status_socket: socket
    apps: tuple[AppTarget, ...]
    probers: "Mapping[str, Prober]"
    workload_probe: "WorkloadProbe | None"
    local_mesh: "LocalMesh | None"
    identity: OpenedIdentity | None
    xds: Listener | None
    epoch: Epoch
    child: Child | None
    undo: ExitStack

    def write_bootstrap(self, desired: Desired) -> None:
        """Publish the bootstrap where Envoy reads it, and its secrets beside it; a custom file is never written. And
        the one of gRPC's xDS client."""
        self._write_grpc_bootstrap(desired)
        if not desired.settings.has_envoy:
            return
        files = dict.fromkeys(desired.secrets, 0o600)
        content = dict(desired.secrets)
        if not desired.is_custom_file:
            name = desired.config_file.name
            content[name] = desired.document
            files[name] = 0o600 if desired.secrets else 0o644  # the node's metadata says all of ProxyConfig
        for name, mode in files.items():
            self.workspace.write(name, content[name], mode=mode, owner=desired.launch.user)

    def _write_grpc_bootstrap(self, desired: Desired) -> None:
        """Istio writes one beside every Envoy. Where nobody asked for it, a place that can't be written is no error."""
        grpc, workspace = desired.grpc, self.grpc_workspace
        if grpc is None or workspace is None:
            return
        try:
            workspace.create()
            workspace.write(grpc.path.name, grpc.document)
        except SettingsError as error:
            if not desired.settings.has_envoy or desired.settings.environment.is_set("GRPC_XDS_BOOTSTRAP"):
                raise
            self.log.scope().warn(f"no bootstrap for gRPC's xDS client: {error}")

    def take_back(self) -> None:
        """Remove what was made: sockets, files, directories."""
        self.undo.close()


def prepare(inputs: Inputs, log: Log, clock: Clock, signals: EarlySignals) -> Prepared:
    """Raises SettingsError for anything that keeps Envoy from being started; then nothing is left behind."""
    phases = Phases()
    share_one_heap()
    inputs, desired = _find_out(inputs, clock, signals)
    scope = log.scope()
    announce(desired, scope)
    phases.end("settings")
    apps = _scrape_targets(desired.settings)
    probers = _probers(desired.settings, scope)
    workload_probe = _workload_probe(desired.settings)
    with ExitStack() as undo:
        status_socket = _open_ports(desired)
        undo.callback(status_socket.close)
        workspace = Workspace(config_directory(desired.settings))
        undo.callback(workspace.remove)
        workspace.create(*_directories(desired.settings))
        grpc_workspace = _grpc_workspace(desired, undo)
        base_id_path = workspace.claim(BASE_ID_NAME)
        remove_generation(base_id_path)  # of an agent that was killed before it could
        identity = open_identity(desired, workspace.root, log, undo)
        xds = open_xds(desired, undo)
        local_mesh = load_local_mesh(desired, workspace, identity, log)
        if local_mesh is not None:
            undo.callback(local_mesh.remove)
        prepared = Prepared(
            inputs,
            desired,
            log,
            clock,
            signals,
            phases,
            workspace,
            grpc_workspace,
            status_socket,
            apps,
            probers,
            workload_probe,
            local_mesh,
            identity,
            xds,
            Epoch(can_hot_restart=desired.settings.has_envoy and _can_hot_restart(scope)),
            None,
            undo,
        )
        prepared.write_bootstrap(desired)
        if desired.has_own_parts:
            _ask_envoy(desired, clock)
        phases.end("bootstrap")
        if not desired.settings.has_envoy:
            scope.info("no Envoy is started: DISABLE_ENVOY")
            prepared = prepared._replace(identity=begin_request(identity, desired, undo))
            return prepared._replace(undo=undo.pop_all())
        scope.info(f"Envoy command: [{' '.join(without_override(desired.argv))}]")
        if signals.stop is None:
            child = spawn(desired.launch, prepared.epoch, drain_seconds(desired), base_id_path, clock)
            phases.end("envoy_spawned")
            prepared = prepared._replace(child=child, identity=begin_request(identity, desired, undo))
        return prepared._replace(undo=undo.pop_all())


def _grpc_workspace(desired: Desired, undo: ExitStack) -> Workspace | None:
    if desired.grpc is None:
        return None
    workspace = Workspace(desired.grpc.path.parent, "GRPC_XDS_BOOTSTRAP", directory_mode=0o700)
    undo.callback(workspace.remove)
    return workspace


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
    if not settings.has_envoy:
        return status_socket
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
        addresses += [
            (family.wildcard, settings.mesh.proxy_listen_port, "virtualOutbound"),
            (family.wildcard, settings.mesh.proxy_inbound_listen_port, "virtualInbound"),
        ]
    try:
        check_free(addresses)
    except AgentError:
        status_socket.close()
        raise
    return status_socket


def _directories(settings: Settings) -> list[str]:
    return [XDS_DIRECTORY] if settings.is_local else []


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
