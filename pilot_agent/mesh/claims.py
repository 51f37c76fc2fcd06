"""Who may have which host, port and listener: the conflicts between ServiceEntries that Envoy would refuse or mix up.

The reader claims for each file in turn; what it can't have is the other file's, and the reason names it. Pure.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pilot_agent.mesh.model import Options, Path, ServiceEntry, ServicePort
from pilot_agent.mesh.names import chain_matches, domains, listener_addresses


class Conflict(NamedTuple):
    """What `entry` can't have, where it asks for it, and why not."""

    entry: ServiceEntry
    path: Path
    reason: str


class Claim(NamedTuple):
    """`key` is what can be had once, unless both say the same non-empty `share`. `what` is its name in a message."""

    key: tuple[str, ...]
    share: str
    what: str
    path: Path
    entry: ServiceEntry


class Claims:
    """The claims of the files accepted so far."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._held: dict[tuple[str, ...], Claim] = {}

    def add(self, entries: tuple[ServiceEntry, ...]) -> Conflict | None:
        """Claim everything one file needs; all of it or, with the reason as result, none of it."""
        mine: dict[tuple[str, ...], Claim] = {}
        for entry in entries:
            for claim in _claims(entry, self._options):
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
        if holder.entry is claim.entry and not claim.share:
            return None  # an entry's own hosts share its addresses: the first host has them, as in Istio
        owner = f"{holder.entry.name} ({holder.entry.origin.file}:{holder.entry.origin.line})"
        if claim.share:
            return _conflict(claim, f"{claim.what} is {claim.share} here but {holder.share} in {owner}: change one")
        return _conflict(claim, f"{claim.what} belongs to {owner} already: change or remove one of them")


def _conflict(claim: Claim, reason: str) -> Conflict:
    return Conflict(claim.entry, claim.path, reason)


def _claims(entry: ServiceEntry, options: Options) -> Iterator[Claim]:
    reserved = {*options.reserved, options.outbound_port, options.inbound_port}
    for port in entry.ports:
        path = ("spec", "ports", port.place)
        if port.number in reserved:
            yield Claim(("reserved",), "", str(port.number), (*path, "number"), entry)
        for index, host in enumerate(entry.hosts):
            for domain in domains(host, options.namespace) if port.is_http else [host]:
                key = ("domain", str(port.number), domain.lower())
                yield Claim(key, "", f"{domain}:{port.number}", ("spec", "hosts", index), entry)
        yield from _listener_claims(entry, port, options)


def _listener_claims(entry: ServiceEntry, port: ServicePort, options: Options) -> Iterator[Claim]:
    path = ("spec", "ports", port.place)
    for address in listener_addresses(entry, port, options):
        listener = f"listener {address}_{port.number}"
        family = "HTTP" if port.is_http else "TCP"
        yield Claim(("listener", listener), family, listener, (*path, "protocol"), entry)
        if not port.is_http:
            for match in chain_matches(entry, port, address, options):
                what = " for ".join(filter(None, [listener, *match]))
                yield Claim(("chain", listener, *match), "", what, (*path, "number"), entry)
    if port.is_http:
        for vip in entry.vips:
            yield Claim(("domain", str(port.number), vip), "", f"{vip}:{port.number}", ("spec", "addresses"), entry)
