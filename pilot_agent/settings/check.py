"""Judging a resolved ProxyConfig: all that is wrong with it, in one error (reference: validation of the bootstrap)."""

from pilot_agent.errors import SettingsError
from pilot_agent.settings.model import ProxyConfig
from pilot_agent.values import HostPort, parse_port


def check(config: ProxyConfig) -> None:
    """Raises SettingsError listing every fault: field, value, source, what to do."""
    faults = [*_texts(config), *_ports(config), *_durations(config), *_addresses(config)]
    if faults:
        raise SettingsError("failed to get proxy config: " + "; ".join(faults))


def _named(config: ProxyConfig, name: str) -> str:
    return f"{name} (from {config.sources.get(name, 'default')})"


def _texts(config: ProxyConfig) -> list[str]:
    faults = [
        f"{_named(config, name)} is empty" for name in ("configPath", "binaryPath") if not config.values.get(name)
    ]
    if not config.service_cluster and config.tracing_service_name is None:
        faults.append(f"{_named(config, 'serviceCluster')} is empty: give a name, or set tracingServiceName")
    return faults


def _ports(config: ProxyConfig) -> list[str]:
    faults = []
    for name in ("proxyAdminPort", "statusPort"):
        try:
            parse_port(config.values.get(name))
        except ValueError as error:
            faults.append(f"{_named(config, name)}: {error}")
    return faults


def _durations(config: ProxyConfig) -> list[str]:
    drain = config.drain_duration
    if drain.milliseconds < 1 or not drain.is_whole_seconds:
        return [f"{_named(config, 'drainDuration')}: {drain} must be at least 1s and whole seconds"]
    return []


def _addresses(config: ProxyConfig) -> list[str]:
    faults = []
    for name in ("discoveryAddress", "statsdUdpAddress", "zipkinAddress"):
        value = config.values.get(name)
        if value:
            try:
                HostPort.parse(value)
            except ValueError as error:
                faults.append(f"{_named(config, name)}: {error}")
    return faults
