"""Istio's ProxyConfig as tables: each field's name, type, bounds, default and effect; the same for nested messages.

Source: Istio's API (mesh/v1alpha1/proxy.proto, networking ClientTLSSettings) as the reference lists it. `mesh.py` reads
documents by these tables, `check.py` judges values, `proto_json.py` writes them, and the documentation shows them.
"""

from typing import Any, NamedTuple

from pilot_agent.values import Duration

INT32 = (-(2**31), 2**31 - 1)
UINT32 = (0, 2**32 - 1)


class Field(NamedTuple):
    """One field. `kind` says how a document's value is read and what it becomes; None or absent means unset.

    Kinds: text, integer, number, boolean, duration, enum (by `choices`, the first is its zero), list (of texts), map
    (text to text), message (of `MESSAGES[message]`), messages (a map of them), free (kept as it is). A wrapper, or
    another field that knows whether it is set, is written even when zero.
    """

    name: str
    kind: str
    default: Any = None
    effect: str = ""
    choices: tuple[str, ...] = ()
    message: str = ""
    bounds: tuple[int, int] = INT32
    is_wrapper: bool = False
    is_64_bit: bool = False


def _texts(*names: str) -> tuple[Field, ...]:
    return tuple(Field(name, "text") for name in names)


def _switches(*names: str) -> tuple[Field, ...]:
    """Booleans that may be unset."""
    return tuple(Field(name, "boolean", is_wrapper=True) for name in names)


def _numbers(*names: str) -> tuple[Field, ...]:
    """Integers that may be unset."""
    return tuple(Field(name, "integer", is_wrapper=True) for name in names)


def _durations(*names: str) -> tuple[Field, ...]:
    return tuple(Field(name, "duration") for name in names)


TRACING_SERVICE_NAMES = ("APP_LABEL_AND_NAMESPACE", "CANONICAL_NAME_ONLY", "CANONICAL_NAME_AND_NAMESPACE")
INTERCEPTION_MODES = ("REDIRECT", "TPROXY", "NONE")
AUTH_POLICIES = ("NONE", "MUTUAL_TLS")
TLS_MODES = ("DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL")
FORWARD_CERT = (
    "UNDEFINED",
    "SANITIZE",
    "FORWARD_ONLY",
    "APPEND_FORWARD",
    "SANITIZE_SET",
    "ALWAYS_FORWARD_ONLY",
)
TRACE_CONTEXTS = ("UNSPECIFIED", "W3C_TRACE_CONTEXT", "GRPC_BIN", "CLOUD_TRACE_CONTEXT", "B3")

_PRIVATE_KEY_METHOD = (Field("pollDelay", "duration"), *_switches("fallback"))
_REMOTE_SERVICE = (
    Field("address", "text"),
    Field("tlsSettings", "message", message="ClientTLSSettings"),
    Field("tcpKeepalive", "message", message="TcpKeepalive"),
)
_STACKDRIVER_LIMITS = ("maxNumberOfAttributes", "maxNumberOfAnnotations", "maxNumberOfMessageEvents")

