"""`http[]` of a VirtualService: which of the four ways a route has to answer, and all that is said beside it.

Part of reading a VirtualService; the rules are those of Istio's own validation where an element has an effect here.
"""

from typing import NamedTuple

from pilot_agent.mesh.reading import http_changes, http_policies
from pilot_agent.mesh.reading.destination import MAX_DESTINATIONS, check_weights, destination, weight
from pilot_agent.mesh.reading.fields import Field
from pilot_agent.mesh.reading.http_match import http_matches
from pilot_agent.mesh.traffic import DirectResponse, HttpRoute, Redirect, WeightedDestination

MAX_ROUTES = 1024

_KEYS = (
    "name",
    "match",
    "route",
    "redirect",
    "directResponse",
    "delegate",
    "rewrite",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirrors",
    "mirrorPercentage",
    "mirrorPercent",
    "corsPolicy",
    "headers",
)


class _Action(NamedTuple):
    """What a route does: one of its four ways to answer a request."""

    destinations: tuple[WeightedDestination, ...] = ()
    redirect: Redirect | None = None
    direct_response: DirectResponse | None = None
    delegate: tuple[str, str] | None = None


def http_routes(field: Field, namespace: str, is_delegate: bool) -> tuple[HttpRoute, ...]:
    """The routes of `http`. Those whose matches are all for other gateways are left out."""
    routes = (_route(item, namespace, is_delegate) for item in field.items(MAX_ROUTES))
    return tuple(route for route in routes if route is not None)


def _route(field: Field, namespace: str, is_delegate: bool) -> HttpRoute | None:
    field.mapping(_KEYS)
    action = _action(field, namespace, is_delegate)
    matches = http_matches(field["match"], is_delegate or action.delegate is not None)
    headers, authority = http_changes.route_headers(field["headers"])
    route = HttpRoute(
        name=field["name"].optional_text(),
        matches=matches or (),
        destinations=action.destinations,
        redirect=action.redirect,
        direct_response=action.direct_response,
        delegate=action.delegate,
        rewrite=http_changes.rewrite(field["rewrite"], authority),
        timeout=field["timeout"].if_set(Field.duration),
        retries=field["retries"].if_set(http_policies.retries),
        fault=field["fault"].if_set(http_policies.fault),
        mirrors=http_policies.mirrors(field),
        cors=field["corsPolicy"].if_set(http_policies.cors),
        headers=headers,
        place=field.place,
    )
    return None if matches is None else route


def _action(field: Field, namespace: str, is_delegate: bool) -> _Action:
    ways = [way for way in ("delegate", "redirect", "directResponse", "route") if field[way].is_set]
    if not ways:
        field.refuse("has nowhere to go: give route, redirect, directResponse or delegate")
    if len(ways) > 1:
        field[ways[1]].refuse(f"is given beside {ways[0]}: keep one of them")
    way = field[ways[0]]
    if ways[0] in ("redirect", "directResponse"):
        for key in ("fault", "rewrite"):
            if field[key].is_set:
                field[key].refuse(f"has no effect with {ways[0]}: remove one of them")
    if ways[0] == "delegate":
        if is_delegate:
            way.refuse("is in a delegate (it has no hosts), which can't have one of its own")
        way.mapping(("name", "namespace"))
        return _Action(delegate=(way["name"].text(), way["namespace"].optional_text() or namespace))
    if ways[0] == "redirect":
        return _Action(redirect=http_changes.redirect(way))
    if ways[0] == "directResponse":
        return _Action(direct_response=http_changes.direct_response(way))
    destinations = tuple(_weighted(item) for item in way.items(MAX_DESTINATIONS))
    check_weights(way, [each.weight for each in destinations])
    return _Action(destinations=destinations)


def _weighted(field: Field) -> WeightedDestination:
    field.mapping(("destination", "weight", "headers"))
    return WeightedDestination(
        destination(field["destination"]), weight(field), http_changes.destination_headers(field["headers"])
    )
