"""The views by name: what is taken from a dump, narrowed, and printed as a table or as a document.

The single views and the view of everything differ, in istioctl too: the latter puts the kind before each name, and
takes endpoints as istiod told them. Called by `commands.proxy_config`.
"""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from pilot_agent.inspect import bootstrap, clusters, config_dump, documents, endpoints, listeners, routes, secrets
from pilot_agent.inspect.config_dump import Dump, DumpError
from pilot_agent.inspect.fields import Message


class Wanted(NamedTuple):
    """What is asked for: `output` is json, yaml or short; each filter that is empty or 0 lets everything through."""

    output: str = "short"
    is_verbose: bool = True
    address: str = ""
    port: int = 0
    kind: str = ""
    name: str = ""
    fqdn: str = ""
    direction: str = ""
    subset: str = ""
    cluster: str = ""
    status: str = ""

    @property
    def listeners(self) -> listeners.ListenerFilter:
        return listeners.ListenerFilter(self.address, self.port, self.kind)

    @property
    def routes(self) -> routes.RouteFilter:
        return routes.RouteFilter(self.name)

    @property
    def clusters(self) -> clusters.ClusterFilter:
        return clusters.ClusterFilter(self.fqdn, self.port, self.subset, self.direction)

    @property
    def endpoints(self) -> endpoints.EndpointFilter:
        return endpoints.EndpointFilter(self.address, self.port, self.cluster, self.status)


def of_listeners(dump: Dump, wanted: Wanted, _now: datetime) -> str:
    found = _some(config_dump.listeners(dump), "listeners", dump)
    if wanted.output == "short":
        return listeners.view(found, wanted.listeners, is_verbose=wanted.is_verbose)
    return _document([each for each in found if wanted.listeners.matches(each)], wanted)


def of_routes(dump: Dump, wanted: Wanted, _now: datetime) -> str:
    found = _some(config_dump.routes(dump), "routes", dump)
    if wanted.output == "short":
        return routes.view(found, wanted.routes, is_verbose=wanted.is_verbose)
    return _document([each for each in routes.in_order(found) if wanted.routes.matches(each)], wanted)


def of_clusters(dump: Dump, wanted: Wanted, _now: datetime) -> str:
    found = _some(config_dump.clusters(dump), "clusters", dump)
    if wanted.output == "short":
        return clusters.view(found, wanted.clusters)
    return _document([each for each in clusters.in_order(found) if wanted.clusters.matches(each)], wanted)


def of_endpoints(dump: Dump, wanted: Wanted, _now: datetime) -> str:
    """Of an answer of /clusters how the endpoints are, of /config_dump what istiod told of them."""
    if dump.is_config:
        found = config_dump.assignments(dump)
        if wanted.output == "short":
            return endpoints.assigned_view(found, wanted.endpoints)
        return _document(endpoints.assigned(found, wanted.endpoints), wanted)
    statuses = config_dump.cluster_statuses(dump)
    if wanted.output == "short":
        return endpoints.view(statuses, wanted.endpoints)
    return _document(endpoints.narrowed(statuses, wanted.endpoints), wanted)


def of_secrets(dump: Dump, wanted: Wanted, now: datetime) -> str:
    section = dump.section("SecretsConfigDump")
    return secrets.view(section, now) if wanted.output == "short" else _document(section, wanted)


def of_bootstrap(dump: Dump, wanted: Wanted, _now: datetime) -> str:
    section = dump.section("BootstrapConfigDump")
    return bootstrap.summary(section) if wanted.output == "short" else _document(section, wanted)


SINGLE: dict[str, Callable[[Dump, Wanted, datetime], str]] = {
    "bootstrap": of_bootstrap,
    "clusters": of_clusters,
    "endpoints": of_endpoints,
    "listeners": of_listeners,
    "routes": of_routes,
    "secrets": of_secrets,
}
"""Text by view; certificates are valid or not at the moment given. Each raises DumpError for a dump it can't be of."""


def of_everything(dump: Dump, wanted: Wanted, now: datetime) -> Iterator[str]:
    """The tables one by one, an empty line between them.

    Raises DumpError, at the end, with the sections that the dump does not have.
    """
    dump.require_config()
    parts: tuple[Callable[[], str], ...] = (
        lambda: bootstrap.summary(dump.section("BootstrapConfigDump")),
        lambda: clusters.view(config_dump.clusters(dump), wanted.clusters, with_names=True),
        lambda: listeners.view(
            config_dump.listeners(dump), wanted.listeners, is_verbose=wanted.is_verbose, with_names=True
        ),
        lambda: routes.view(config_dump.routes(dump), wanted.routes, is_verbose=wanted.is_verbose, with_names=True),
        lambda: secrets.view(dump.section("SecretsConfigDump"), now, with_names=True),
        lambda: endpoints.assigned_view(config_dump.assignments(dump), wanted.endpoints, with_names=True),
    )
    missing: list[config_dump.MissingSection] = []
    separator = ""
    for part in parts:
        try:
            yield separator + part()
            separator = "\n"
        except config_dump.MissingSection as error:
            missing.append(error)
    if missing:
        raise missing[0].beside(missing[1:])


def whole(dump: Dump, data: bytes, output: str) -> str:
    """The dump with all that is in it, under Envoy's own names, as istioctl gives it on; `data` is its text."""
    dump.require_config()
    shown = documents.hidden(dump.content)
    if output == "yaml":
        return documents.as_yaml(shown)
    if shown != dump.content:
        return documents.as_json(shown)
    return data.decode(json.detect_encoding(data), "surrogatepass") + "\n"


def _some(found: list[Message], what: str, dump: Dump) -> list[Message]:
    if not found:
        raise DumpError(f"{dump.where}: no {what} found")
    return found


def _document(resources: Message | list[Message], wanted: Wanted) -> str:
    if isinstance(resources, list):
        unpacked: object = [documents.without_type(each) for each in resources]
    else:
        unpacked = documents.without_type(resources)
    shown = documents.hidden(documents.renamed(unpacked))
    return documents.as_yaml(shown) if wanted.output == "yaml" else documents.as_json(shown)
