"""PeerAuthentication for one workload: whether mutual TLS is let in, demanded, or not spoken at all.

Istio's order: the workload's own policy, then its namespace's, then the mesh's (the root namespace); UNSET looks
further, and PERMISSIVE is at the end. Called by inbound for this proxy, by clusters for its peers; pure.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pilot_agent.mesh.model import Options
from pilot_agent.mesh.policy import PeerAuthentication, PeerMode
from pilot_agent.mesh.registry import selects


class Peers(NamedTuple):
    """All policies, and the namespace whose policies without a selector hold for the whole mesh."""

    policies: tuple[PeerAuthentication, ...]
    root_namespace: str

    @classmethod
    def of(cls, policies: tuple[PeerAuthentication, ...], options: Options) -> "Peers":
        return cls(policies, options.root_namespace)

    def mode(self, namespace: str, labels: Mapping[str, str], port: int | None = None) -> PeerMode:
        """DISABLE, PERMISSIVE or STRICT for a port of the workload; without a port, for those nobody named."""
        own, of_namespace, of_mesh = self._own(namespace, labels), self._general(namespace), None
        if namespace != self.root_namespace:
            of_mesh = self._general(self.root_namespace)
        if own is not None and port is not None and own.ports.get(port, "UNSET") != "UNSET":
            return own.ports[port]
        for policy in (own, of_namespace, of_mesh):
            if policy is not None and policy.mode != "UNSET":
                return policy.mode
        return "PERMISSIVE"

    def _own(self, namespace: str, labels: Mapping[str, str]) -> PeerAuthentication | None:
        for policy in self.policies:
            if policy.namespace == namespace and policy.selector and selects(policy.selector, labels):
                return policy
        return None

    def _general(self, namespace: str) -> PeerAuthentication | None:
        for policy in self.policies:
            if policy.namespace == namespace and not policy.selector:
                return policy
        return None