MESSAGES: dict[str, tuple[Field, ...]] = {
    "Tracing": (
        Field("zipkin", "message", message="Zipkin"),
        Field("lightstep", "message", message="Lightstep"),
        Field("datadog", "message", message="Datadog"),
        Field("stackdriver", "message", message="Stackdriver"),
        Field("openCensusAgent", "message", message="OpenCensusAgent"),
        Field("customTags", "messages", message="CustomTag"),
        Field("maxPathTagLength", "integer", bounds=UINT32),
        Field("sampling", "number"),
        Field("tlsSettings", "message", message="ClientTLSSettings"),
        *_switches("enableIstioTags"),
    ),
    "Zipkin": _texts("address"),
    "Lightstep": _texts("address", "accessToken"),
    "Datadog": _texts("address"),
    "Stackdriver": (
        Field("debug", "boolean"),
        *(
            Field(name, "integer", bounds=(-(2**63), 2**63 - 1), is_wrapper=True, is_64_bit=True)
            for name in _STACKDRIVER_LIMITS
        ),
    ),
    "OpenCensusAgent": (Field("address", "text"), Field("context", "list", choices=TRACE_CONTEXTS)),
    "CustomTag": (
        Field("literal", "message", message="Literal"),
        Field("environment", "message", message="Lookup"),
        Field("header", "message", message="Lookup"),
        Field("formatter", "message", message="Literal"),
    ),
    "Literal": _texts("value"),
    "Lookup": _texts("name", "defaultValue"),
    "ClientTLSSettings": (
        Field("mode", "enum", choices=TLS_MODES),
        *_texts("clientCertificate", "privateKey", "caCertificates", "credentialName"),
        Field("subjectAltNames", "list"),
        Field("sni", "text"),
        *_switches("insecureSkipVerify"),
        Field("caCrl", "text"),
    ),
    "TcpKeepalive": (Field("probes", "integer", bounds=UINT32), *_durations("time", "interval")),
    "RemoteService": _REMOTE_SERVICE,
    "Topology": (
        Field("numTrustedProxies", "integer", bounds=UINT32),
        Field("forwardClientCertDetails", "enum", choices=FORWARD_CERT),
        Field("proxyProtocol", "message", message="Empty"),
    ),
    "Empty": (),
    "ProxyStatsMatcher": tuple(
        Field(name, "list") for name in ("inclusionPrefixes", "inclusionSuffixes", "inclusionRegexps")
    ),
    "ProxyImage": _texts("imageType"),
    "PrivateKeyProvider": (
        Field("cryptomb", "message", message="PrivateKeyMethod"),
        Field("qat", "message", message="PrivateKeyMethod"),
    ),
    "PrivateKeyMethod": _PRIVATE_KEY_METHOD,
    "ProxyHeaders": (
        Field("forwardedClientCert", "enum", choices=FORWARD_CERT),
        Field("setCurrentClientCertDetails", "message", message="CurrentClientCertDetails"),
        *(
            Field(name, "message", message="DisabledHeader")
            for name in ("requestId", "attemptCount", "envoyDebugHeaders")
        ),
        Field("server", "message", message="ServerHeader"),
        Field("metadataExchangeHeaders", "message", message="MetadataExchangeHeaders"),
        *_switches("preserveHttp1HeaderCase"),
    ),
    "CurrentClientCertDetails": _switches("subject", "cert", "chain", "dns", "uri"),
    "DisabledHeader": _switches("disabled"),
    "ServerHeader": (*_switches("disabled"), Field("value", "text")),
    "MetadataExchangeHeaders": (Field("mode", "enum", choices=("UNDEFINED", "IN_MESH")),),
    "ConnectionSettings": (
        # The names of some enums' values are not known to us: they are kept as they are, for istiod to judge.
        *_texts("profile", "httpHeadersWithUnderscoresAction", "httpPathWithEscapedSlashesAction"),
        *_numbers(
            "globalDownstreamConnectionLimit",
            "listenerPerConnectionBufferLimitBytes",
            "clusterPerConnectionBufferLimitBytes",
            "httpMaxConcurrentStreams",
            "http2InitialStreamWindowSize",
            "http2InitialConnectionWindowSize",
        ),
        *_durations("httpIdleTimeout", "httpRequestTimeout", "httpStreamIdleTimeout", "httpRequestHeadersTimeout"),
        *_switches("httpMergeSlashes"),
    ),
}

ONE_OFS: dict[str, tuple[tuple[str, ...], ...]] = {
    "Tracing": (("zipkin", "lightstep", "datadog", "stackdriver", "openCensusAgent"),),
    "CustomTag": (("literal", "environment", "header", "formatter"),),
    "PrivateKeyProvider": (("cryptomb", "qat"),),
}
"""Of each group one field at most is set; the last one of a document counts."""


