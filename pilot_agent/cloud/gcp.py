"""What Google's metadata server says: project, GKE cluster and instance; or what GCP_METADATA says instead of it.

The instance's labels are not among it: they take a call of the Compute API, with rights few workloads have.
"""

import re
from pathlib import Path
from typing import NamedTuple

from pilot_agent.cloud.server import MetadataServer
from pilot_agent.node.surroundings import Platform

HEADERS = {"Metadata-Flavor": "Google"}
ROOT = "/computeMetadata/v1"
CLUSTER_URL = "https://container.googleapis.com/v1/projects/{}/locations/{}/clusters/{}"

ZONE = r"[a-z]+-[a-z]+[0-9]+-[a-z]"
_ZONE_DOMAIN = re.compile(rf"({ZONE})\.c\..+\.internal\.?")


class Told(NamedTuple):
    """`metadata` is PROJECT|NUMBER|CLUSTER|LOCATION; `quota_project` and `zone` count only with it."""

    metadata: str = ""
    quota_project: str = ""
    zone: str = ""
    is_kubernetes: bool = False


def read(server: MetadataServer, told: Told, resolver_zone: str, warnings: list[str]) -> Platform:
    """Asks the server for what was not told. `resolver_zone` is what the resolver's search domains say, or empty."""
    facts = _told_facts(told, warnings)
    if facts:
        zone = told.zone or resolver_zone or facts["gcp_location"]
    else:
        facts = _instance(server)
        zone = resolver_zone or server.fact(f"{ROOT}/instance/zone").rpartition("/")[2]
        facts["gcp_location"] = facts["gcp_location"] or zone
    project, location, cluster = (facts[f"gcp_{name}"] for name in ("project", "location", "gke_cluster_name"))
    if project and location and cluster:
        facts["gcp_gke_cluster_url"] = CLUSTER_URL.format(project, location, cluster)
    known = {key: value for key, value in facts.items() if value}
    return Platform("gcp", locality_of(zone), known, is_kubernetes=told.is_kubernetes) if known else Platform()


def _told_facts(told: Told, warnings: list[str]) -> dict[str, str]:
    if not told.metadata:
        return {}
    parts = told.metadata.split("|")
    if len(parts) != 4:
        warnings.append(
            f"GCP_METADATA={told.metadata!r} is not PROJECT|NUMBER|CLUSTER|LOCATION: asking the metadata server instead"
        )
        return {}
    names = ("gcp_project", "gcp_project_number", "gcp_gke_cluster_name", "gcp_location")
    return dict(zip(names, parts, strict=True)) | {"gcp_quota_project": told.quota_project, "gcp_zone": told.zone}


def _instance(server: MetadataServer) -> dict[str, str]:
    paths = {
        "gcp_project": "project/project-id",
        "gcp_project_number": "project/numeric-project-id",
        "gcp_gke_cluster_name": "instance/attributes/cluster-name",
        "gcp_location": "instance/attributes/cluster-location",
        "gcp_gce_instance": "instance/name",
        "gcp_gce_instance_id": "instance/id",
        "gcp_gce_instance_template": "instance/attributes/instance-template",
        "gcp_gce_instance_created_by": "instance/attributes/created-by",
    }
    return {key: server.fact(f"{ROOT}/{path}") for key, path in paths.items()}


def zone_of_resolver(resolv_conf: Path) -> str:
    """The zone in a search domain of Google's (`ZONE.c.PROJECT.internal`), which a pod inherits from its node."""
    try:
        text = resolv_conf.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        keyword, *domains = line.split() or [""]
        if keyword == "search":
            found = (_ZONE_DOMAIN.fullmatch(domain) for domain in domains)
            return next((match[1] for match in found if match), "")
    return ""


def locality_of(zone: str) -> dict[str, str]:
    """Region and zone; of a location that is a region only that."""
    if not zone:
        return {}
    return {"region": zone.rpartition("-")[0], "zone": zone} if re.fullmatch(ZONE, zone) else {"region": zone}
