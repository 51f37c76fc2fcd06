"""What Envoy itself calls: the tracer, the metrics service, the access-log service, with their TLS and keepalive.

In a mesh their certificates come over SDS from the agent; in local mode there is no SDS, and Envoy reads the files.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pilot_agent.errors import SettingsError
from pilot_agent.node.metadata import Node
from pilot_agent.settings.model import Settings
from pilot_agent.values import HostPort

HOST_IP = "$(HOST_IP)"
TRACERS = ("zipkin", "lightstep", "datadog")
ISTIO_ALPN = ["istio", "h2"]


class Tls(NamedTuple):
    """An UpstreamTlsContext in the words of the template. None or empty: not there.

    `certificate` and `validation` are SDS names in a mesh; `chain`, `key` and `root` are files in local mode.
    """

    sni: str
    alpn: list[str]
    sans: list[str]
    certificate: str | None = None
    validation: str | None = None
    is_istio: bool = False
    chain: str | None = None
    key: str | None = None
    root: str | None = None


class Service(NamedTuple):
    """One upstream: `keepalive` has the fields of Envoy's TcpKeepalive that are above 0."""

    address: dict[str, Any]
    tls: dict[str, Any] | None
    keepalive: dict[str, int]


class Upstreams:
    """Reads them from ProxyConfig; what can't work but is no error goes into `warnings`."""

    def __init__(self, settings: Settings, node: Node, warnings: list[str]) -> None:
        self._settings, self._node, self._warnings = settings, node, warnings
        self._values = settings.proxy_config.values

    def tracer(self) -> tuple[str, dict[str, Any]] | None:
        """The tracer that belongs into a bootstrap, and its address; OpenTelemetry and SkyWalking come over xDS."""
        message = self._values.get("tracing") or {}
        for name in TRACERS:
            if name in message:
                text = message[name].get("address", "")
                return (name, self.address(text, f"tracing.{name}.address")) if text else None
        return None

    def tracing_tls(self, tracer_name: str) -> dict[str, Any] | None:
        message = (self._values.get("tracing") or {}).get("tlsSettings") or {}
        tls = self._tls(message, "tracer", "tracing")
        if tls is not None and tracer_name != "lightstep":
            tls = tls._replace(alpn=[])  # zipkin and datadog are called over HTTP/1.1
        return _shown(tls)

    def statsd(self) -> dict[str, Any] | None:
        text = self._values.get("statsdUdpAddress")
        return self.address(text, "statsdUdpAddress") if text else None

    def service(self, field: str, name: str) -> Service | None:
        """The service of ProxyConfig's `field`, called `name` in the bootstrap; None where it has no address."""
        message = self._values.get(field) or {}
        text = message.get("address", "")
        if not text:
            return None
        where = self.address(text, f"{field}.address")
        tls = self._tls(message.get("tlsSettings") or {}, name, field)
        return Service(where, _shown(tls), keepalive(message.get("tcpKeepalive") or {}))

    def address(self, text: str, field: str) -> dict[str, Any]:
        """`host:port` as {"host", "port"}, HOST_IP put in. Raises SettingsError naming the field."""
        try:
            parsed = HostPort.parse(text)
        except ValueError as error:
            raise SettingsError(f"{field}: {error}") from None
        host = parsed.host
        if host == HOST_IP:
            host = self._settings.environment.text("HOST_IP").strip("[]") or HOST_IP
            if host == HOST_IP:
                self._warnings.append(f"{field}: {text} needs the variable HOST_IP, which is not set")
        return {"host": host, "port": parsed.port}

    def _tls(self, message: Mapping[str, Any], name: str, field: str) -> Tls | None:
        """ClientTLSSettings as a Tls; None for DISABLE. Raises SettingsError for ISTIO_MUTUAL without a mesh."""
        mode = message.get("mode", "DISABLE")
        if mode == "DISABLE":
            return None
        sans = message.get("subjectAltNames", [])
        if mode == "ISTIO_MUTUAL":
            if self._settings.is_local:
                raise SettingsError(
                    f"{field}.tlsSettings.mode: ISTIO_MUTUAL needs the mesh's certificates, which local mode does not "
                    "have: use MUTUAL, with files"
                )
            return Tls(message.get("sni") or name, ISTIO_ALPN, sans, "default", "ROOTCA", is_istio=True)
        metadata = self._node.metadata
        root = metadata.get("TLS_CLIENT_ROOT_CERT") or message.get("caCertificates")
        chain = key = None
        if mode == "MUTUAL":
            chain = metadata.get("TLS_CLIENT_CERT_CHAIN") or message.get("clientCertificate")
            key = metadata.get("TLS_CLIENT_KEY") or message.get("privateKey")
        if not root:
            self._warnings.append(
                f"{field}.tlsSettings: without caCertificates the server's certificate is not verified"
            )
            sans = []  # Envoy refuses to compare names in a certificate that nobody vouches for
        tls = Tls(message.get("sni", ""), ["h2"], sans)
        if self._settings.is_local:
            return tls._replace(chain=chain, key=key, root=root)
        return tls._replace(
            certificate=f"file-cert:{chain}~{key}" if chain else None, validation=f"file-root:{root}" if root else None
        )


def keepalive(message: Mapping[str, Any]) -> dict[str, int]:
    """Fields of Envoy's TcpKeepalive, times in whole seconds; zeros mean the system's own and are left out."""
    found = {
        "keepalive_probes": message.get("probes") or 0,
        "keepalive_time": _seconds(message.get("time")),
        "keepalive_interval": _seconds(message.get("interval")),
    }
    return {name: value for name, value in found.items() if value > 0}


def _seconds(duration: Any) -> int:
    return int(duration.seconds) if duration is not None else 0


def _shown(tls: Tls | None) -> dict[str, Any] | None:
    return tls._asdict() if tls is not None else None
