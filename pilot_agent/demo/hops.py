"""The hops of one request, told in their order: a title each, and what was measured there.

Names of listeners, filter chains and routes come from Envoy's own configuration. Called by steps.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pilot_agent.demo import envoy_view
from pilot_agent.demo.access_log import AccessLogLine
from pilot_agent.demo.passage import Moved, Passage, header
from pilot_agent.demo.pod import Pod
from pilot_agent.errors import DemoError

ARRIVING = ("PREROUTING", "ISTIO_INBOUND", "ISTIO_IN_REDIRECT", "ISTIO_TPROXY", "ISTIO_DIVERT")
"""The chains of a packet that comes in, in its order."""
OUTBOUND = "ISTIO_REDIRECT"
SHARED = "this one and, below, Envoy's own"


class Hop(NamedTuple):
    title: str
    lines: tuple[str, ...]


def tell(passage: Passage, client: Pod, server: Pod) -> Iterator[str]:
    """Numbered, in their order. Without capture there are no rules to tell of."""
    for number, hop in enumerate(hops(passage, client, server), 1):
        yield f"{number}) {hop.title}"
        yield from (f"     {line}" for line in hop.lines)


def hops(passage: Passage, client: Pod, server: Pod) -> Iterator[Hop]:
    line, other, source = passage.client_line, passage.server_line, passage.seen["source"]
    caught, own = split(passage.client_moved)
    caught = [each._replace(purpose=SHARED) if each.packets > 1 and not each.purpose else each for each in caught]
    if caught:
        yield Hop(f"{client.name}, curl: its connection to {line.downstream_local_address} is caught", rules(caught))
    yield Hop(f"{client.name}, Envoy{_as_user(client)}", tuple(_outbound(client, line)))
    if own:
        yield Hop(f"{client.name}, Envoy: its own connection to {line.upstream_host} is let out", rules(own))
    arriving, leaving = arrived(passage.server_moved), sent(passage.server_moved)
    if arriving:
        yield Hop(f"{server.name}: a connection from {other.downstream_remote_address} is caught", rules(arriving))
    yield Hop(f"{server.name}, Envoy{_as_user(server)}", tuple(_inbound(server, passage)))
    if leaving:
        yield Hop(f"{server.name}, Envoy: its connection from {source} to the application is let pass", rules(leaving))
    yield Hop(f"{server.name}, application: a request from {source}", tuple(_application(passage)))
    yield Hop(f"{client.name}, curl", (f"{passage.answer.status} {passage.answer.body.strip()}",))


def split(movements: Sequence[Moved]) -> tuple[list[Moved], list[Moved]]:
    """The client's rules: those that caught the application's packet, and those that met Envoy's own."""
    first = [each for each in movements if each.chain in ("OUTPUT", OUTBOUND) or each.target == OUTBOUND]
    return first, [each for each in movements if each not in first]


def arrived(movements: Sequence[Moved]) -> list[Moved]:
    """Those that a packet from outside meets, in the order it does."""
    found = [each for each in movements if each.chain in ARRIVING]
    return sorted(found, key=lambda each: (ARRIVING.index(each.chain), each.number))


def sent(movements: Sequence[Moved]) -> list[Moved]:
    return [each for each in movements if each.chain not in ARRIVING]


def rules(movements: Sequence[Moved]) -> tuple[str, ...]:
    """A line for each: where it stands, the rule, how many packets it counted, what it is for."""
    places = [f"{each.table} {each.chain} {each.number}" for each in movements]
    wide, long = max(map(len, places)), max(len(each.rule) for each in movements)
    return tuple(
        f"{place:<{wide}}  {each.rule:<{long}}  +{each.packets:<2} {each.purpose}".rstrip()
        for place, each in zip(places, movements, strict=True)
    )


def _outbound(client: Pod, line: AccessLogLine) -> Iterator[str]:
    port = int(line.downstream_local_address.rpartition(":")[2])
    handed = envoy_view.listener_of(client, port)
    if handed is None:
        raise DemoError(f"{client.name}: Envoy has no listener for port {port}")
    yield f"listener    {'virtualOutbound -> ' if client.is_isolated else ''}{handed.name}"
    yield f"route       {envoy_view.route_name(handed)} ({line.route_name})"
    yield f"cluster     {line.upstream_cluster}"
    yield f"endpoint    {line.upstream_host}"
    yield f"access log  {line.text}"


def _inbound(server: Pod, passage: Passage) -> Iterator[str]:
    line, peer = passage.server_line, passage.forwarded_certificate
    port = int(line.downstream_local_address.rpartition(":")[2])
    entry = envoy_view.listener_of(server, server.ports.inbound if server.is_isolated else port)
    if entry is None:
        raise DemoError(f"{server.name}: Envoy has no listener for port {port}")
    yield f"listener    {entry.name}, filter chain {envoy_view.tls_chain(entry, port)}"
    if "URI" in peer:
        yield f"mTLS        the peer is {peer['URI']}"
    yield f"cluster     {line.upstream_cluster}"
    yield f"endpoint    {line.upstream_host}, from {line.upstream_local_address}"
    yield f"access log  {line.text}"


def _application(passage: Passage) -> Iterator[str]:
    seen = passage.seen
    yield f"GET {seen['path']} at {seen['destination']}"
    certificate = header(seen, "x-forwarded-client-cert")
    if certificate:
        yield f"x-forwarded-client-cert: {certificate}"


def _as_user(pod: Pod) -> str:
    if pod.user is None:
        return ""
    capabilities = "".join(f", CAP_{each.upper()}" for each in pod.user.capabilities if each == "net_admin")
    return f" (uid {pod.user.uid}, gid {pod.user.gid}{capabilities})"
