"""What the instance metadata service of Azure says: name, location, zone, id and tags, in one document."""

import json
from collections.abc import Iterator
from typing import Any

from pilot_agent.cloud.server import MetadataServer
from pilot_agent.node.surroundings import Platform

HEADERS = {"Metadata": "true"}
INSTANCE = "/metadata/instance/compute?api-version=2019-08-15&format=json"


def read(server: MetadataServer) -> Platform:
    answer = server.answer(INSTANCE)
    if not answer:
        return Platform()
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        server.warn(f"{INSTANCE}: the answer is not a JSON object")
        return Platform()
    tags = dict(_tags(document))
    facts = {f"azure_{key}": _text(document.get(key)) for key in ("name", "location", "vmId")}
    facts |= {f"azure_{key}": value for key, value in tags.items()}
    locality = {"region": _text(document.get("location")), "zone": _text(document.get("zone"))}
    return Platform("azure", _known(locality), _known(facts), tags)


def _tags(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value. `tagsList` is exact; `tags` is the older `name:value;name:value`."""
    tags = document.get("tagsList")
    if isinstance(tags, list):
        for tag in tags:
            if isinstance(tag, dict) and _text(tag.get("name")):
                yield _text(tag["name"]), _text(tag.get("value"))
        return
    for text in _text(document.get("tags")).split(";"):
        name, colon, value = text.partition(":")
        if colon and name:
            yield name, value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _known(facts: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in facts.items() if value}
