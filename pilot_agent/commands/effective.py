"""The effective settings as rows: what each is, and which source said so. `config` prints them.

Secrets are hidden here, before anything else sees a value.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pilot_agent.commands.flags import LOGGING_FLAGS
from pilot_agent.commands.parsing import Parsed
from pilot_agent.commands.preview import has_binary
from pilot_agent.commands.proxy_flags import PROXY_FLAGS
from pilot_agent.settings.environment import PREFIXES, VARIABLES, Environment, Variable
from pilot_agent.settings.model import ProxyConfig, Settings
from pilot_agent.settings.redaction import redacted
from pilot_agent.settings.schema import PROXY_CONFIG_FIELDS
from pilot_agent.settings.sources import read_mesh_file
from pilot_agent.supervise.desired import BOOTSTRAP_TEMPLATE, Desired, own_template
from pilot_agent.values import Duration

DEFAULT = "default"
UNUSED = "not used in this version"
MESH_FIELDS = {
    "proxyListenPort": "proxy_listen_port",
    "proxyInboundListenPort": "proxy_inbound_listen_port",
    "accessLogFile": "access_log_file",
}
"""Of MeshConfig, what local mode uses: the documented name, and the other one, which is ours too."""


class Row(NamedTuple):
    """`value` is ready for JSON, None where nothing is set; fields of nested messages are joined by dots."""

    name: str
    value: Any
    source: str


Sections = dict[str, list[Row]]


def sections(parsed: Parsed, desired: Desired, *, is_whole: bool = False) -> Sections:
    """By name: proxyConfig, flags, environment, mesh, node, envoy. `is_whole` also shows what nobody set."""
    settings = desired.settings
    return {
        "proxyConfig": list(proxy_config_rows(settings.proxy_config, is_whole=is_whole)),
        "flags": list(flag_rows(parsed, settings)),
        "environment": list(variable_rows(settings.environment, is_whole=is_whole)),
        "mesh": list(mesh_rows(settings)),
        "node": list(node_rows(desired)),
        "envoy": list(envoy_rows(desired)),
    }


def proxy_config_rows(config: ProxyConfig, *, is_whole: bool) -> Iterator[Row]:
    for name in PROXY_CONFIG_FIELDS:
        value = config.values.get(name)
        if value is not None:
            for path, leaf in _leaves(name, redacted(name, value)):
                yield Row(path, leaf, _source(config, path))
        elif is_whole:
            yield Row(name, None, DEFAULT)


def _leaves(path: str, value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}", item)
    else:
        yield path, _plain(value)


def _plain(value: object) -> Any:
    if isinstance(value, Duration):  # a tuple, too
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _source(config: ProxyConfig, path: str) -> str:
    """That of the longest part of `path` that has one: deep merges know the source of each nested field."""
    while path not in config.sources and "." in path:
        path = path.rpartition(".")[0]
    return config.sources.get(path, DEFAULT)


def flag_rows(parsed: Parsed, settings: Settings) -> Iterator[Row]:
    yield Row("role", settings.flags.role, "command line" if parsed.words else DEFAULT)
    for flag in (*PROXY_FLAGS, *LOGGING_FLAGS):
        value = _plain(parsed.values[flag.attribute])
        yield Row(flag.name, redacted(flag.name, value), "flag" if flag.attribute in parsed.given else DEFAULT)


def variable_rows(environment: Environment, *, is_whole: bool) -> Iterator[Row]:
    for variable in VARIABLES:
        if is_whole or environment.is_set(variable.name):
            value = redacted(variable.name, _plain(_value(environment, variable)))
            yield Row(variable.name, value, _marked(_variable_source(environment, variable.name), variable.is_used))
    for prefix in PREFIXES:
        for rest, raw in environment.with_prefix(prefix.name):
            name = prefix.name + rest
            yield Row(name, redacted(name, raw), _marked("environment", prefix.is_used))


def _value(environment: Environment, variable: Variable) -> str | bool | int | Duration:
    if isinstance(variable.default, bool):
        return environment.flag(variable.name)
    if isinstance(variable.default, Duration):
        return environment.duration(variable.name)
    if isinstance(variable.default, int):
        return environment.number(variable.name)
    return environment.text(variable.name)


def _variable_source(environment: Environment, name: str) -> str:
    if not environment.is_set(name):
        return DEFAULT
    is_refused = any(warning.startswith(f"{name}=") for warning in environment.warnings)
    return f"{DEFAULT}, what is set can't be read" if is_refused else "environment"


def _marked(source: str, is_used: bool) -> str:
    return source if is_used else f"{source}; {UNUSED}"


def mesh_rows(settings: Settings) -> Iterator[Row]:
    path = settings.flags.mesh_config
    document = read_mesh_file(path)
    for name, other in MESH_FIELDS.items():
        is_told = document.get(name, document.get(other)) is not None
        yield Row(name, getattr(settings.mesh, other), f"mesh file {path}" if is_told else DEFAULT)


def node_rows(desired: Desired) -> Iterator[Row]:
    settings, node = desired.settings, desired.node
    yield Row("mode", "local" if settings.is_local else "mesh", "--configDir" if settings.is_local else DEFAULT)
    yield Row("id", node.id, "role, address, POD_NAME, POD_NAMESPACE, --domain")
    is_named = node.cluster == settings.proxy_config.service_cluster
    yield Row("cluster", node.cluster, "serviceCluster" if is_named else "labels, workload and namespace")
    yield Row("addresses", node.addresses, "INSTANCE_IP, network interfaces")
    for name, value in node.locality.items():
        yield Row(f"locality.{name}", value, "labels or cloud")


def envoy_rows(desired: Desired) -> Iterator[Row]:
    settings = desired.settings
    config = settings.proxy_config
    where = DEFAULT if config.is_default("binaryPath") else _source(config, "binaryPath")
    yield Row("binary", str(desired.binary) if has_binary(desired) else None, where)
    if desired.is_custom_file:
        yield Row("customConfigFile", str(desired.config_file), _source(config, "customConfigFile"))
        return
    template = own_template(settings)
    is_variable = bool(settings.environment.text("ISTIO_BOOTSTRAP"))
    source = "ISTIO_BOOTSTRAP" if is_variable else _source(config, "proxyBootstrapTemplatePath")
    yield Row("template", template or BOOTSTRAP_TEMPLATE, source if template else DEFAULT)
    yield Row("bootstrap", str(desired.config_file), _source(config, "configPath"))
