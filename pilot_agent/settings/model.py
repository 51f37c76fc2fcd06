"""The frozen tree of settings: flags, variables and Istio's ProxyConfig, each value with its source.

Pure data. `sources.py` builds it, `check.py` judges it, everything above reads it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pilot_agent.settings.environment import Environment
from pilot_agent.values import Duration, HostPort


class ProxyConfig:
    """Istio's ProxyConfig as resolved. `values` and `sources` are keyed by the documented camelCase names."""

    def __init__(self, values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
        self.values = dict(values)
        self.sources = dict(sources)

    def is_default(self, name: str) -> bool:
        return self.sources.get(name, "default") == "default"

    @property
    def config_path(self) -> str:
        return str(self.values["configPath"])

    @property
    def binary_path(self) -> str:
        return str(self.values["binaryPath"])

    @property
    def service_cluster(self) -> str:
        return str(self.values["serviceCluster"])

    @property
    def tracing_service_name(self) -> str | None:
        return self.values.get("tracingServiceName")

    @property
    def drain_duration(self) -> Duration:
        return Duration(*self.values["drainDuration"])

    @property
    def termination_drain_duration(self) -> Duration:
        return Duration(*self.values["terminationDrainDuration"])

    @property
    def discovery_addresses(self) -> list[HostPort]:
        """istiod's, the one to ask first in front; one at least. Several, with commas between, are our own idea."""
        return [HostPort.parse(each.strip()) for each in str(self.values["discoveryAddress"]).split(",")]

    @property
    def discovery_address(self) -> HostPort:
        return self.discovery_addresses[0]

    @property
    def admin_port(self) -> int:
        return int(self.values["proxyAdminPort"])

    @property
    def status_port(self) -> int:
        return int(self.values["statusPort"])

    @property
    def uses_mutual_tls(self) -> bool:
        return bool(self.values["controlPlaneAuthPolicy"] == "MUTUAL_TLS")

    @property
    def concurrency(self) -> int | None:
        return self.values.get("concurrency")

    @property
    def interception_mode(self) -> str:
        return str(self.values["interceptionMode"])

    @property
    def template_path(self) -> str:
        return self.values.get("proxyBootstrapTemplatePath") or ""

    @property
    def custom_config_file(self) -> str:
        return self.values.get("customConfigFile") or ""

    @property
    def file_flush_interval(self) -> Duration:
        return Duration(*(self.values.get("fileFlushInterval") or Duration.parse("1s")))

    @property
    def file_flush_min_size_kb(self) -> int:
        return self.values.get("fileFlushMinSizeKb") or 0

    @property
    def stats_compression(self) -> bool:
        return self.values.get("statsCompression") is not False

    @property
    def proxy_metadata(self) -> dict[str, str]:
        return self.values.get("proxyMetadata") or {}

    @property
    def runtime_values(self) -> dict[str, str]:
        return self.values.get("runtimeValues") or {}

    @property
    def extra_stat_tags(self) -> list[str]:
        return self.values.get("extraStatTags") or []

    @property
    def tracing(self) -> dict[str, Any]:
        return self.values.get("tracing") or {}

    @property
    def metrics_service(self) -> dict[str, Any]:
        return self.values.get("envoyMetricsService") or {}

    @property
    def access_log_service(self) -> dict[str, Any]:
        return self.values.get("envoyAccessLogService") or {}

    @property
    def private_key_provider(self) -> dict[str, Any]:
        return self.values.get("privateKeyProvider") or {}

    @property
    def connection_settings(self) -> dict[str, Any]:
        return self.values.get("connectionSettings") or {}

    @property
    def statsd_udp_address(self) -> str:
        return self.values.get("statsdUdpAddress") or ""

    @property
    def stats_matcher(self) -> dict[str, list[str]]:
        return self.values.get("proxyStatsMatcher") or {}


class ProxyFlags(NamedTuple):
    """What the flags of `pilot-agent proxy` said; defaults are the flags' documented ones. Durations as texts."""

    role: str = "sidecar"
    domain: str = ""
    mesh_config: str = "./etc/istio/config/mesh"
    sts_port: int = 0
    token_manager_plugin: str = ""
    service_cluster: str = "istio-proxy"
    proxy_log_level: str = "warning"
    proxy_component_log_level: str = ""
    concurrency: int = 0
    template_file: str = ""
    outlier_log_path: str = ""
    profiling: bool = True
    config_dir: str = ""
    on_envoy_exit: str = "restart"
    max_crashes: int = 10
    crash_window: Duration = Duration(300 * 10**9)
    hung_checks: int = 3
    hung_check_interval: Duration = Duration(5 * 10**9)
    restart_hung_envoy: bool = False
    pre_drain_delay: Duration = Duration(0)
    termination_deadline: Duration = Duration(0)
    subreaper: bool = False
    stock_envoy: str = "auto"
    deep_merge: bool = False
    scrapes_in_flight: int = 64
    ca_dir: str = ""


class MeshSettings(NamedTuple):
    """The fields of MeshConfig that local mode stands in for istiod with; in mesh mode only istiod reads them.

    `access_log_format` "" is Istio's own for the encoding.
    """

    proxy_listen_port: int = 15001
    proxy_inbound_listen_port: int = 15006
    access_log_file: str = ""
    access_log_is_json: bool = False
    access_log_format: Any = ""
    outbound_policy: str = "ALLOW_ANY"
    root_namespace: str = "istio-system"
    has_auto_mtls: bool = True


MESH_FIELDS = {
    "proxy_listen_port": "proxyListenPort",
    "proxy_inbound_listen_port": "proxyInboundListenPort",
    "access_log_file": "accessLogFile",
    "access_log_is_json": "accessLogEncoding",
    "access_log_format": "accessLogFormat",
    "outbound_policy": "outboundTrafficPolicy",
    "root_namespace": "rootNamespace",
    "has_auto_mtls": "enableAutoMtls",
}
"""What the fields of MeshSettings are called in the mesh file."""


class Settings(NamedTuple):
    """Everything the agent was told. `annotations` are the pod's, from the downward API file."""

    flags: ProxyFlags
    environment: Environment
    proxy_config: ProxyConfig
    mesh: MeshSettings
    annotations: Mapping[str, str]
    log_as_json: bool
    warnings: tuple[str, ...]

    @property
    def is_local(self) -> bool:
        """Local mode: configuration from --configDir instead of istiod."""
        return bool(self.flags.config_dir)

    @property
    def has_envoy(self) -> bool:
        """False under DISABLE_ENVOY: the application is in the mesh by gRPC's own xDS client."""
        return not self.environment.flag("DISABLE_ENVOY")

    @property
    def is_sidecar(self) -> bool:
        return self.flags.role == "sidecar"

    @property
    def ends_on_zero_connections(self) -> bool:
        """On request in a mesh; always on a laptop, where Ctrl-C should not wait for nobody."""
        environment = self.environment
        if self.is_local and not environment.is_set("EXIT_ON_ZERO_ACTIVE_CONNECTIONS"):
            return True
        return environment.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS")

    @property
    def minimum_drain(self) -> Duration:
        environment = self.environment
        if self.is_local and not environment.is_set("MINIMUM_DRAIN_DURATION"):
            return Duration(0)
        return environment.duration("MINIMUM_DRAIN_DURATION")

    @property
    def domain(self) -> str:
        """The node's DNS domain, 4th part of its id."""
        return self.flags.domain or f"{self.environment.text('POD_NAMESPACE')}.svc.cluster.local"
