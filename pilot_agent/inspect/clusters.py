"""The clusters' view: per cluster the service, port and subset in its name, how it finds endpoints, and its
DestinationRule.

Owns how a name of Istio's is read; the endpoints' view sorts by it as well.
"""

from typing import NamedTuple

from pilot_agent.inspect.columns import table
from pilot_agent.inspect.fields import Message, managed_by, message, text
from pilot_agent.inspect.ordering import ordered

_HEAD = ("SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE")


class ServiceName(NamedTuple):
    """What `outbound|8000|v1|httpbin.demo.svc.cluster.local` says, in the order that istioctl sorts by.

    Any other name is a service name with nothing else, also the SNI form `outbound_.8000_._.host` of gateways.
    """

    fqdn: str
    subset: str
    port: int
    direction: str

    @classmethod
    def of(cls, name: str) -> "ServiceName":
        if not is_service(name):
            return cls(name, "", 0, "")
        direction, port, subset, fqdn = name.split("|", 3)
        return cls(fqdn, subset, int(port) if port.isascii() and port.isdigit() and len(port) < 19 else 0, direction)


def is_service(name: str) -> bool:
    return name.count("|") >= 3


class ClusterFilter(NamedTuple):
    """Each is looked for anywhere in the cluster's name, as istioctl does; empty and 0 match all."""

    fqdn: str = ""
    port: int = 0
    subset: str = ""
    direction: str = ""

    def matches(self, cluster: Message) -> bool:
        port = f"|{self.port}|" if self.port else ""
        return all(part in text(cluster, "name") for part in (self.fqdn, port, self.subset, self.direction))


def view(clusters: list[Message], wanted: ClusterFilter, *, with_names: bool = False) -> str:
    """The table; `with_names` is its form in the view of everything."""
    rows: list[list[object]] = [[*["NAME"] * with_names, *_HEAD]]
    for each in in_order(clusters):
        if wanted.matches(each):
            name = f"cluster/{text(each, 'name')}"
            rows.append([*[name] * with_names, *_row(each, name if with_names else text(each, "name"))])
    return table(rows)


def in_order(clusters: list[Message]) -> list[Message]:
    return ordered(clusters, lambda one, other: _rank(one) < _rank(other))


def _rank(cluster: Message) -> ServiceName:
    return ServiceName.of(text(cluster, "name"))


def _row(cluster: Message, plain_name: str) -> list[object]:
    name = text(cluster, "name")
    service = ServiceName.of(name)
    about: list[object] = [plain_name, "-", "-", "-"]
    if is_service(name):
        about = [service.fqdn, service.port, service.subset or "-", service.direction]
    return [*about, text(cluster, "type") or "STATIC", managed_by(message(cluster, "metadata"))]
