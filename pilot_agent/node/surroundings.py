"""What the node's metadata says of the machine around the pod: the cloud it runs on, and sockets others serve.

Data only. Finding it out takes sockets and a network, which this layer does not have: `cloud` and `identity` do it.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Platform(NamedTuple):
    """The cloud: `name` is aws, azure, gcp or empty. `locality` has region, zone and sub_zone, each only where known.

    `metadata` becomes PLATFORM_METADATA; `labels` are the instance's own, which count where there is no Kubernetes.
    """

    name: str = ""
    locality: Mapping[str, str] = {}
    metadata: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    is_kubernetes: bool = True


class Surroundings(NamedTuple):
    """`has_credential_socket`: an external SDS serves gateway credentials; `has_workload_sds`: one serves identity."""

    platform: Platform = Platform()
    has_credential_socket: bool = False
    has_workload_sds: bool = False


NOTHING_AROUND = Surroundings()
