"""Every environment variable the agent reads, in one table, and a typed view of the values.

Nothing else reads the environment. A value that can't be parsed is a warning and the default is used, as Istio does;
an empty text counts as set. The table is also what the documentation of variables is made from.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pilot_agent.values import Duration, parse_bool

type_names = {str: "text", bool: "boolean", int: "integer", Duration: "duration"}


class Variable(NamedTuple):
    """One variable: `default` also fixes its type (str, bool, int or Duration)."""

    name: str
    default: str | bool | int | Duration
    effect: str


VARIABLES = (
    Variable("INSTANCE_IP", "", "the pod's address: first of the node's addresses"),
    Variable("POD_NAME", "", "pod name: node id and metadata NAME"),
    Variable("POD_NAMESPACE", "", "namespace: node id, DNS domain and metadata NAMESPACE"),
    Variable("SERVICE_ACCOUNT", "", "metadata SERVICE_ACCOUNT"),
    Variable("PROXY_CONFIG", "", "a ProxyConfig as YAML or JSON, above the mesh file, below the pod annotation"),
    Variable("ISTIO_CPU_LIMIT", 0, "worker threads when ProxyConfig sets no concurrency"),
    Variable("ISTIO_BOOTSTRAP", "", "path of a Jinja2 bootstrap template, above every other template setting"),
    Variable("ENVOY_STATUS_PORT", 15021, "port of Envoy's readiness listener"),
    Variable("ENVOY_PROMETHEUS_PORT", 15090, "port of Envoy's own metrics listener"),
    Variable("ENVOY_SECURE_METRICS_PORT", 0, "node metadata; the listener itself needs the agent's certificates"),
    Variable(
        "ENVOY_SECURE_MERGED_METRICS_PORT", 0, "node metadata; the listener itself needs the agent's certificates"
    ),
    Variable("ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL", False, "accept the PROXY protocol on the readiness listener"),
    Variable("ISTIO_DELTA_XDS", True, "incremental xDS instead of state of the world"),
    Variable("ISTIO_DUAL_STACK", False, "listen on both address families"),
    Variable(
        "HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED", True, "false keeps the fragment of a request path (unsafe)"
    ),
    Variable("COMPLIANCE_POLICY", "", "fips-140-2 keeps gRPC from TLS 1.3"),
    Variable("WORKLOAD_IDENTITY_SOCKET_FILE", "socket", "file name of the workload SDS socket"),
    Variable("ISTIO_ENVOY_ENABLE_CORE_DUMP", False, "let Envoy dump core"),
    Variable("ENVOY_SKIP_DEPRECATED_LOGS", True, "no warnings of Envoy about deprecated fields"),
    Variable("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", False, "end the drain as soon as no connection is left"),
    Variable("MINIMUM_DRAIN_DURATION", Duration.parse("5s"), "how long a drain that ends on zero connections lasts"),
    Variable("ISTIO_PROMETHEUS_ANNOTATIONS", "", "JSON: the application's metrics to merge"),
    Variable("PILOT_AGENT_MERGE_ENVOY_STATS", True, "put Envoy's metrics into the merged ones"),
    Variable("METRICS_LOCALHOST_ACCESS_ONLY", False, "serve the merged metrics to loopback only"),
    Variable("DNS_PROXY_ADDR", "localhost:15053", "address of the DNS proxy; metadata DNS_PROXY_ADDR"),
)


class Environment:
    """The variables' values, typed: `text`, `flag`, `number`, `duration` by name."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.warnings: list[str] = []
        self._values: dict[str, object] = {}
        self._raw = dict(variables)
        for variable in VARIABLES:
            self._values[variable.name] = self._read(variable)

    def _read(self, variable: Variable) -> object:
        raw = self._raw.get(variable.name)
        if raw is None:
            return variable.default
        try:
            return _parse(raw, variable.default)
        except ValueError:
            kind = type_names[type(variable.default)]
            self.warnings.append(
                f"{variable.name}={raw!r} is not a {kind}: using the default, {_show(variable.default)}"
            )
            return variable.default

    def is_set(self, name: str) -> bool:
        return name in self._raw

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
        return int(raw)
    if isinstance(default, Duration):
        return Duration.parse(raw)
    return raw


def _show(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
