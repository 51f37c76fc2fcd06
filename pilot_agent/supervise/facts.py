"""The facts of `/debug/status`: gathered from every part of the agent, and from Envoy, for the page and `status`.

Reads only; nothing here decides. Envoy is asked with a deadline, and what it does not say is left out.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pilot_agent import __version__
from pilot_agent.envoy.admin import Admin
from pilot_agent.envoy.drain import count_connections
from pilot_agent.errors import AdminError
from pilot_agent.metrics.account import ScrapeAccount
from pilot_agent.node.metadata import PORT_VARIABLES
from pilot_agent.status.readiness import Readiness
from pilot_agent.supervise.envoys import Envoys, Running
from pilot_agent.supervise.lifecycle import Lifecycle
from pilot_agent.supervise.prepare import Prepared
from pilot_agent.supervise.serving import Serving, workers
from pilot_agent.supervise.timeline import Timeline

if TYPE_CHECKING:
    from pilot_agent.dns.table import NameTable
    from pilot_agent.mesh.local import LocalMesh
    from pilot_agent.supervise.identity import Identity
    from pilot_agent.supervise.xds import Xds

ADMIN_TIMEOUT_S = 1.0
MOST_ERRORS = 10
_TRAFFIC = r"/stats?usedonly&filter=^(listener\..*\.downstream_cx_active|http\..*\.downstream_rq_total)$"
_OWN_MANAGERS = ("http.admin.", "http.agent.", "http.stats.", "http.secure_stats.", "http.secure_merged_stats.")


class StatusFacts:
    """`status.debug.Facts`, made of the agent's parts."""

    def __init__(
        self,
        prepared: Prepared,
        serving: Serving,
        envoys: Envoys,
        lifecycle: Lifecycle,
        readiness: Readiness,
        scrapes: ScrapeAccount,
        timeline: Timeline,
        meshes_accepted: Callable[[], int],
        identity: "Identity | None" = None,
        xds: "Xds | None" = None,
        names: "NameTable | None" = None,
    ) -> None:
        """`meshes_accepted`: changes of the local mesh that were taken, as the metric counts them."""
        self._meshes_accepted, self._identity, self._xds = meshes_accepted, identity, xds
        self._names = names
        self._prepared, self._serving, self._envoys = prepared, serving, envoys
        self._lifecycle, self._readiness, self._scrapes, self._timeline = lifecycle, readiness, scrapes, timeline
        self._version: tuple[int, str] | None = None

    def shutdown(self) -> Mapping[str, Any]:
        return self._timeline.described()

    def certs(self) -> Mapping[str, Any] | None:
        return self._identity.certs() if self._identity is not None else None

    def xds(self) -> Mapping[str, Any] | None:
        return self._xds.described() if self._xds is not None else None

    def name_table(self) -> Mapping[str, Any] | None:
        return self._names.described() if self._names is not None else None

    async def status(self) -> Mapping[str, Any]:
        reason, current = self._readiness.reason(), self._envoys.current
        admin = self._serving.admin() if current is not None and not self._readiness_of("envoy") else None
        # Side by side: a hang that is not noticed yet must cost one time limit, not three.
        envoy, listeners, traffic = await asyncio.gather(
            self._envoy(current, admin), _listeners(admin), self._traffic(admin)
        )
        return {
            "agent": self._agent(),
            "ready": reason is None,
            "reason": reason,
            "gates": [each.described() for each in self._readiness.report()],
            "envoy": envoy,
            "listeners": listeners,
            "certificates": self._identity.secrets.described() if self._identity is not None else [],
            "config": self._config(),
            "xds": self.xds(),
            "errors": self._errors(),
            "traffic": traffic,
            "memory": {"agent_bytes": resident(None), "envoy_bytes": resident(current.child.pid) if current else None},
            "scrapes": [
                {
                    "source": each.name,
                    "seconds": round(each.seconds, 4),
                    "bytes": each.bytes,
                    "failures": each.failures,
                    "last_error": each.last_error,
                }
                for each in self._scrapes.sources
            ],
        }

    def _readiness_of(self, gate: str) -> str | None:
        return next((each.reason for each in self._readiness.report() if each.name == gate), None)

    def _agent(self) -> dict[str, Any]:
        desired = self._serving.desired
        settings = desired.settings
        return {
            "version": __version__,
            "mode": "local" if settings.is_local else "mesh",
            "role": settings.flags.role,
            "id": desired.node.id,
            "cluster": desired.node.cluster,
            "pid": os.getpid(),
            "uptime_seconds": round(self._prepared.phases.age(), 1),
            "state": self._lifecycle.state.value,
        }

    async def _envoy(self, current: Running | None, admin: Admin | None) -> dict[str, Any] | None:
        last, desired = self._serving.last_exit, self._serving.desired
        if not desired.settings.has_envoy:
            return None
        clock = self._prepared.clock
        return {
            "epoch": current.epoch.number if current else None,
            "pid": current.child.pid if current else None,
            "uptime_seconds": round(clock.monotonic() - current.child.started_at, 1) if current else None,
            "binary": str(desired.binary),
            "version": await self._version_of(current, admin),
            "concurrency": workers(desired),
            "restarts": dict(self._serving.restarts),
            "last_exit": {
                "code": last.facts.code,
                "signal": last.facts.signal_name or None,
                "reason": last.reason,
                "uptime_seconds": round(last.facts.uptime, 1),
            }
            if last
            else None,
            "older_epochs": [{"epoch": each.epoch.number, "pid": each.child.pid} for each in self._envoys.older],
        }

    async def _version_of(self, current: Running | None, admin: Admin | None) -> str | None:
        """Asked once for each Envoy: it does not change while that runs."""
        if current is None:
            return None
        if self._version is None or self._version[0] != current.child.pid:
            if admin is None:
                return None
            try:
                info = await admin.server_info(timeout=ADMIN_TIMEOUT_S)
            except AdminError:
                return None
            self._version = (current.child.pid, info.version)
        return self._version[1]

    async def _traffic(self, admin: Admin | None) -> dict[str, int] | None:
        if admin is None:
            return None
        try:
            text = await admin.call(_TRAFFIC, timeout=ADMIN_TIMEOUT_S)
        except AdminError:
            return None
        if not text.strip() and not self._serving.desired.settings.is_local:
            return None  # Istio's list of stats has none of these, unless somebody asked for them
        environment = self._serving.desired.settings.environment
        own_ports = tuple(filter(None, (environment.number(name) for name in PORT_VARIABLES)))
        return {"requests_total": requests_in(text), "connections_active": count_connections(text, own_ports) or 0}

    def _config(self) -> dict[str, Any]:
        mesh, serving = self._prepared.local_mesh, self._serving
        return {
            "accepted": serving.accepted_changes + self._meshes_accepted(),
            "refused": serving.change.refused_total + (mesh.refused_total if mesh else 0),
            "refusal": serving.change.refusal,
            "broken_files": _broken(mesh),
            "services": mesh.services if mesh else None,
        }

    def _errors(self) -> list[str]:
        """What is wrong now, newest kind last."""
        refusal = self._serving.change.refusal
        scrapes = [f"metrics of {each.name}: {each.problem}" for each in self._scrapes.sources if each.problem]
        certificates = self._identity.secrets.notes() if self._identity is not None else []
        found = [*_broken(self._prepared.local_mesh), *([refusal] if refusal else []), *scrapes, *certificates]
        return found[-MOST_ERRORS:]


