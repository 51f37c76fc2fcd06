"""Every environment variable the agent reads, in one table, and a typed view of the values.

Nothing else reads the environment. A value that can't be parsed is a warning and the default is used, as Istio does;
an empty text counts as set. The table is also what the documentation of variables is made from.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pilot_agent.values import Duration, parse_bool

type_names = {str: "text", bool: "boolean", int: "integer", Duration: "duration"}

_LARGEST = 2**63 - 1


LARGEST_PORT = 65535


class Variable(NamedTuple):
    """One variable: `default` also fixes its type (str, bool, int or Duration).

    `part` of the agent it is for; where this version has no such part, `is_used` is false, and it only counts as known.
    """

    name: str
    default: str | bool | int | Duration
    effect: str
    part: str = "bootstrap"
    is_used: bool = True

    @property
    def is_port(self) -> bool:
        """A number from 0, which means none, to 65535."""
        return isinstance(self.default, int) and self.name.endswith("_PORT")


class Prefix(NamedTuple):
    """Variables known by the start of their names."""

    name: str
    effect: str
    part: str
    is_used: bool = True


def _later(part: str, *variables: tuple[str, str | bool | int | Duration, str]) -> tuple[Variable, ...]:
    """Variables of a part that is not in this version."""
    return tuple(Variable(name, default, effect, part, is_used=False) for name, default, effect in variables)


def _of(part: str, *variables: tuple[str, str | bool | int | Duration, str]) -> tuple[Variable, ...]:
    return tuple(Variable(name, default, effect, part) for name, default, effect in variables)


_SECONDS_5, _SECONDS_10, _SECONDS_15, _SECONDS_30 = (Duration(count * 10**9) for count in (5, 10, 15, 30))
_HOUR, _DAY = Duration(3600 * 10**9), Duration(24 * 3600 * 10**9)

VARIABLES = (
    *_of(
        "node",
        ("INSTANCE_IP", "", "the pod's address: first of the node's addresses"),
        ("POD_NAME", "", "pod name: node id and metadata NAME"),
        ("POD_NAMESPACE", "", "namespace: node id, DNS domain and metadata NAMESPACE"),
        ("SERVICE_ACCOUNT", "", "metadata SERVICE_ACCOUNT"),
        (
            "PEER_METADATA_DISCOVERY",
            "",
            "boolean; metadata METADATA_DISCOVERY, unset as ENABLE_HBONE says, empty means off",
        ),
        (
            "DNS_PROXY_ADDR",
            "localhost:15053",
            "metadata DNS_PROXY_ADDR; when it ends in :53 and the agent is root, Envoy runs as 1337",
        ),
        (
            "WORKLOAD_IDENTITY_SOCKET_FILE",
            "socket",
            "file name of the workload SDS socket; another name must be served already",
        ),
    ),
    *_of(
        "bootstrap",
        ("PROXY_CONFIG", "", "a ProxyConfig as YAML or JSON, above the mesh file, below the pod annotation"),
        ("HOST_IP", "", "the node's address: replaces $(HOST_IP) in the tracer's address and in the override"),
        ("ISTIO_BOOTSTRAP", "", "path of a Jinja2 bootstrap template, above every other template setting"),
        ("ISTIO_BOOTSTRAP_OVERRIDE", "", "file with YAML or JSON that Envoy merges over the bootstrap"),
        ("ENVOY_STATUS_PORT", 15021, "port of Envoy's readiness listener"),
        ("ENVOY_PROMETHEUS_PORT", 15090, "port of Envoy's own metrics listener"),
        ("ENVOY_SECURE_METRICS_PORT", 0, "above 0: Envoy's metrics for peers of the mesh, over mutual TLS"),
        ("ENVOY_SECURE_MERGED_METRICS_PORT", 0, "above 0: the merged metrics for peers of the mesh, over mutual TLS"),
        ("ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL", False, "accept the PROXY protocol on the readiness listener"),
        ("ISTIO_DELTA_XDS", True, "incremental xDS instead of state of the world"),
        ("ISTIO_DUAL_STACK", False, "listen on both address families"),
        (
            "HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED",
            True,
            "false keeps the fragment of a request path (unsafe)",
        ),
        ("XDS_ROOT_CA", "", "root certificate for istiod: a path, or SYSTEM; shown to templates too"),
    ),
    *_of(
        "envoy",
        ("ISTIO_CPU_LIMIT", 0, "worker threads when ProxyConfig sets no concurrency"),
        (
            "COMPLIANCE_POLICY",
            "",
            "fips-140-2, fips-140-3: gRPC's cipher suites; fips-140-2 also keeps gRPC from TLS 1.3",
        ),
        ("ISTIO_ENVOY_ENABLE_CORE_DUMP", False, "let Envoy dump core"),
        ("ENVOY_SKIP_DEPRECATED_LOGS", True, "no warnings of Envoy about deprecated fields"),
        ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", False, "end the drain as soon as no connection is left"),
        ("MINIMUM_DRAIN_DURATION", _SECONDS_5, "how long a drain that ends on zero connections lasts"),
    ),
    *_of(
        "metrics",
        ("ISTIO_PROMETHEUS_ANNOTATIONS", "", "JSON: the application's metrics to merge"),
        ("PILOT_AGENT_MERGE_ENVOY_STATS", True, "put Envoy's metrics into the merged ones"),
        ("METRICS_LOCALHOST_ACCESS_ONLY", False, "serve the merged metrics to loopback only"),
    ),
    *_of(
        "cloud",
        ("CLOUD_PLATFORM", "", "aws, azure, gcp or none; empty: found out from the machine's DMI"),
        ("GCP_METADATA", "", "PROJECT|NUMBER|CLUSTER|LOCATION instead of asking Google's metadata server"),
        ("GCP_QUOTA_PROJECT", "", "platform metadata gcp_quota_project, with GCP_METADATA"),
        ("GCP_ZONE", "", "the zone, with GCP_METADATA"),
        ("GCE_METADATA_HOST", "", "host:port of Google's metadata server"),
        ("KUBERNETES_SERVICE_HOST", "", "set: this runs in Kubernetes, whose labels count, not the machine's"),
    ),
    *_of(
        "xds",
        ("PROXY_CONFIG_XDS_AGENT", False, "take the roots of ProxyConfig from istiod, beside the CA's"),
        ("GRPC_KEEPALIVE_INTERVAL", _SECONDS_30, "how often an idle connection to istiod is tried"),
        ("GRPC_KEEPALIVE_TIMEOUT", _SECONDS_10, "how long its answer may take"),
        ("ISTIO_GPRC_MAXRECVMSGSIZE", 4194304, "longest message of the agent's gRPC servers, in bytes"),
        ("ISTIO_GPRC_MAXSTREAMS", 100000, "concurrent streams of the agent's gRPC servers"),
        ("DISABLE_ENVOY", False, "no Envoy: certificates and xDS for a proxyless gRPC application"),
        (
            "GRPC_XDS_BOOTSTRAP",
            "etc/istio/proxy/grpc-bootstrap.json",
            "bootstrap file for gRPC's own xDS client; empty: none",
        ),
    ),
    *_later(
        "xds",
        ("XDS_AUTH_PROVIDER", "", "without effect in Istio's agent too"),
    ),
    *_of(
        "identity",
        ("CA_ADDR", "", "host:port of the CA; empty: discoveryAddress. Port 15010 is istiod's without TLS"),
        ("CA_PROVIDER", "Citadel", "Citadel (istiod), or GkeWorkloadCertificate: mounted files with Google's names"),
        ("CA_ROOT_CA", "", "root certificate for the CA: a path, or SYSTEM"),
        ("ISTIOD_SAN", "", "name in istiod's certificate; of the CA only where CA_ADDR is unset"),
        (
            "PILOT_CERT_PROVIDER",
            "istiod",
            "who signs istiod's certificate; custom and none change which root checks it",
        ),
        ("JWT_POLICY", "third-party-jwt", "first-party-jwt is deprecated; the token is the same file"),
        ("TRUST_DOMAIN", "cluster.local", "trust domain of the workload's identity"),
        ("SECRET_TTL", _DAY, "lifetime of the workload certificate asked for, in whole seconds"),
        ("SECRET_GRACE_PERIOD_RATIO", "0.5", "share of the lifetime before its end when it is renewed, 0 to 1"),
        ("SECRET_GRACE_PERIOD_RATIO_JITTER", "0.01", "random part of that share, up or down"),
        (
            "FILE_DEBOUNCE_DURATION",
            Duration(100 * 10**6),
            "first pause before wrong certificate files are looked at again",
        ),
        ("WORKLOAD_RSA_KEY_SIZE", 2048, "bits of an RSA key, 2048 or more"),
        ("PKCS8_KEY", False, "write keys as PKCS#8"),
        ("ECC_SIGNATURE_ALGORITHM", "", "ECDSA instead of RSA keys"),
        ("ECC_CURVE", "P256", "curve of an ECDSA key: P256 or P384"),
        ("FILE_MOUNTED_CERTS", False, "certificates are files that Envoy's configuration names; no CA"),
        ("PROV_CERT", "", "directory of a provisioned certificate, shown to the CA (VMs)"),
        ("OUTPUT_CERTS", "", "directory to write key.pem, cert-chain.pem and root-cert.pem into"),
        ("CREDENTIAL_FETCHER_TYPE", "JWT", "where the token comes from: JWT (a file), GoogleComputeEngine, Mock"),
        ("PILOT_ENABLE_CA_CRL", True, "give Envoy the CA's revocation list where one is mounted"),
    ),
    *_later("identity", ("CREDENTIAL_IDENTITY_PROVIDER", "GoogleComputeEngine", "without effect in Istio's agent too")),
    *_of(
        "status",
        ("ISTIO_KUBE_APP_PROBERS", "", "JSON: the application's probes, by path"),
        ("ISTIO_ENABLE_HTTP2_PROBING", True, "probe HTTPS applications over HTTP/2 too"),
        ("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", False, "probe localhost instead of the pod's address"),
        ("ENABLE_PROBE_KEEPALIVE_CONNECTIONS", False, "keep connections of probes open"),
    ),
    *_later(
        "dns",
        ("DNS_FORWARD_PARALLEL", False, "ask all upstream servers at once"),
        ("DNS_FORWARD_TIMEOUT", _SECONDS_5, "how long an upstream server may take"),
    ),
    *_later(
        "wasm",
        ("WASM_INSECURE_REGISTRIES", "", "registries without TLS"),
        ("WASM_MODULE_EXPIRY", _DAY, "how long an unused module is kept"),
        ("WASM_PURGE_INTERVAL", _HOUR, "how often unused modules are removed"),
        ("WASM_HTTP_REQUEST_TIMEOUT", _SECONDS_15, "how long fetching a module may take"),
        ("WASM_HTTP_REQUEST_MAX_RETRIES", 5, "how often it is tried"),
        ("ISTIO_AGENT_ENABLE_WASM_REMOTE_LOAD_CONVERSION", True, "fetch remote modules for Envoy"),
        ("ISTIO_WASM_MAX_BINARY_SIZE_BYTES", 268435456, "largest module, in bytes"),
        ("BLOCKED_CIDRS_IN_WASM_FETCH", "", "addresses modules are not fetched from"),
    ),
)

OVERRIDES = ("PEER_METADATA_DISCOVERY",)
"""Booleans that say something by not being set (`Environment.override`)."""

PREFIXES = (
    Prefix("ISTIO_META_", "node metadata of the rest of the name, as text", "node"),
    Prefix("ISTIO_METAJSON_", "an object whose keys become node metadata; the rest of the name says nothing", "node"),
    Prefix("CA_HEADER_", "header of every call to the CA", "identity"),
    Prefix("XDS_HEADER_", "header of every stream to istiod", "xds"),
)

NAMED_META = (
    ("ISTIO_META_CLUSTER_ID", "the cluster: istiod decides by it which endpoints are near"),
    (
        "ISTIO_META_DNS_CAPTURE",
        "the container's variable also has istiod's name table asked for; the DNS proxy itself is not in this version",
    ),
    ("ISTIO_META_ENABLE_DNS_SERVER", "the same for a proxy that is no sidecar"),
    ("ISTIO_META_ENABLE_HBONE", "metadata; metadata discovery, unless PEER_METADATA_DISCOVERY says otherwise"),
    ("ISTIO_META_ENABLE_SELF_DISCOVERY", "cluster local_cluster in the bootstrap"),
    ("ISTIO_META_CERT_SIGNER", "the signer that requests to the CA name"),
    ("ISTIO_META_LOAD_STATS_CONFIG_JSON", "load_stats_config of the bootstrap: an ApiConfigSource as JSON"),
    ("ISTIO_META_TLS_CLIENT_CERT_CHAIN", "instead of clientCertificate of tracing, metrics and access-log services"),
    ("ISTIO_META_TLS_CLIENT_KEY", "instead of their privateKey"),
    ("ISTIO_META_TLS_CLIENT_ROOT_CERT", "instead of their caCertificates"),
    ("ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS", "connection limit, from proxyMetadata only"),
)
"""Variables of those prefixes that do more than fill the metadata."""


class Environment:
    """The variables' values, typed: `text`, `flag`, `number`, `duration` by name."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.warnings: list[str] = []
        self._values: dict[str, object] = {}
        self._raw = dict(variables)
        for variable in VARIABLES:
            self._values[variable.name] = self._read(variable)
        self._overrides = {name: self._read_override(name) for name in OVERRIDES}

    def _read(self, variable: Variable) -> object:
        raw = self._raw.get(variable.name)
        if raw is None:
            return variable.default
        kind = type_names[type(variable.default)]
        try:
            value = _parse(raw, variable.default)
            if variable.is_port and not 0 <= int(raw) <= LARGEST_PORT:
                kind = "port"
                raise ValueError(raw)
            return value
        except ValueError:
            article = "an" if kind == "integer" else "a"
            seen = (
                "(hidden)" if variable.name.endswith("KEY") else repr(raw)
            )  # a key put where only its format is asked for
            self.warnings.append(
                f"{variable.name}={seen} is not {article} {kind}: using the default, {_show(variable.default)}"
            )
            return variable.default

    def raw(self, name: str) -> str | None:
        """The variable as it stands in the environment; None when it is not there."""
        return self._raw.get(name)

    def is_set(self, name: str) -> bool:
        """Whether the variable is there, known by the table or not."""
        return name in self._raw

    def override(self, name: str) -> bool | None:
        """A boolean with a third state: None when the variable is not there; empty and unreadable ones are false."""
        return self._overrides[name]

    def _read_override(self, name: str) -> bool | None:
        raw = self._raw.get(name)
        if not raw:
            return None if raw is None else False
        try:
            return parse_bool(raw)
        except ValueError:
            self.warnings.append(f"{name}={raw!r} is not a boolean: taken for false")
            return False

    def text(self, name: str) -> str:
        value = self._values[name]
        assert isinstance(value, str)
        return value

    def flag(self, name: str) -> bool:
        value = self._values[name]
        assert isinstance(value, bool)
        return value

    def number(self, name: str) -> int:
        value = self._values[name]
        assert isinstance(value, int)
        return value

    def duration(self, name: str) -> Duration:
        value = self._values[name]
        assert isinstance(value, Duration)
        return value

    def with_prefix(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Pairs (rest of the name, raw value) of the variables that start with `prefix`, sorted."""
        for name in sorted(self._raw):
            if name.startswith(prefix) and len(name) > len(prefix):
                yield name[len(prefix) :], self._raw[name]


def _parse(raw: str, default: object) -> object:
    if isinstance(default, bool):
        return parse_bool(raw)
    if isinstance(default, int):
        return parse_integer(raw)
    if isinstance(default, Duration):
        return Duration.parse(raw)
    return raw


def parse_integer(text: str) -> int:
    """A decimal integer of 64 bits as Go reads it: no spaces, no underscores, no other digits. Raises ValueError."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()) or not -_LARGEST - 1 <= int(text) <= _LARGEST:
        raise ValueError(f"{text!r} is not an integer")
    return int(text)


def _show(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
