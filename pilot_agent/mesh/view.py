"""The mesh as one proxy sees it: every value its Envoy resources are rendered from, and what is wrong across documents.

Called by local after each reading; publish renders the result. Pure.
"""

from collections.abc import Iterable
from typing import NamedTuple

from pilot_agent.mesh.model import Options, Problem, Resource, Service
from pilot_agent.mesh.registry import register
from pilot_agent.mesh.resources.clusters import Clusters
from pilot_agent.mesh.resources.destinations import Destinations, Rules
from pilot_agent.mesh.resources.inbound import Inbound, inbound, no_identity
from pilot_agent.mesh.resources.outbound import Outbound, outbound
from pilot_agent.mesh.resources.peers import Peers
from pilot_agent.mesh.resources.routes import Routing
from pilot_agent.mesh.resources.scope import look

Values = dict[str, object]


class View(NamedTuple):
    """`clusters` are outbound ones, `endpoints` by file name; `services` those the proxy can reach."""

    services: tuple[Service, ...]
    inbound: Inbound
    outbound: Outbound
    clusters: list[Values]
    endpoints: dict[str, Values]
    policy: str
    problems: tuple[Problem, ...]


def see(resources: Iterable[Resource], options: Options) -> View:
    registry = register(resources, options)
    sight = look(registry, options)
    peers = Peers.of(registry.peer_authentications, options)
    rules = Rules(registry.destination_rules, options)
    destinations = Destinations(sight.services, rules, options)
    routing = Routing(registry.virtual_services, destinations, options)
    out = outbound(sight.scopes, routing, destinations, options, sight.outbound_policy)
    reached = {(service.origin, service.path): service for scope in sight.scopes for service in scope.services}
    reached.update(destinations.asked)  # a rule may lead to what no listener of this proxy is for
    clusters = Clusters(reached.values(), rules, peers, options)
    taken = frozenset(str(listener["name"]) for listener in out.listeners)
    into = inbound(registry.services, sight.sidecar, peers, options, taken)
    unkept = no_identity(peers, options)
    problems = [*registry.problems, *destinations.problems, *clusters.problems, *into.problems, *unkept]
    return View(
        services=tuple(reached.values()),
        inbound=into,
        outbound=out,
        clusters=clusters.values,
        endpoints=clusters.endpoints,
        policy=sight.outbound_policy,
        problems=tuple(dict.fromkeys(problems)),
    )
