"""The node: its id, cluster, locality and metadata, as istiod reads them from Envoy's bootstrap.

Assembly follows Istio's order, later wins: what the user told (`told`, read as a record by `typed`), then what the
agent itself knows, then labels. Empty values are left out of the record; told keys that it does not show are kept raw.
"""

from typing import Any, NamedTuple

from pilot_agent.node.addresses import is_address
from pilot_agent.node.keys import NUMBER, keys_of
from pilot_agent.node.labels import add_labels, cluster_name, take_locality
from pilot_agent.node.podinfo import PodInfo
from pilot_agent.node.surroundings import NOTHING_AROUND, Surroundings
from pilot_agent.node.told import read_told, without_lone_surrogates
from pilot_agent.node.typed import as_flag, read_typed, without_empty
from pilot_agent.settings.environment import Environment
from pilot_agent.settings.model import Settings
from pilot_agent.settings.proto_json import proxy_config_json

PORT_VARIABLES = keys_of(NUMBER)
POD_VARIABLES = {"POD_NAME": "NAME", "POD_NAMESPACE": "NAMESPACE", "SERVICE_ACCOUNT": "SERVICE_ACCOUNT"}
ISTIOD_NAME = "istiod.istio-system.svc"


class Node(NamedTuple):
    """`locality` has region, zone and sub_zone, each only where known; `metadata` is ready for JSON, its keys sorted.

    `record` is the part of it that Istio knows by name: without what was told beside and is only passed on. `warnings`
    say what was told and had to be ignored.
    """

    id: str
    cluster: str
    locality: dict[str, str]
    metadata: dict[str, Any]
    record: dict[str, Any]
    addresses: list[str]
    warnings: tuple[str, ...] = ()


def build_node(
    settings: Settings,
    pod: PodInfo,
    addresses: list[str],
    version: str,
    surroundings: Surroundings = NOTHING_AROUND,
) -> Node:
    """Raises SettingsError naming the variable for a value of the wrong type (reference bootstrap.md, 4.1)."""
    told = read_told(settings)
    typed = read_typed(told)
    typed["ISTIO_VERSION"] = typed.get("ISTIO_VERSION") or version
    typed |= _own(settings, addresses)
    if surroundings.platform.metadata:
        typed["PLATFORM_METADATA"] = dict(surroundings.platform.metadata)
    add_labels(typed, told.labels, pod, surroundings.platform)
    if pod.annotations is not None:
        typed["ANNOTATIONS"] = pod.annotations
    locality = take_locality(typed["LABELS"], surroundings.platform)
    typed["METADATA_DISCOVERY"] = _metadata_discovery(settings.environment, typed)
    record = without_empty(typed)
    metadata = {**told.values, **_credential_sockets(surroundings), **record}
    node = Node(
        _node_id(settings, addresses),
        cluster_name(settings.proxy_config, typed),
        locality,
        metadata,
        record,
        addresses,
        (*_instance_ip_warning(settings.environment), *told.warnings),
    )
    return _as_unicode(node)


def _own(settings: Settings, addresses: list[str]) -> dict[str, Any]:
    environment = settings.environment
    own: dict[str, Any] = {
        key: environment.text(variable) for variable, key in POD_VARIABLES.items() if environment.text(variable)
    }
    own |= {name: environment.number(name) for name in PORT_VARIABLES}
    own["INSTANCE_IPS"] = ",".join(dict.fromkeys(addresses))
    if settings.flags.sts_port:
        own["STS_PORT"] = str(settings.flags.sts_port)
    own["OUTLIER_LOG_PATH"] = settings.flags.outlier_log_path
    own["WORKLOAD_IDENTITY_SOCKET_FILE"] = environment.text("WORKLOAD_IDENTITY_SOCKET_FILE")
    own["EXIT_ON_ZERO_ACTIVE_CONNECTIONS"] = as_flag(settings.ends_on_zero_connections)
    own["ENVOY_SKIP_DEPRECATED_LOGS"] = as_flag(environment.flag("ENVOY_SKIP_DEPRECATED_LOGS"))
    own["PROXY_CONFIG"] = proxy_config_json(settings.proxy_config)
    own["PILOT_SAN"] = _pilot_san(settings)
    return own


def _pilot_san(settings: Settings) -> list[str]:
    if settings.is_local or not settings.proxy_config.uses_mutual_tls:
        return []
    host = settings.proxy_config.discovery_address.host
    return [ISTIOD_NAME if host == "localhost" else host]


def _metadata_discovery(environment: Environment, typed: dict[str, Any]) -> str:
    wanted = environment.override("PEER_METADATA_DISCOVERY")
    if wanted is None:
        wanted = typed.get("ENABLE_HBONE") == "true"
    return "true" if wanted else "false"


def _credential_sockets(surroundings: Surroundings) -> dict[str, str]:
    found = {"credential": surroundings.has_credential_socket, "file-credential": surroundings.has_workload_sds}
    return {key: "true" for key, is_there in found.items() if is_there}


def _node_id(settings: Settings, addresses: list[str]) -> str:
    environment = settings.environment
    name = f"{environment.text('POD_NAME')}.{environment.text('POD_NAMESPACE')}"
    return f"{settings.flags.role}~{addresses[0] if addresses else ''}~{name}~{settings.domain}"


def _instance_ip_warning(environment: Environment) -> list[str]:
    address = environment.text("INSTANCE_IP")
    return [] if not address or is_address(address) else [f"INSTANCE_IP is ignored: {address!r} is not an IP address"]


def _as_unicode(node: Node) -> Node:
    metadata, record = (without_lone_surrogates(each) for each in (node.metadata, node.record))
    return node._replace(
        id=without_lone_surrogates(node.id),
        cluster=without_lone_surrogates(node.cluster),
        locality=without_lone_surrogates(node.locality),
        metadata=dict(sorted(metadata.items())),
        record=dict(sorted(record.items())),
    )
