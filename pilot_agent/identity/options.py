"""How this workload gets its identity, decided once from the settings: whose CA, which files, what kind of key.

Pure: it opens nothing. The rules are Istio's (reference security-xds.md, sections 1, 3 and 4), the fallacies of its
section 14 left out. `secrets` does it, `ca` talks to the CA.
"""

import re
from pathlib import Path
from typing import NamedTuple

from pilot_agent.errors import SettingsError
from pilot_agent.identity.keys import KeySpec
from pilot_agent.settings.environment import Environment
from pilot_agent.settings.model import Settings
from pilot_agent.settings.paths import (
    CA_ROOT_FILE,
    CRL_FILE,
    LEGACY_CERTS_DIRECTORY,
    TOKEN_FILE,
    WORKLOAD_CERTS_DIRECTORY,
)
from pilot_agent.values import Duration, HostPort

PLAINTEXT_PORT = 15010
"""istiod's port without TLS: whoever names it asks for plaintext; nothing else does (reference, section 4)."""

SYSTEM = "SYSTEM"
ISTIOD_NAME = "istiod.istio-system.svc"
LEAST_RSA_BITS = 2048
LARGEST_RSA_BITS = 16384

_HEADER_NAME = re.compile(r"[a-z0-9_.-]+")

KEY_NAME, CHAIN_NAME, ROOT_NAME = "key.pem", "cert-chain.pem", "root-cert.pem"


class Files(NamedTuple):
    """Files that belong together; a set may have no pair, or no root. The directories need not exist."""

    chain: Path | None = None
    key: Path | None = None
    root: Path | None = None

    @classmethod
    def of_directory(cls, directory: Path) -> "Files":
        return cls(directory / CHAIN_NAME, directory / KEY_NAME, directory / ROOT_NAME)

    @property
    def all(self) -> list[Path]:
        return [each for each in self if each is not None]


class CaOptions(NamedTuple):
    """The CA over the network. `root` None: the system's. `client` is the mTLS identity of a virtual machine."""

    address: HostPort
    is_plaintext: bool
    server_name: str
    root: Path | None
    client: Files | None
    cluster_id: str
    cert_signer: str
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"CaOptions({self.address})"  # a header may be a credential

    @property
    def what(self) -> str:
        return "the CA"


class Renewal(NamedTuple):
    """When a certificate is renewed: `ratio` of its lifetime before its end, plus or minus at most `jitter`."""

    ttl_s: int = 24 * 3600
    ratio: float = 0.5
    jitter: float = 0.01


class IdentityOptions(NamedTuple):
    """All of it. Without `ca` and `local_ca` there is no CA, and certificates come from files only.

    `is_files_only`: somebody else (SPIRE) serves the workload's identity, we serve files. `is_mounted`:
    the directory for a workload's certificates has them. `provider` is privateKeyProvider: name, poll delay in ns,
    fallback.
    """

    spiffe_id: str
    trust_domain: str
    key: KeySpec
    renewal: Renewal
    certs: Files
    crl: Path | None
    ca: CaOptions | None
    local_ca: Path | None
    token: Path
    fetcher: str
    output: Path | None
    output_mode: int
    debounce_s: float
    is_files_only: bool
    is_mounted: bool
    provider: tuple[str, int, bool] | None
    warnings: tuple[str, ...]

    @property
    def has_ca(self) -> bool:
        return self.ca is not None or self.local_ca is not None

    @property
    def is_workload_ours(self) -> bool:
        """Whether this proxy is of no use without `default` and `ROOTCA`."""
        return self.has_ca or self.is_mounted


def _workload_directory() -> Path:
    return Path(WORKLOAD_CERTS_DIRECTORY).absolute()


