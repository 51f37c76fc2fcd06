"""The endpoints' views: what Envoy makes of each endpoint (/clusters), or what it was told of it (EDS, in a dump).

They differ, in istioctl too: only the first knows of outliers, only the second of localities. Draws the rows;
`config_dump` finds the assignments.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pilot_agent.inspect.clusters import ServiceName
from pilot_agent.inspect.columns import table
from pilot_agent.inspect.fields import Message, field, message, messages, number, text
from pilot_agent.inspect.ordering import ordered


class EndpointFilter(NamedTuple):
    """Empty and 0 match all. Texts are compared whole, without regard to case."""

    address: str = ""
    port: int = 0
    cluster: str = ""
    status: str = ""

    def matches(self, endpoint: "Endpoint", cluster: str) -> bool:
        address = self.address.lower()
        return (
            (not address or address in (endpoint.address.lower(), str(endpoint).lower()))
            and self.port in (0, endpoint.port)
            and self.cluster.lower() in ("", cluster.lower())
            and self.status.upper() in ("", endpoint.status)
        )


class Endpoint(NamedTuple):
    """`address` is an IP address, a name, a path or, for an internal listener, `envoy://listener/id`."""

    address: str
    port: int
    status: str

    def __str__(self) -> str:
        return f"{self.address}:{self.port}" if self.port else self.address


# As Envoy judges them


def narrowed(statuses: list[Message], wanted: EndpointFilter) -> list[Message]:
    """The clusters with an endpoint that is wanted, whole, as istioctl gives them."""
    return [each for each in statuses if any(_judged(each, wanted))]


def view(statuses: list[Message], wanted: EndpointFilter) -> str:
    """The table of a /clusters answer."""
    found = []
    for each in statuses:
        for endpoint, is_outlier in _judged(each, wanted):
            found.append((endpoint.address, endpoint.port, text(each, "name"), endpoint, is_outlier))
    rows: list[list[object]] = [["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]]
    for _, _, name, endpoint, is_outlier in ordered(found, lambda one, other: one[:3] < other[:3]):
        rows.append([endpoint, endpoint.status, "FAILED" if is_outlier else "OK", name])
    return table(rows)


def _judged(status: Message, wanted: EndpointFilter) -> Iterator[tuple[Endpoint, bool]]:
    for host in messages(status, "host_statuses"):
        health = message(host, "health_status")
        endpoint = _endpoint(message(host, "address"), text(health, "eds_health_status"), "unix://")
        if wanted.matches(endpoint, text(status, "name")):
            yield endpoint, field(health, "failed_outlier_check") is True


# As istiod said


def assigned(assignments: list[Message], wanted: EndpointFilter) -> list[Message]:
    """The ClusterLoadAssignments in istioctl's order, with only the endpoints that are wanted; none without any."""

    def rank(assignment: Message) -> ServiceName:
        return ServiceName.of(text(assignment, "cluster_name"))

    left = [_narrowed(each, wanted) for each in assignments]
    filled = [each for each in left if any(messages(group, "lb_endpoints") for group in messages(each, "endpoints"))]
    return ordered(filled, lambda one, other: rank(one) < rank(other))


def assigned_view(assignments: list[Message], wanted: EndpointFilter, *, with_names: bool = False) -> str:
    """The table of a dump's ClusterLoadAssignments; `with_names` is its form in the view of everything."""
    rows: list[list[object]] = [["NAME", "STATUS", "LOCALITY", "CLUSTER"]]
    for assignment in assigned(assignments, wanted):
        for group in messages(assignment, "endpoints"):
            for each in messages(group, "lb_endpoints"):
                endpoint = _assigned(each)
                name = f"endpoint/{endpoint}" if with_names else endpoint
                rows.append([name, endpoint.status, _locality(group), text(assignment, "cluster_name")])
    return table(rows)


def _narrowed(assignment: Message, wanted: EndpointFilter) -> Message:
    name = text(assignment, "cluster_name")
    groups = []
    for group in messages(assignment, "endpoints"):
        kept = [each for each in messages(group, "lb_endpoints") if wanted.matches(_assigned(each), name)]
        rest = {key: value for key, value in group.items() if key not in ("lb_endpoints", "lbEndpoints")}
        groups.append({**rest, "lb_endpoints": kept} if kept else rest)
    return {**assignment, "endpoints": groups}


def _assigned(endpoint: Message) -> Endpoint:
    return _endpoint(message(endpoint, "endpoint", "address"), text(endpoint, "health_status"), "")


def _locality(group: Message) -> str:
    """Region, zone and subzone, as far as they are told in a row."""
    found: list[str] = []
    for name in ("region", "zone", "sub_zone"):
        part = text(group, "locality", name)
        if name != "region" and not part:
            break
        found.append(part)
    return "/".join(found)


def _endpoint(address: Message | None, status: str, before_path: str) -> Endpoint:
    status = status or "UNKNOWN"
    socket, pipe = message(address, "socket_address"), message(address, "pipe")
    listener = text(address, "envoy_internal_address", "server_listener_name")
    if socket is not None:
        return Endpoint(text(socket, "address"), number(socket, "port_value"), status)
    if pipe is not None:
        return Endpoint(before_path + text(pipe, "path"), 0, status)
    if listener:
        return Endpoint(f"envoy://{listener}/{text(address, 'envoy_internal_address', 'endpoint_id')}", 0, status)
    return Endpoint("unknown", 0, status)
