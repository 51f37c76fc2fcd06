"""Finding the cloud: told by a variable, else recognised by the machine's DMI; only a known cloud is asked anything.

Owns the choice and the one deadline; what to ask each cloud is `aws`, `azure` and `gcp`. The agent calls it once,
before Envoy is spawned, so it imports nothing for a machine that is in no cloud.
"""

from pathlib import Path
from typing import NamedTuple

from pilot_agent.clock import Deadline, SystemClock
from pilot_agent.cloud.dmi import DMI, recognise
from pilot_agent.node.surroundings import Platform
from pilot_agent.settings.environment import Environment

DEADLINE_S = 5.0
"""For everything together, as in Istio."""

CLOUDS = ("aws", "azure", "gcp")
LINK_LOCAL = "http://169.254.169.254"


class CloudVariables(NamedTuple):
    """The variables that say something of the cloud, each empty where unset (reference bootstrap.md, section 3)."""

    cloud_platform: str = ""
    gcp_metadata: str = ""
    gcp_quota_project: str = ""
    gcp_zone: str = ""
    gce_metadata_host: str = ""
    kubernetes_service_host: str = ""

    @classmethod
    def of(cls, environment: Environment) -> "CloudVariables":
        return cls(*(environment.text(field.upper()) for field in cls._fields))


class Places(NamedTuple):
    """Where to look. `server` is the base URL of the metadata server, the same address in all three clouds."""

    dmi: Path = DMI
    resolv_conf: Path = Path("/etc/resolv.conf")
    server: str = LINK_LOCAL


class Found(NamedTuple):
    """An empty platform where there is none, or where it did not answer; `warnings` say what went wrong."""

    platform: Platform = Platform()
    warnings: tuple[str, ...] = ()


def find_platform(variables: CloudVariables, deadline: Deadline | None = None, places: Places = Places()) -> Found:  # noqa: B008 - frozen
    """What the cloud says of this instance, within `deadline` (5 s without one). Raises nothing for what fails."""
    warnings: list[str] = []
    name = _name(variables, places, warnings)
    if not name:
        return Found(warnings=tuple(warnings))
    deadline = deadline or Deadline.after(DEADLINE_S, SystemClock())
    platform = _ask(name, variables, places, deadline, warnings)
    if not platform.name and not warnings:
        warnings.append(f"the metadata server of {name} knows nothing: set CLOUD_PLATFORM=none if this is not {name}")
    return Found(platform, tuple(warnings))


def _name(variables: CloudVariables, places: Places, warnings: list[str]) -> str:
    """The cloud's name, empty for none. Reads files, asks nobody."""
    told = variables.cloud_platform
    if told == "none":
        return ""
    if told in CLOUDS:
        return told
    if told:
        warnings.append(f"CLOUD_PLATFORM={told!r} is unknown: use aws, azure, gcp or none; finding it out instead")
    if variables.gcp_metadata or variables.gce_metadata_host:
        return "gcp"
    return recognise(places.dmi)


def _ask(name: str, variables: CloudVariables, places: Places, deadline: Deadline, warnings: list[str]) -> Platform:
    from pilot_agent.cloud import aws, azure, gcp
    from pilot_agent.cloud.server import MetadataServer

    if name == "aws":
        return aws.read(MetadataServer(places.server, deadline, warnings, timeout_s=aws.TIMEOUT_S))
    if name == "azure":
        return azure.read(MetadataServer(places.server, deadline, warnings, azure.HEADERS))
    host = variables.gce_metadata_host
    server = MetadataServer(f"http://{host}" if host else places.server, deadline, warnings, gcp.HEADERS)
    facts = gcp.Told(
        variables.gcp_metadata, variables.gcp_quota_project, variables.gcp_zone, bool(variables.kubernetes_service_host)
    )
    return gcp.read(server, facts, gcp.zone_of_resolver(places.resolv_conf), warnings)