def work_out_identity(settings: Settings, *, has_workload_sds: bool = False) -> IdentityOptions:
    """Raises SettingsError with one line for what keeps the workload from ever having an identity."""
    environment = settings.environment
    warnings: list[str] = []
    is_file_mounted = environment.flag("FILE_MOUNTED_CERTS")
    if is_file_mounted and environment.text("PROV_CERT"):
        raise SettingsError("FILE_MOUNTED_CERTS and PROV_CERT exclude each other: unset one of them")
    fetcher = environment.text("CREDENTIAL_FETCHER_TYPE") or "JWT"
    if fetcher not in ("JWT", "GoogleComputeEngine", "Mock"):
        raise SettingsError(f"CREDENTIAL_FETCHER_TYPE: {fetcher!r} is not known: use JWT, GoogleComputeEngine or Mock")
    certs, is_mounted = _certificate_files(environment, has_workload_sds)
    local_ca = Path(settings.flags.ca_dir).absolute() if settings.flags.ca_dir else None
    has_ca = not (settings.is_local or is_file_mounted or is_mounted or has_workload_sds)
    output = environment.text("OUTPUT_CERTS")
    return IdentityOptions(
        spiffe_id=spiffe_id(settings),
        trust_domain=environment.text("TRUST_DOMAIN"),
        key=key_spec(environment),
        renewal=_renewal(environment),
        certs=certs,
        crl=Path(CRL_FILE) if environment.flag("PILOT_ENABLE_CA_CRL") else None,
        ca=_ca(settings, warnings) if has_ca else None,
        local_ca=local_ca,
        token=Path(TOKEN_FILE).absolute(),
        fetcher=fetcher,
        output=Path(output).absolute() if output else None,
        output_mode=0o644 if environment.text("KUBERNETES_SERVICE_HOST") else 0o600,
        debounce_s=environment.duration("FILE_DEBOUNCE_DURATION").seconds,
        is_files_only=has_workload_sds,
        is_mounted=is_mounted,
        provider=_provider(settings),
        warnings=tuple(warnings),
    )


def spiffe_id(settings: Settings) -> str:
    """In local mode namespace and service account default to what Kubernetes calls `default`."""
    environment = settings.environment
    namespace, account = environment.text("POD_NAMESPACE"), environment.text("SERVICE_ACCOUNT")
    if settings.is_local:
        namespace, account = namespace or "default", account or "default"
    return f"spiffe://{environment.text('TRUST_DOMAIN')}/ns/{namespace}/sa/{account}"


def key_spec(environment: Environment) -> KeySpec:
    """Raises SettingsError for a kind of key there is not."""
    algorithm, bits = environment.text("ECC_SIGNATURE_ALGORITHM"), environment.number("WORKLOAD_RSA_KEY_SIZE")
    if algorithm not in ("", "ECDSA"):
        raise SettingsError(f"ECC_SIGNATURE_ALGORITHM: {algorithm!r} is not known: use ECDSA, or nothing for RSA")
    if not algorithm and not LEAST_RSA_BITS <= bits <= LARGEST_RSA_BITS:
        raise SettingsError(
            f"WORKLOAD_RSA_KEY_SIZE: {bits} bits: from {LEAST_RSA_BITS} (the default) to {LARGEST_RSA_BITS} will do"
        )
    curve = "P384" if environment.text("ECC_CURVE") == "P384" else "P256"
    return KeySpec("ECDSA" if algorithm else "RSA", bits, curve, environment.flag("PKCS8_KEY"))


def _renewal(environment: Environment) -> Renewal:
    ttl = int(environment.duration("SECRET_TTL").seconds)
    if ttl < 1:
        raise SettingsError(f"SECRET_TTL: {environment.duration('SECRET_TTL')} is no lifetime: give a second or more")
    names = ("SECRET_GRACE_PERIOD_RATIO", "SECRET_GRACE_PERIOD_RATIO_JITTER")
    return Renewal(ttl, *(_share(environment, name) for name in names))


def _share(environment: Environment, name: str) -> float:
    text = environment.text(name)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:  # NaN too
        raise SettingsError(f"{name}: {text!r} is not a number from 0 to 1")
    return value


def _certificate_files(environment: Environment, has_workload_sds: bool) -> tuple[Files, bool]:
    """Where certificates lie when they are files, and whether the workload's own directory has them all."""
    directory = _workload_directory()
    if environment.text("CA_PROVIDER") == "GkeWorkloadCertificate":
        names = ("certificates.pem", "private_key.pem", "ca_certificates.pem")
        files = Files(*(directory / name for name in names))
        missing = [str(each) for each in files.all if not each.exists()]
        if missing:
            raise SettingsError(f"CA_PROVIDER=GkeWorkloadCertificate: {missing[0]} is missing: is the volume mounted?")
        return files, True
    files = Files.of_directory(directory)
    if not has_workload_sds and all(each.exists() for each in files.all):
        return files, True
    return Files.of_directory(Path(LEGACY_CERTS_DIRECTORY).absolute()), False