def _broken(mesh: "LocalMesh | None") -> list[str]:
    return [f"{file}: {error}" for file, error in mesh.errors.items()] if mesh else []


async def _listeners(admin: Admin | None) -> list[dict[str, str]]:
    """Name and address of each, as Envoy has them."""
    if admin is None:
        return []
    try:
        found = json.loads(await admin.call("/listeners?format=json", timeout=ADMIN_TIMEOUT_S))
        return [
            {"name": str(each["name"]), "address": address_of(each.get("local_address", {}))}
            for each in found.get("listener_statuses", [])
        ]
    except (AdminError, ValueError, KeyError, TypeError, AttributeError):
        return []


def address_of(address: Mapping[str, Any]) -> str:
    socket = address.get("socket_address")
    if not socket:
        return str(address.get("pipe", {}).get("path", "") or "internal")
    host = str(socket.get("address", ""))
    return f"[{host}]:{socket.get('port_value')}" if ":" in host else f"{host}:{socket.get('port_value')}"


def requests_in(stats: str) -> int:
    """Requests that connection managers other than Envoy's own listeners have taken."""
    total = 0
    for line in stats.splitlines():
        name, _, value = line.partition(": ")
        if name.endswith(".downstream_rq_total") and not name.startswith(_OWN_MANAGERS) and value.isdigit():
            total += int(value)
    return total


def resident(pid: int | None) -> int | None:
    """Bytes of a process's resident memory; None when it is gone."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
