"""Settings that do nothing, or not what their author expects: warnings, each with what to do.

Nothing here may fire for what an unmodified injector does: it puts the merged ProxyConfig into PROXY_CONFIG, every
entry of proxyMetadata also into the container's variables, and its usual variables beside them.
"""

from collections.abc import Iterator

from pilot_agent.settings.environment import Environment
from pilot_agent.settings.model import ProxyConfig, ProxyFlags
from pilot_agent.settings.schema import PROXY_CONFIG_FIELDS
from pilot_agent.values import TRUE_WORDS

DNS_CAPTURE, DNS_SERVER = "ISTIO_META_DNS_CAPTURE", "ISTIO_META_ENABLE_DNS_SERVER"
CONNECTION_LIMIT = "ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS"
METRICS_ACCESS = "METRICS_LOCALHOST_ACCESS_ONLY"


def advice(flags: ProxyFlags, environment: Environment, config: ProxyConfig) -> list[str]:
    return [*_flags(flags, config), *_fields(config), *_mix_ups(environment, config)]


def _flags(flags: ProxyFlags, config: ProxyConfig) -> Iterator[str]:
    if flags.sts_port:
        yield "--stsPort only becomes node metadata: there is no STS server any more"
    if flags.token_manager_plugin:
        yield "--tokenManagerPlugin has no effect"
    source = config.sources.get("serviceCluster", "default")
    if flags.service_cluster != ProxyFlags().service_cluster and source != "flag --serviceCluster":
        used = config.service_cluster or "tracingServiceName"
        yield (
            f"--serviceCluster={flags.service_cluster} has no effect, {used} is used (from {source}): "
            "set serviceCluster in the proxy configuration"
        )


def _fields(config: ProxyConfig) -> Iterator[str]:
    values = config.values
    if values.get("zipkinAddress"):
        yield "zipkinAddress is deprecated and has no effect: set tracing.zipkin.address"
    if values["statNameLength"] != PROXY_CONFIG_FIELDS["statNameLength"].default:
        yield "statNameLength has no effect"
    for name in ("openCensusAgent", "stackdriver"):
        if name in config.tracing:
            yield f"tracing.{name} does not get into the bootstrap: use istiod's Telemetry resources instead"
    if "ISTIO_META_DNS_AUTO_ALLOCATE" in config.proxy_metadata:
        yield "proxyMetadata.ISTIO_META_DNS_AUTO_ALLOCATE is deprecated: istiod allocates addresses by itself"


def _mix_ups(environment: Environment, config: ProxyConfig) -> Iterator[str]:
    metadata = config.proxy_metadata
    if environment.text("XDS_AUTH_PROVIDER"):
        yield "XDS_AUTH_PROVIDER has no effect"
    if metadata.get(DNS_CAPTURE) in TRUE_WORDS and not environment.is_set(DNS_CAPTURE):
        yield (f"proxyMetadata.{DNS_CAPTURE} alone starts no DNS proxy: set it as a variable of the container too")
    for name in (DNS_CAPTURE, DNS_SERVER):
        if environment.raw(name) in TRUE_WORDS:
            yield (
                f"{name}: istiod's name table is taken and shown at /debug/ndsz, but this version has no DNS proxy: "
                "captured queries get no answer"
            )
    if environment.is_set(CONNECTION_LIMIT) and CONNECTION_LIMIT not in metadata:
        yield (
            f"the variable {CONNECTION_LIMIT} limits nothing: set connectionSettings.globalDownstreamConnectionLimit, "
            "or put it into proxyMetadata"
        )
    in_environment, in_metadata = environment.flag(METRICS_ACCESS), metadata.get(METRICS_ACCESS) == "true"
    if in_environment and not in_metadata:
        yield (
            f"the variable {METRICS_ACCESS} closes the agent's /stats/prometheus only, Envoy's own metrics port stays "
            'open: put it into proxyMetadata too, as "true"'
        )
    if in_metadata and not in_environment:
        yield (
            f"proxyMetadata.{METRICS_ACCESS} closes Envoy's own metrics port only, the agent's /stats/prometheus stays "
            "open: set it as a variable of the container too"
        )
