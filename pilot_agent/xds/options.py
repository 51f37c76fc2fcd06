"""How the proxy calls istiod, decided from the settings (reference security-xds.md, section 5.2). Pure but for a look
whether a root file is there, which is Istio's own rule.
"""

from pathlib import Path
from typing import NamedTuple

from pilot_agent.errors import SettingsError
from pilot_agent.identity.options import ROOT_NAME, SYSTEM, Files, header, server_name
from pilot_agent.settings.environment import Environment
from pilot_agent.settings.model import Settings
from pilot_agent.settings.paths import CA_ROOT_FILE, LEGACY_CERTS_DIRECTORY
from pilot_agent.values import TRUE_WORDS, HostPort

SHORTEST_S = 0.001
DEFAULT_TIMEOUT_S = 20.0
"""Of an answer to a ping, as gRPC's."""


class IstiodOptions(NamedTuple):
    """One istiod, as `identity.channel.Server` has it."""

    address: HostPort
    is_plaintext: bool
    server_name: str
    root: Path | None
    client: Files | None
    cluster_id: str
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"IstiodOptions({self.address})"  # a header may be a credential

    @property
    def what(self) -> str:
        return "istiod"


class XdsOptions(NamedTuple):
    """`istiods` are tried in order. Times in seconds, sizes in bytes. `takes_proxy_config`: PROXY_CONFIG_XDS_AGENT.

    `takes_names`: a DNS proxy is wanted, which answers from istiod's name table.
    """

    istiods: tuple[IstiodOptions, ...]
    keepalive_interval_s: float
    keepalive_timeout_s: float
    largest_request: int
    most_streams: int
    takes_proxy_config: bool
    takes_names: bool = False

    @property
    def keepalive(self) -> tuple[float | None, float]:
        """Interval and timeout in seconds. As with gRPC for Go an interval of 0 means none, a timeout of 0 20 s."""
        interval, timeout = self.keepalive_interval_s, self.keepalive_timeout_s
        return (
            max(SHORTEST_S, interval) if interval > 0 else None,
            max(SHORTEST_S, timeout) if timeout > 0 else DEFAULT_TIMEOUT_S,
        )

    @property
    def roots(self) -> list[Path]:
        """Files whose change a new stream takes up."""
        return list(dict.fromkeys(each.root for each in self.istiods if each.root is not None))


def work_out_xds(settings: Settings) -> XdsOptions:
    """Raises SettingsError with one line for what keeps istiod from ever being called."""
    environment = settings.environment
    is_plaintext = settings.proxy_config.values.get("controlPlaneAuthPolicy") == "NONE"
    root = None if is_plaintext else _root(settings)
    client = None if is_plaintext else _client(settings)
    cluster = header("ISTIO_META_CLUSTER_ID", "clusterid", environment.raw("ISTIO_META_CLUSTER_ID") or "")[1]
    headers = tuple(
        header(f"XDS_HEADER_{name}", name.lower(), value) for name, value in environment.with_prefix("XDS_HEADER_")
    )
    return XdsOptions(
        istiods=tuple(
            IstiodOptions(
                address,
                is_plaintext,
                server_name(environment, address, is_istiod=True),
                root,
                client,
                cluster,
                headers,
            )
            for address in settings.proxy_config.discovery_addresses
        ),
        keepalive_interval_s=environment.duration("GRPC_KEEPALIVE_INTERVAL").seconds,
        keepalive_timeout_s=environment.duration("GRPC_KEEPALIVE_TIMEOUT").seconds,
        largest_request=environment.number("ISTIO_GPRC_MAXRECVMSGSIZE"),
        most_streams=environment.number("ISTIO_GPRC_MAXSTREAMS"),
        takes_proxy_config=environment.flag("PROXY_CONFIG_XDS_AGENT"),
        takes_names=_wants_names(settings),
    )


def _wants_names(settings: Settings) -> bool:
    """As Istio's agent decides whether its DNS proxy runs: by the container's variables, not by proxyMetadata."""
    captures, serves = (
        (settings.environment.raw(name) or "") in TRUE_WORDS
        for name in ("ISTIO_META_DNS_CAPTURE", "ISTIO_META_ENABLE_DNS_SERVER")
    )
    return (captures and settings.is_sidecar) or serves


def _root(settings: Settings) -> Path | None:
    """None is the system's. Other than Istio's agent we end with the config map's root: its trap of section 3.10."""
    environment = settings.environment
    own = environment.text("XDS_ROOT_CA")
    if own:
        return None if own == SYSTEM else Path(own).absolute()
    mounted = Path(LEGACY_CERTS_DIRECTORY).absolute() / ROOT_NAME
    if mounted.exists() and not _is_own_output(environment, mounted):
        return mounted
    if environment.text("PROV_CERT"):
        return Path(environment.text("PROV_CERT")).absolute() / ROOT_NAME
    named = settings.proxy_config.proxy_metadata.get("ISTIO_META_TLS_CLIENT_ROOT_CERT")
    if environment.flag("FILE_MOUNTED_CERTS") and named:
        return Path(named).absolute()
    if environment.text("PILOT_CERT_PROVIDER") == "none":
        raise SettingsError(
            "PILOT_CERT_PROVIDER=none gives no root certificate for istiod: set XDS_ROOT_CA to a file, or to SYSTEM"
        )
    return Path(CA_ROOT_FILE).absolute()


def _is_own_output(environment: Environment, mounted: Path) -> bool:
    """Roots that the agent wrote itself verify istiod by chance only."""
    output = environment.text("OUTPUT_CERTS")
    return bool(output) and Path(output).absolute() == mounted.parent


def _client(settings: Settings) -> Files | None:
    environment, metadata = settings.environment, settings.proxy_config.proxy_metadata
    own = environment.text("PROV_CERT")
    if own:
        return Files.of_directory(Path(own).absolute())
    chain, key = (metadata.get(f"ISTIO_META_TLS_CLIENT_{name}") for name in ("CERT_CHAIN", "KEY"))
    if environment.flag("FILE_MOUNTED_CERTS") and chain and key:
        return Files(chain=Path(chain).absolute(), key=Path(key).absolute())
    return None
