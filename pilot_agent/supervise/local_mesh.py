"""Local mode's mesh from settings, node and identity: what this proxy is, as the directory's documents select it.

Called once, before Envoy is started; `reloads` reads the directory again.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pilot_agent.bootstrap.render import Renderer
from pilot_agent.errors import AgentError
from pilot_agent.files.workspace import Workspace
from pilot_agent.log import Log
from pilot_agent.node.addresses import Family
from pilot_agent.node.labels import APP_LABELS
from pilot_agent.settings.paths import SDS_DIRECTORY, XDS_DIRECTORY
from pilot_agent.supervise.desired import Desired
from pilot_agent.supervise.opening import OpenedIdentity
from pilot_agent.supervise.settling import Settling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pilot_agent.mesh.local import LocalMesh
    from pilot_agent.mesh.model import AddressFamily, Options

_REVISION_LABELS = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")


def load_local_mesh(
    desired: Desired, workspace: Workspace, identity: OpenedIdentity | None, log: Log
) -> "LocalMesh | None":
    """None in a mesh with istiod. Raises SettingsError where the directory can't be read or nothing be written."""
    settings = desired.settings
    if not settings.is_local:
        return None
    from pilot_agent.mesh.local import LocalMesh
    from pilot_agent.mesh.publish import Publisher

    has_identity = identity is not None and identity.files is not None
    options = mesh_options(desired, str(workspace.root.absolute() / SDS_DIRECTORY) if has_identity else "")
    settling = Settling(desired.family.localhost, settings.proxy_config.admin_port)
    publisher = Publisher(workspace.root / XDS_DIRECTORY, Renderer, options, settling)
    mesh = LocalMesh(Path(settings.flags.config_dir), publisher, log.scope())
    try:
        mesh.load()
    except AgentError:
        mesh.remove()
        raise
    return mesh


def mesh_options(desired: Desired, secrets: str) -> "Options":
    """`secrets`: the directory of the workload's secrets, "" for a proxy without an identity."""
    from pilot_agent.mesh.model import Options

    settings, environment, mesh = desired.settings, desired.settings.environment, desired.settings.mesh
    labels = desired.node.metadata.get("LABELS") or {}
    namespace = environment.text("POD_NAMESPACE") or "default"
    return Options(
        interception_mode=settings.proxy_config.interception_mode,  # type: ignore[arg-type]
        families=_families(desired.family),
        namespace=namespace,
        labels=labels,
        addresses=tuple(desired.node.addresses),
        trust_domain=desired.identity.trust_domain or "cluster.local",
        domain=settings.domain.partition(".svc.")[2] or "cluster.local",
        root_namespace=mesh.root_namespace,
        outbound_policy=mesh.outbound_policy,  # type: ignore[arg-type]
        outbound_port=mesh.proxy_listen_port,
        inbound_port=mesh.proxy_inbound_listen_port,
        access_log=mesh.access_log_file,
        access_log_format=mesh.access_log_format,
        access_log_is_json=mesh.access_log_is_json,
        trace_sampling=settings.proxy_config.tracing.get("sampling") or 1,
        trace_tags=_trace_tags(labels, namespace, desired),
        secrets=secrets,
        has_auto_mtls=mesh.has_auto_mtls,
        reserved=(
            settings.proxy_config.admin_port,
            settings.proxy_config.status_port,
            environment.number("ENVOY_STATUS_PORT"),
            environment.number("ENVOY_PROMETHEUS_PORT"),
        ),
    )


def _families(family: Family) -> "tuple[AddressFamily, ...]":
    addresses = [family.wildcard, family.additional_wildcard]
    return tuple("IPv6" if ":" in address else "IPv4" for address in addresses if address)


def _trace_tags(labels: "Mapping[str, str]", namespace: str, desired: Desired) -> dict[str, str]:
    """Who we are, as istiod writes it into spans."""

    def first(names: tuple[str, ...], default: str) -> str:
        return next((labels[name] for name in names if labels.get(name)), default)

    metadata = desired.node.metadata
    return {
        "canonical_revision": first(_REVISION_LABELS, "latest"),
        "canonical_service": first(APP_LABELS[::-1], "unknown"),
        "cluster_id": str(metadata.get("CLUSTER_ID") or "Kubernetes"),
        "mesh_id": str(metadata.get("MESH_ID") or desired.identity.trust_domain or "cluster.local"),
        "namespace": namespace,
    }
