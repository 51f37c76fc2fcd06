"""What a pod is, before there is one: names, labels, settings, and the ports of its agent. Plain values."""

from collections.abc import Mapping
from typing import NamedTuple


class Ports(NamedTuple):
    """Istio's, or free ones where several agents share a network."""

    status: int = 15020
    admin: int = 15000
    ready: int = 15021
    prometheus: int = 15090
    outbound: int = 15001
    inbound: int = 15006


class Spec(NamedTuple):
    """What a pod is. `application` is the port of its httpbin, 0 for none; `mode` as interceptionMode of ProxyConfig.

    `proxy_config` and `mesh_config` are fields of ProxyConfig and MeshConfig, `variables` of the agent's environment.
    """

    name: str
    namespace: str = "demo"
    account: str = ""
    labels: Mapping[str, str] = {}
    application: int = 0
    mode: str = "REDIRECT"
    proxy_config: Mapping[str, object] = {}
    mesh_config: Mapping[str, object] = {}
    variables: Mapping[str, str] = {}

    @property
    def service_account(self) -> str:
        return self.account or self.name
