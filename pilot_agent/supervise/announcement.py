"""What the log says first: flags, version, role, warnings, and the proxy configuration with its sources."""

from pilot_agent import __version__
from pilot_agent.log import Scope
from pilot_agent.settings.redaction import redacted
from pilot_agent.supervise.desired import Desired


def announce(desired: Desired, scope: Scope) -> None:
    settings = desired.settings
    for name, value in settings.flags._asdict().items():
        if name != "role":
            scope.info(f'FLAG: --{_flag_name(name)}="{_shown(value)}"')
    scope.info(f"Version {__version__}")
    scope.info(
        "Proxy role",
        ips=desired.node.addresses,
        type=settings.flags.role,
        id=desired.node.id.split("~")[2],
        domain=settings.domain,
        mode="local" if settings.is_local else "mesh",
    )
    for warning in desired.warnings:
        scope.warn(warning)
    config = settings.proxy_config
    for name, source in sorted(config.sources.items()):
        if source != "default" and name in config.values:
            scope.info(f"proxy config: {name}={_shown(redacted(name, config.values[name]))} (from {source})")


def without_override(argv: list[str]) -> list[str]:
    """The arguments as the log may have them: an override is the user's own, and may hold anything."""
    words = list(argv)
    if "--config-yaml" in words:
        index = words.index("--config-yaml") + 1
        words[index] = f"({len(words[index])} characters of ISTIO_BOOTSTRAP_OVERRIDE)"
    return words


def _flag_name(attribute: str) -> str:
    first, *rest = attribute.split("_")
    return first + "".join(part.title() for part in rest)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
