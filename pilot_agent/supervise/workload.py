"""The health of a virtual machine's workload, where ProxyConfig has a readinessProbe: wired, and run as a part.

Each change is logged, and in a mesh told to istiod.
"""

from typing import TYPE_CHECKING

from pilot_agent.supervise.lifecycle import Lifecycle
from pilot_agent.supervise.prepare import Prepared
from pilot_agent.supervise.reaper import Reaper

if TYPE_CHECKING:
    from pilot_agent.status.readiness import Gate
    from pilot_agent.status.workload_health import HealthReports, WorkloadHealth


class ServingGate:
    """Open while Envoy serves: that it does not says nothing of the workload."""

    name = "envoy"

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def reason(self) -> str | None:
        return self._lifecycle.missing.first


class Nobody:
    """Who hears of the workload's health where there is no control plane."""

    def report(self, healthy: bool, message: str) -> None:
        pass


def workload_health(
    prepared: Prepared, envoy: "Gate", reaper: Reaper, reports: "HealthReports"
) -> "WorkloadHealth | None":
    """None without a readinessProbe."""
    if prepared.workload_probe is None:
        return None
    from pilot_agent.status.workload_health import Surroundings, WorkloadHealth

    addresses = prepared.desired.node.addresses
    is_legacy = prepared.desired.settings.environment.flag("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION")
    host = "localhost" if is_legacy or not addresses else addresses[0]
    around = Surroundings(host, envoy, reaper.own, prepared.clock, prepared.log.scope("healthcheck"))
    return WorkloadHealth(prepared.workload_probe, reports, around)
