"""The keys of node metadata whose JSON type Istio fixes: type, origin and effect of each, in one table.

Owns no reading (`typed` does that) and no values (`metadata` has them). The table is also what the documentation of
node metadata is made from. Source of the types: istiod decodes the same record (reference bootstrap.md, 4.2).
"""

from typing import NamedTuple

TEXT = "text"
BOOLEAN = 'text, "true" or "false"'
NUMBER = "number"
COMMA_LIST = "text, comma-joined"
PORTS = "text holding a JSON list"
TEXT_MAP = "object of texts"
NAMES = "list of texts"
OBJECT = "object"


class MetadataKey(NamedTuple):
    """`json_type` is one of the names above; `source` says where the value comes from, for people."""

    name: str
    json_type: str
    source: str
    effect: str


def _told(name: str, effect: str, json_type: str = TEXT) -> MetadataKey:
    return MetadataKey(name, json_type, f"ISTIO_META_{name}", effect)


METADATA_KEYS = (
    _told("APP_CONTAINERS", "names of the application's containers"),
    _told("AUTO_REGISTER_GROUP", "WorkloadGroup that istiod makes a WorkloadEntry of this machine in"),
    _told("BASE", "directory of a mounted platform's files"),
    _told("CLOUDRUN_ADDR", "address of the Cloud Run service that istiod answers for"),
    _told("CLUSTER_ID", "the Kubernetes cluster this proxy belongs to"),
    _told("GENERATOR", "which kind of xDS answers istiod makes"),
    _told("HTTP10", "accept HTTP/1.0 requests"),
    _told("HTTP_PROXY_PORT", "port of an HTTP proxy listener for outbound traffic"),
    _told("IDLE_TIMEOUT", "idle timeout of HTTP connections"),
    _told("INTERCEPTION_MODE", "how traffic gets to the proxy: REDIRECT, TPROXY or NONE"),
    _told("ISTIO_PROXY_SHA", "the build of the proxy"),
    _told("ISTIO_REVISION", "revision of the control plane this proxy belongs to"),
    _told("MESH_ID", "the mesh this proxy belongs to"),
    _told("NETWORK", "the network this proxy is in"),
    _told("NODE_NAME", "the Kubernetes node the pod runs on"),
    _told("OWNER", "the object that owns the pod, as a kubernetes:// name"),
    _told("TLS_CLIENT_CERT_CHAIN", "file of the certificate chain shown to upstreams"),
    _told("TLS_CLIENT_KEY", "file of the private key used towards upstreams"),
    _told("TLS_CLIENT_ROOT_CERT", "file of the roots that upstreams are checked with"),
    _told("TLS_SERVER_CERT_CHAIN", "file of the certificate chain shown to clients"),
    _told("TLS_SERVER_KEY", "file of the private key used towards clients"),
    _told("TLS_SERVER_ROOT_CERT", "file of the roots that clients are checked with"),
    _told("UNPRIVILEGED_POD", "istiod makes no listener below port 1024"),
    _told("WORKLOAD_ENTRY", "name of the WorkloadEntry this proxy stands for"),
    _told("WORKLOAD_NAME", "name of the workload; a fallback for the node's cluster name"),
    _told("DISABLE_HBONE_SEND", "never send over HBONE", BOOLEAN),
    _told("DNS_AUTO_ALLOCATE", "give hosts without an address one of their own", BOOLEAN),
    _told("DNS_CAPTURE", "istiod sends the table of names for the DNS proxy", BOOLEAN),
    _told("ENABLE_HBONE", "speak HBONE; also turns metadata discovery on", BOOLEAN),
    _told("ENABLE_SELF_DISCOVERY", "learn the endpoints of the own service, for zone-aware routing", BOOLEAN),
    _told("INBOUND_LISTENER_EXACT_BALANCE", "spread inbound connections evenly over threads", BOOLEAN),
    _told("OUTBOUND_LISTENER_EXACT_BALANCE", "spread outbound connections evenly over threads", BOOLEAN),
    _told("REQUESTED_NETWORK_VIEW", "networks whose endpoints istiod sends; all when missing", COMMA_LIST),
    _told("POD_PORTS", "the pod's ports: name, containerPort and protocol of each", PORTS),
    MetadataKey("ANNOTATIONS", TEXT_MAP, "the pod's annotations file", "the pod's annotations"),
    MetadataKey(
        "LABELS",
        TEXT_MAP,
        "STATIC_LABELS and over them the pod's labels file",
        "what selectors of the mesh's configuration match; also locality and the node's cluster name",
    ),
    MetadataKey(
        "STATIC_LABELS",
        TEXT_MAP,
        "ISTIO_METAJSON_LABELS; outside Kubernetes also the cloud instance's labels",
        "labels that no file changes",
    ),
    MetadataKey(
        "DNS_PROXY_ADDR", TEXT, "DNS_PROXY_ADDR, else ISTIO_META_DNS_PROXY_ADDR", "where the DNS proxy listens"
    ),
    MetadataKey("ENVOY_PROMETHEUS_PORT", NUMBER, "ENVOY_PROMETHEUS_PORT", "port of Envoy's own metrics listener"),
    MetadataKey(
        "ENVOY_SECURE_MERGED_METRICS_PORT",
        NUMBER,
        "ENVOY_SECURE_MERGED_METRICS_PORT",
        "port of the mutual TLS listener of the merged metrics",
    ),
    MetadataKey(
        "ENVOY_SECURE_METRICS_PORT",
        NUMBER,
        "ENVOY_SECURE_METRICS_PORT",
        "port of the mutual TLS listener of Envoy's own metrics",
    ),
    MetadataKey("ENVOY_STATUS_PORT", NUMBER, "ENVOY_STATUS_PORT", "port of Envoy's readiness listener"),
    MetadataKey(
        "ENVOY_SKIP_DEPRECATED_LOGS",
        BOOLEAN,
        "ENVOY_SKIP_DEPRECATED_LOGS",
        "Envoy does not warn about deprecated fields",
    ),
    MetadataKey(
        "EXIT_ON_ZERO_ACTIVE_CONNECTIONS",
        BOOLEAN,
        "EXIT_ON_ZERO_ACTIVE_CONNECTIONS",
        "the proxy ends as soon as its last connection is gone",
    ),
    MetadataKey("INSTANCE_IPS", COMMA_LIST, "INSTANCE_IP and the network interfaces", "the node's addresses"),
    MetadataKey(
        "ISTIO_VERSION", TEXT, "ISTIO_META_ISTIO_VERSION, else the agent's own", "what istiod fits its answers to"
    ),
    MetadataKey(
        "METADATA_DISCOVERY",
        BOOLEAN,
        "PEER_METADATA_DISCOVERY, else ENABLE_HBONE",
        "peers' metadata come over xDS; always present",
    ),
    MetadataKey("NAME", TEXT, "POD_NAME, else ISTIO_META_NAME", "the pod's name"),
    MetadataKey("NAMESPACE", TEXT, "POD_NAMESPACE, else ISTIO_META_NAMESPACE", "the pod's namespace"),
    MetadataKey("OUTLIER_LOG_PATH", TEXT, "flag --outlierLogPath", "where Envoy logs outlier detection"),
    MetadataKey(
        "PILOT_SAN",
        NAMES,
        "host of ProxyConfig discoveryAddress, unless controlPlaneAuthPolicy is NONE",
        "name the control plane's certificate must show; informational",
    ),
    MetadataKey("PLATFORM_METADATA", TEXT_MAP, "the cloud's metadata server", "the instance's project, region, id"),
    MetadataKey("PROXY_CONFIG", OBJECT, "the resolved ProxyConfig", "the settings istiod reads of this proxy"),
    MetadataKey("SERVICE_ACCOUNT", TEXT, "SERVICE_ACCOUNT, else ISTIO_META_SERVICE_ACCOUNT", "the pod's identity"),
    MetadataKey("STS_PORT", TEXT, "flag --stsPort, else ISTIO_META_STS_PORT", "port of a token exchange server"),
    MetadataKey(
        "WORKLOAD_IDENTITY_SOCKET_FILE",
        TEXT,
        "WORKLOAD_IDENTITY_SOCKET_FILE",
        "file name of the workload SDS socket",
    ),
)

RAW_KEYS = (
    MetadataKey("credential", TEXT, "an external SDS answers on its socket", "gateways may use sds:// names"),
    MetadataKey("file-credential", TEXT, "an external SDS serves the identity", "files come by a second SDS"),
)
"""Written by the agent itself beside the typed record, `"true"` or not at all."""


def keys_of(json_type: str) -> tuple[str, ...]:
    return tuple(key.name for key in METADATA_KEYS if key.json_type == json_type)
