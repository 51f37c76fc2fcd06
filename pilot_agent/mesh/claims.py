"""Who may have which host, port and listener: the conflicts between services that Envoy would refuse or mix up.

The reader claims for each file in turn; what it can't have is the other file's, and the reason names it. Pure.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pilot_agent.mesh.model import Options, Origin, Path, Resource, Service, ServiceEndpoints, ServicePort
from pilot_agent.mesh.names import chain_matches, domains, listener_addresses
from pilot_agent.mesh.registry import services_of


class Conflict(NamedTuple):
    """What the document at `origin` can't have, where it asks for it, and why not."""

    origin: Origin
    path: Path
    reason: str


class Claim(NamedTuple):
    """`key` is what can be had once, unless both say the same non-empty `share`. `what` is its name in a message."""

    key: tuple[str, ...]
    share: str
    what: str
    path: Path
    origin: Origin
    owner: str


class Claims:
    """The claims of the files accepted so far."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._held: dict[tuple[str, ...], Claim] = {}

    def add(self, resources: Iterable[Resource]) -> Conflict | None:
        """Claim everything one file needs; all of it or, with the reason as result, none of it."""
        mine: dict[tuple[str, ...], Claim] = {}
        for resource in resources:
            for claim in _claims(resource, self._options):
                if conflict := self._check(claim, mine):
                    return conflict
                mine.setdefault(claim.key, claim)
        for key, claim in mine.items():
            self._held.setdefault(key, claim)
        return None

    def _check(self, claim: Claim, mine: dict[tuple[str, ...], Claim]) -> Conflict | None:
        if claim.key[0] == "reserved":
            return _conflict(claim, f"{claim.what} is a port of the agent or of Envoy itself: use another port")
        holder = self._held.get(claim.key) or mine.get(claim.key)
        if holder is None or (claim.share and claim.share == holder.share):
            return None
        if holder.origin == claim.origin and not claim.share:
            return None  # an entry's own hosts share its addresses: the first host has them, as in Istio
        owner = f"{holder.owner} ({holder.origin.file}:{holder.origin.line})"
        if claim.share:
            return _conflict(claim, f"{claim.what} is {claim.share} here but {holder.share} in {owner}: change one")
        return _conflict(claim, f"{claim.what} belongs to {owner} already: change or remove one of them")


def _conflict(claim: Claim, reason: str) -> Conflict:
    return Conflict(claim.origin, claim.path, reason)


def _claims(resource: Resource, options: Options) -> Iterator[Claim]:
    origin, kind = resource.origin, type(resource).__name__
    if resource.name and not isinstance(resource, ServiceEndpoints):  # of which there are two kinds, and many a service
        what = f"the name {resource.name} of a {kind} in namespace {resource.namespace}"
        yield Claim(
            ("name", kind, resource.namespace, resource.name), "", what, ("metadata", "name"), origin, "another"
        )
    reserved = {*options.reserved, options.outbound_port, options.inbound_port}
    for service in services_of(resource, options):
        for port in service.ports:
            if port.number in reserved:
                path = ("spec", "ports", port.place, _number(resource))
                yield Claim(("reserved",), "", str(port.number), path, origin, service.name)
            for domain in domains(service.host, options.namespace) if port.is_http else [service.host]:
                key = ("domain", str(port.number), domain.lower())
                yield Claim(key, "", f"{domain}:{port.number}", service.path, origin, service.name)
            yield from _listener_claims(service, port, options, _number(resource))


def _number(resource: Resource) -> str:
    """The field of a port's number."""
    return "number" if type(resource).__name__ == "ServiceEntry" else "port"


def _listener_claims(service: Service, port: ServicePort, options: Options, number: str) -> Iterator[Claim]:
    if service.is_headless and not port.is_http:
        return  # it listens where its endpoints are, which other documents tell
    path, origin = ("spec", "ports", port.place), service.origin
    for address in listener_addresses(service, port, options):
        listener = f"listener {address}_{port.number}"
        family = "HTTP" if port.is_http else "TCP"
        yield Claim(("listener", listener), family, listener, (*path, "protocol"), origin, service.name)
        if not port.is_http:
            for match in chain_matches(service, port, address, options):
                what = " for ".join(filter(None, [listener, *match]))
                yield Claim(("chain", listener, *match), "", what, (*path, number), origin, service.name)
    if port.is_http:
        for vip in service.vips:
            key, what = ("domain", str(port.number), vip), f"{vip}:{port.number}"
            yield Claim(key, "", what, ("spec", "addresses"), origin, service.name)
