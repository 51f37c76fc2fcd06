"""Where settings come from and which source wins: defaults, mesh file, PROXY_CONFIG, pod annotation, flags.

`load` is called at start and again for every change of a watched file; it reads only what it is given paths of.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pilot_agent.errors import SettingsError
from pilot_agent.settings.advice import advice
from pilot_agent.settings.check import check
from pilot_agent.settings.environment import Environment
from pilot_agent.settings.mesh import Layers, parse_document
from pilot_agent.settings.mesh_file import mesh_settings
from pilot_agent.settings.model import ProxyConfig, ProxyFlags, Settings
from pilot_agent.settings.reading import shown

ROLES = ("sidecar", "router", "waypoint")

CONFIG_ANNOTATION = "proxy.istio.io/config"
DISCOVERY_ANNOTATION = "sidecar.istio.io/discoveryAddress"
STATUS_PORT_ANNOTATION = "status.sidecar.istio.io/port"


def nothing_limits() -> tuple[int, str] | None:
    """The CPU allowance where nothing is known of it."""
    return None


def load(
    flags: ProxyFlags,
    variables: Mapping[str, str],
    annotations: Mapping[str, str],
    *,
    log_as_json: bool = False,
    cpu_allowance: Callable[[], tuple[int, str] | None] = nothing_limits,
) -> Settings:
    """The effective settings. Raises SettingsError with one line that names the source, the field and the value.

    `cpu_allowance` is asked when nothing sets the number of worker threads: threads and why, None for no limit.
    """
    if flags.role not in ROLES:
        raise SettingsError(f"invalid proxy Type: {flags.role}; use one of {', '.join(ROLES)}")
    environment = Environment(variables)
    layers = Layers(is_deep=flags.deep_merge)
    mesh_file = read_mesh_file(flags.mesh_config)
    layers.add(_default_config(mesh_file, flags.mesh_config), f"mesh file {flags.mesh_config}")
    layers.add(parse_document(environment.text("PROXY_CONFIG"), "PROXY_CONFIG"), "PROXY_CONFIG")
    annotation = annotations.get(CONFIG_ANNOTATION, "")
    layers.add(parse_document(annotation, f"annotation {CONFIG_ANNOTATION}"), f"annotation {CONFIG_ANNOTATION}")
    _add_flags(layers, flags)
    _add_concurrency(layers, flags, environment, cpu_allowance)
    check(layers.result())
    config = _after_validation(layers, annotations)
    warnings = (*environment.warnings, *layers.warnings, *advice(flags, environment, config))
    mesh = mesh_settings(mesh_file, flags.mesh_config)
    return Settings(flags, environment, config, mesh, annotations, log_as_json, warnings)


def read_mesh_file(path: str) -> Mapping[str, object]:
    """The MeshConfig at `path`; {} where there is no such file. Raises SettingsError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"mesh file {path} can't be read: {reason}") from None
    return parse_document(text, f"mesh file {path}")


def _default_config(document: Mapping[str, object], path: str) -> Mapping[str, object]:
    default_config = document.get("defaultConfig", document.get("default_config"))
    if default_config is None:
        return {}
    if not isinstance(default_config, dict):
        raise SettingsError(f"mesh file {path}: defaultConfig: expected a mapping, got {shown('', default_config)}")
    return default_config


def _add_flags(layers: Layers, flags: ProxyFlags) -> None:
    below = layers.result()
    if flags.template_file and not below.custom_config_file:
        layers.set("proxyBootstrapTemplatePath", flags.template_file, "flag --templateFile")
    if not below.service_cluster and below.tracing_service_name is None and flags.service_cluster:
        layers.set("serviceCluster", flags.service_cluster, "flag --serviceCluster")


def _add_concurrency(
    layers: Layers,
    flags: ProxyFlags,
    environment: Environment,
    cpu_allowance: Callable[[], tuple[int, str] | None],
) -> None:
    """The flag, else ProxyConfig, else ISTIO_CPU_LIMIT, else what the container may use; an explicit 0 stays."""
    limit = environment.number("ISTIO_CPU_LIMIT")
    if flags.concurrency:
        layers.set("concurrency", flags.concurrency, "flag --concurrency")
        layers.warnings.append("--concurrency is a legacy flag: set concurrency in the proxy configuration instead")
    elif layers.result().concurrency is None:
        allowance = (limit, "ISTIO_CPU_LIMIT") if limit else cpu_allowance()
        if allowance is not None:
            layers.set("concurrency", *allowance)
    elif layers.result().concurrency == 0 and 0 < limit < (os.cpu_count() or 1):
        layers.warnings.append(
            f"concurrency is 0, so Envoy runs a worker thread for each of the machine's {os.cpu_count()} CPUs, but the "
            f"container may use {limit} (ISTIO_CPU_LIMIT): leave concurrency out"
        )


def _after_validation(layers: Layers, annotations: Mapping[str, str]) -> ProxyConfig:
    """The two annotations Istio applies last. Unlike Istio we don't let a bad port turn the status server off."""
    address = annotations.get(DISCOVERY_ANNOTATION)
    if address:
        layers.set("discoveryAddress", address, f"annotation {DISCOVERY_ANNOTATION}")
    port = annotations.get(STATUS_PORT_ANNOTATION)
    if port is not None:
        if not port.isascii() or not port.isdigit():
            raise SettingsError(f"annotation {STATUS_PORT_ANNOTATION}: {port!r} is not a port number")
        layers.set("statusPort", int(port), f"annotation {STATUS_PORT_ANNOTATION}")
    config = layers.result()
    check(config)
    return config