def _ca(settings: Settings, warnings: list[str]) -> CaOptions:
    environment = settings.environment
    address = _address(settings)
    provider = environment.text("CA_PROVIDER")
    if "googleapis.com" in address.host:
        raise SettingsError(f"CA_ADDR: {address} is Google's CA, which this agent has no client for: use istiod's CA")
    if provider != "Citadel":
        raise SettingsError(f"CA_PROVIDER: {provider!r} is not known: use Citadel or GkeWorkloadCertificate")
    is_plaintext = address.port == PLAINTEXT_PORT
    if is_plaintext:
        warnings.append(f"the CA {address} is asked without TLS, and gets the token in the clear: port 15012 has TLS")
    policy = environment.text("JWT_POLICY")
    if policy == "first-party-jwt":
        warnings.append("JWT_POLICY=first-party-jwt is deprecated: the token of ./var/run/secrets/tokens is used")
    own = environment.text("PROV_CERT")
    return CaOptions(
        address=address,
        is_plaintext=is_plaintext,
        server_name=server_name(environment, address, is_istiod=not environment.text("CA_ADDR")),
        root=None if is_plaintext else _root(environment),
        client=Files.of_directory(Path(own).absolute()) if own else None,
        cluster_id=header("ISTIO_META_CLUSTER_ID", "clusterid", environment.raw("ISTIO_META_CLUSTER_ID") or "")[1],
        cert_signer=environment.raw("ISTIO_META_CERT_SIGNER") or "",
        headers=tuple(
            header(f"CA_HEADER_{name}", name.lower(), value) for name, value in environment.with_prefix("CA_HEADER_")
        ),
    )


def header(variable: str, name: str, value: str) -> tuple[str, str]:
    """gRPC would fail every call with one it can't carry, in words that say nothing. The value may be a credential."""
    if not _HEADER_NAME.fullmatch(name) or name.endswith("-bin"):
        raise SettingsError(f"{variable}: {name!r} can't be the name of a text header: use letters, digits, _, - and .")
    if not (value.isascii() and value.isprintable()):
        raise SettingsError(f"{variable}: a header's value can't have other characters than printable ASCII")
    return name, value


def _address(settings: Settings) -> HostPort:
    text = settings.environment.text("CA_ADDR")
    if not text:
        return settings.proxy_config.discovery_address
    try:
        return HostPort.parse(text)
    except ValueError as error:
        raise SettingsError(f"CA_ADDR: {error}") from None


def server_name(environment: Environment, address: HostPort, *, is_istiod: bool) -> str:
    """ISTIOD_SAN speaks of istiod: a CA with an address of its own is not it."""
    override = environment.text("ISTIOD_SAN")
    if override and is_istiod:
        return override
    return ISTIOD_NAME if "localhost" in address.host else address.host


def _root(environment: Environment) -> Path | None:
    """What the CA's certificate is checked by: a file, or None for the system's roots. TLS is never without one."""
    own, provider = environment.text("CA_ROOT_CA"), environment.text("PILOT_CERT_PROVIDER")
    if own:
        return None if own == SYSTEM else Path(own).absolute()
    if provider == "custom":
        return Path(LEGACY_CERTS_DIRECTORY).absolute() / ROOT_NAME
    if environment.text("PROV_CERT"):
        return Path(environment.text("PROV_CERT")).absolute() / ROOT_NAME
    if provider == "none":
        raise SettingsError(
            "PILOT_CERT_PROVIDER=none gives no root certificate for the CA: set CA_ROOT_CA to a file, or to SYSTEM"
        )
    return Path(CA_ROOT_FILE).absolute()


def _provider(settings: Settings) -> tuple[str, int, bool] | None:
    """privateKeyProvider: its name, its poll delay in nanoseconds, whether Envoy may do without."""
    for name in ("cryptomb", "qat"):
        message = settings.proxy_config.private_key_provider.get(name)
        if message is not None:
            delay = message.get("pollDelay") or Duration(0)
            return name, delay.nanoseconds, bool(message.get("fallback"))
    return None