def _message(name: str, message: str, effect: str) -> Field:
    return Field(name, "message", None, effect, message=message)


PROXY_CONFIG_FIELDS = {
    field.name: field
    for field in (
        Field("configPath", "text", "./etc/istio/proxy", "directory the agent writes into and Envoy reads"),
        Field("binaryPath", "text", "/usr/local/bin/envoy", "Envoy's binary; where set, no other is tried"),
        Field("serviceCluster", "text", "istio-proxy", "node.cluster, with Istio's fallbacks"),
        Field(
            "tracingServiceName", "enum", None, "another rule for node.cluster", TRACING_SERVICE_NAMES, is_wrapper=True
        ),
        Field("drainDuration", "duration", Duration.parse("45s"), "Envoy's drain time; whole seconds"),
        Field("terminationDrainDuration", "duration", Duration.parse("5s"), "deadline of the shutdown"),
        Field("discoveryAddress", "text", "istiod.istio-system.svc:15012", "istiod; node metadata PILOT_SAN"),
        Field("statsdUdpAddress", "text", None, "a stats sink; a name is looked up at the start"),
        Field("zipkinAddress", "text", None, "deprecated and ignored: set tracing.zipkin.address"),
        Field("proxyAdminPort", "integer", 15000, "Envoy's admin port"),
        Field("controlPlaneAuthPolicy", "enum", "MUTUAL_TLS", "NONE leaves out metadata PILOT_SAN", AUTH_POLICIES),
        Field("customConfigFile", "text", None, "used as Envoy's bootstrap as it is"),
        Field("statNameLength", "integer", 189, "without effect, as in Istio's agent"),
        Field("concurrency", "integer", None, "Envoy's worker threads; 0 means one a CPU", is_wrapper=True),
        Field("proxyBootstrapTemplatePath", "text", None, "a bootstrap template of your own"),
        Field(
            "interceptionMode",
            "enum",
            "REDIRECT",
            "node metadata; in local mode NONE opens service ports on loopback",
            INTERCEPTION_MODES,
        ),
        _message("tracing", "Tracing", "the tracer in the bootstrap, and what istiod makes of the rest"),
        _message("envoyAccessLogService", "RemoteService", "cluster envoy_accesslog_service"),
        _message("envoyMetricsService", "RemoteService", "cluster envoy_metrics_service and a stats sink"),
        Field("proxyMetadata", "map", None, "node metadata; METRICS_LOCALHOST_ACCESS_ONLY; connection limit"),
        Field("runtimeValues", "map", None, "static runtime layer; connection limit"),
        Field("statusPort", "integer", 15020, "the agent's port"),
        Field("extraStatTags", "list", None, "stats tags"),
        _message("gatewayTopology", "Topology", "for istiod"),
        Field("availabilityZone", "text", None, "for istiod"),
        Field("meshId", "text", None, "for istiod"),
        Field("readinessProbe", "free", None, "node metadata in this version"),
        _message("proxyStatsMatcher", "ProxyStatsMatcher", "stats inclusion list"),
        Field("holdApplicationUntilProxyStarts", "boolean", None, "for the injector", is_wrapper=True),
        Field("caCertificatesPem", "list", None, "for istiod"),
        _message("image", "ProxyImage", "for the injector"),
        _message(
            "privateKeyProvider",
            "PrivateKeyProvider",
            "how Envoy uses the workload's key: cryptomb or qat (contrib builds of Envoy)",
        ),
        _message("proxyHeaders", "ProxyHeaders", "for istiod"),
        _message(
            "connectionSettings", "ConnectionSettings", "globalDownstreamConnectionLimit here; the rest for istiod"
        ),
        Field("fileFlushInterval", "duration", None, "Envoy's argument --file-flush-interval-msec (1s)"),
        Field("fileFlushMinSizeKb", "integer", None, "Envoy's argument --file-flush-min-size-kb", bounds=UINT32),
        Field("statsCompression", "boolean", None, "compression on 15090 (true)", is_wrapper=True),
    )
}
