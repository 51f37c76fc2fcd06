"""What a VirtualService that delegates and the one it delegates to say together. Called by routes; pure."""

from typing import Any

from pilot_agent.mesh.registry import selects
from pilot_agent.mesh.traffic import (
    Headers,
    HttpMatch,
    HttpRoute,
    StringMatch,
)

Values = dict[str, object]


def limited(outer: HttpRoute, inner: HttpRoute) -> HttpRoute | None:
    """A delegate's route, limited to what the root's matches let through, None where that is nothing.

    What the delegate does not say is as the root's route says.
    """
    matches = inner.matches or outer.matches
    if outer.matches and inner.matches:
        both = (_both(first, second) for second in inner.matches for first in outer.matches)
        matches = tuple(match for match in both if match is not None)
        if not matches:
            return None
    return inner._replace(
        name="-".join(filter(None, [outer.name, inner.name])),
        matches=matches,
        rewrite=inner.rewrite or (outer.rewrite if inner.destinations else None),
        timeout=inner.timeout or outer.timeout,
        retries=inner.retries or outer.retries,
        fault=inner.fault or outer.fault,
        mirrors=inner.mirrors or outer.mirrors,
        cors=inner.cors or outer.cors,
        headers=outer.headers if inner.headers == Headers() else inner.headers,
    )


def _both(outer: HttpMatch, inner: HttpMatch) -> HttpMatch | None:
    """A match for which both hold; None where they can't, or where Envoy has no way to say it."""
    single: dict[str, Any] = {}
    for name in ("scheme", "method", "authority", "port"):
        mine, theirs = getattr(outer, name), getattr(inner, name)
        if mine is not None and theirs is not None and mine != theirs:
            return None
        single[name] = mine if mine is not None else theirs
    uris = _both_uris(outer.uri, inner.uri)
    labels = {**outer.source_labels, **inner.source_labels}
    if not uris or not selects(outer.source_labels, labels):
        return None
    if outer.source_namespace and inner.source_namespace not in ("", outer.source_namespace):
        return None
    return inner._replace(
        **single,
        uri=uris[0],
        ignores_uri_case=inner.ignores_uri_case if inner.uri else outer.ignores_uri_case,
        name="-".join(filter(None, [outer.name, inner.name])),
        headers=(*outer.headers, *inner.headers),
        without_headers=(*outer.without_headers, *inner.without_headers),
        query_params=(*outer.query_params, *inner.query_params),
        source_labels=labels,
        source_namespace=inner.source_namespace or outer.source_namespace,
    )


def _both_uris(outer: StringMatch | None, inner: StringMatch | None) -> tuple[StringMatch | None, ...]:
    """The one that says both; nothing where there is no such."""
    if outer is None or inner is None or outer == inner:
        return (inner or outer,)
    if outer.kind == "prefix" and inner.kind in ("prefix", "exact") and inner.value.startswith(outer.value):
        return (inner,)
    return ()
