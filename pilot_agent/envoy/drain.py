"""Draining: what to POST to Envoy, and how to count the connections that are left (reference: status, section 6)."""

from collections.abc import Iterable
from typing import NamedTuple

ACTIVE_CONNECTIONS_PATH = "/stats?usedonly&filter=downstream_cx_active$"
SUFFIX = ".downstream_cx_active"


class DrainOptions(NamedTuple):
    """`inbound_only`: a sidecar's outbound listeners stay open while the application finishes.

    `skip_exit`: listeners go on accepting (with `connection: close`) instead of closing after Envoy's drain time.
    """

    inbound_only: bool
    skip_exit: bool

    @property
    def path(self) -> str:
        query = [name for name, wanted in (("inboundonly", self.inbound_only), ("graceful", True)) if wanted]
        query += ["skip_exit"] if self.skip_exit else []
        return f"/drain_listeners?{'&'.join(query)}"


def count_connections(stats: str, own_ports: Iterable[int]) -> int | None:
    """Active downstream connections in the text of ACTIVE_CONNECTIONS_PATH, without the agent's own business.

    `own_ports`: readiness and metrics listeners, whatever address family Envoy named them by (`0.0.0.0_15021`,
    `[__]_15021`). None when Envoy exports no such statistic at all (its stats matcher leaves it out).
    """
    own = {str(port) for port in own_ports}
    total, is_known = 0, False
    for line in stats.splitlines():
        name, _, value = line.rpartition(": ")
        if not (name.startswith("listener.") and name.endswith(SUFFIX) and value.isdigit()):
            continue
        is_known = True
        if not _is_own(name.removeprefix("listener.").removesuffix(SUFFIX), own):
            total += int(value)
    return total if is_known else None


def _is_own(listener: str, own_ports: set[str]) -> bool:
    if "worker_" in listener or listener.startswith("envoy_internal_") or listener in ("admin", "admin.main_thread"):
        return True
    return listener.rpartition("_")[2] in own_ports
