"""The routes' view: per route its domains, what it matches and the VirtualService it is of, in istioctl's words.

Draws the rows; `config_dump` finds the route configurations, `columns` lays the rows out. The listeners' view takes
from here where a route configuration leads that is written inside a listener.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pilot_agent.inspect.columns import table
from pilot_agent.inspect.fields import Message, managed_by, message, messages, text, texts
from pilot_agent.inspect.ordering import ordered

_SHOWN_DOMAINS = 2
_PASSTHROUGH = "PassthroughCluster"


class RouteFilter(NamedTuple):
    name: str = ""

    def matches(self, routes: Message) -> bool:
        return self.name in ("", text(routes, "name"))


def view(routes: list[Message], wanted: RouteFilter, *, is_verbose: bool = True, with_names: bool = False) -> str:
    """The table; `with_names` is its form in the view of everything."""
    head = ["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"] if is_verbose else ["NAME", "VIRTUAL HOSTS"]
    rows: list[list[object]] = [[*head]]
    for each in in_order(routes):
        if not wanted.matches(each):
            continue
        name = ("route/" if with_names else "") + text(each, "name")
        hosts = messages(each, "virtual_hosts")
        rows += [[name, *row] for host in hosts for row in _rows(host)] if is_verbose else [[name, len(hosts)]]
    return table(rows)


def in_order(routes: list[Message]) -> list[Message]:
    """By port, as far as istioctl goes: it leaves names that are no number where its sort leaves them."""

    def precedes(one: Message, other: Message) -> bool:
        ports = (_number_of(text(one, "name")), _number_of(text(other, "name")))
        return ports[0] is not None and ports[1] is not None and ports[0] < ports[1]

    return ordered(routes, precedes)


def _number_of(name: str) -> int | None:
    digits = name[1:] if name[:1] in ("+", "-") else name
    return int(name) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def _rows(host: Message) -> Iterator[tuple[str, str, str, str]]:
    name, domains = text(host, "name"), domains_of(texts(host, "domains"))
    routes = messages(host, "routes")
    for route in routes:
        if text(route, "route", "cluster") != _PASSTHROUGH:
            yield name, domains, match_of(message(route, "match") or {}), managed_by(message(route, "metadata"))
    if not routes:
        yield name, domains, "/*", "404"


def domains_of(domains: list[str]) -> str:
    """The first two that say something new, and how many there are beside them.

    Left out: those with a port, and a service's longer names where a shorter one of the same service is there.
    """
    if len(domains) == 1:
        return domains[0]
    told = [each for each in domains if _has_no_port(each)]
    known = set(told)
    short = [each for each in told if not _is_longer_name(each, known)]
    more = len(short) - _SHOWN_DOMAINS
    return ", ".join(short[:_SHOWN_DOMAINS]) + (f" + {more} more..." if more > 0 else "")


def _has_no_port(domain: str) -> bool:
    return ":" not in domain or (domain.count(":") > 2 and domain.endswith("]"))


def _is_longer_name(domain: str, known: set[str]) -> bool:
    return any(domain.endswith(end) and domain[: -len(end)] in known for end in (".svc.cluster.local", ".svc"))


def match_of(match: Message) -> str:
    """The path's condition; headers, methods and parameters are not told."""
    if prefix := text(match, "prefix"):
        return f"{prefix}*"
    if prefix := text(match, "path_separated_prefix"):
        return f"PathPrefix:{prefix}"
    if path := text(match, "path"):
        return path
    regex = message(match, "safe_regex")
    return "" if regex is None else f"regex {text(regex, 'regex')}"


def inline_destination(routes: Message) -> str:
    """What a listener shows of a route configuration of its own: the one cluster it all goes to, or its matches."""
    hosts = messages(routes, "virtual_hosts")
    cluster = _only_cluster(hosts)
    if cluster:
        return to_cluster(cluster)
    return f"Inline Route: {'; '.join(map(_inline, hosts))}"


def to_cluster(name: str) -> str:
    """Names such as PassthroughCluster say themselves what they are."""
    return name if "Cluster" in name else f"Cluster: {name}"


def _only_cluster(hosts: list[Message]) -> str:
    routes = messages(hosts[0], "routes") if len(hosts) == 1 and texts(hosts[0], "domains") == ["*"] else []
    return text(routes[0], "route", "cluster") if len(routes) == 1 and text(routes[0], "match", "prefix") == "/" else ""


def _inline(host: Message) -> str:
    matches = ", ".join(match_of(message(route, "match") or {}) for route in messages(host, "routes"))
    domains = texts(host, "domains")
    return matches if domains == ["*"] or not domains else f"{'/'.join(domains)} {matches}"
