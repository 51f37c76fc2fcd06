"""`http[].match` of a VirtualService: which requests a route is for.

Part of reading a VirtualService, used by http_route; matches for other gateways than `mesh` are left out here.
"""

import re

from pilot_agent.mesh.reading.fields import Field, shown
from pilot_agent.mesh.reading.metadata import labels, namespace
from pilot_agent.mesh.traffic import HttpMatch, StringMatch

MAX_MATCHES = 256
MAX_GATEWAYS = 256
MAX_HEADERS = 256

_KEYS = (
    "name",
    "uri",
    "scheme",
    "method",
    "authority",
    "headers",
    "withoutHeaders",
    "queryParams",
    "ignoreUriCase",
    "port",
    "sourceLabels",
    "sourceNamespace",
    "gateways",
)
_KINDS = ("exact", "prefix", "regex")
_HEADER = re.compile(r"[-_A-Za-z0-9]+")


def http_matches(field: Field, is_delegating: bool) -> tuple[HttpMatch, ...] | None:
    """The matches of a route, none for every request; None when all of them are for other gateways.

    The matches of a route that is or has a delegate are joined with others, which no regular expression can be.
    """
    items = field.items(MAX_MATCHES)
    matches = tuple(_match(item, is_delegating) for item in items if is_for_mesh(item.mapping(_KEYS)))
    return None if items and not matches else matches


def is_for_mesh(owner: Field) -> bool:
    """False, with a warning, for what has `gateways` without `mesh`: those of an ingress, which this proxy is not."""
    gateways = owner["gateways"]
    names = [item.text() for item in gateways.items(MAX_GATEWAYS)]
    if names and "mesh" not in names:
        gateways.warn("has no `mesh`: this is for gateways only and has no effect here")
        return False
    return True


def string_match(field: Field) -> StringMatch | None:
    """One of exact, prefix, regex; None for `{}`, which means "is there" where that makes sense."""
    field.mapping(_KINDS)
    kinds = [kind for kind in _KINDS if field[kind].is_set]
    if len(kinds) > 1:
        field.refuse(f"has {' and '.join(kinds)}: keep one of them")
    if not kinds:
        return None
    kind = kinds[0]
    value = field[kind]
    if kind == "exact":
        return StringMatch("exact", value.optional_text())
    return StringMatch("prefix", value.text()) if kind == "prefix" else StringMatch("regex", regex(value))


def regex(field: Field) -> str:
    from pilot_agent.mesh.reading.regex import complaint

    problem = complaint(field.text())
    if problem:
        field.refuse(f"{shown(field.value)} is not a regular expression of RE2: {problem}")
    return field.text()


def check_header_name(field: Field, name: str) -> None:
    if not _HEADER.fullmatch(name):
        field.refuse(f"{shown(name)} is not the name of a header: use letters, digits, dashes and underscores")


def _match(field: Field, is_delegating: bool) -> HttpMatch:
    match = HttpMatch(
        name=field["name"].optional_text(),
        uri=_if_set(field["uri"]),
        scheme=_if_set(field["scheme"]),
        method=_if_set(field["method"]),
        authority=_if_set(field["authority"]),
        headers=_named(field["headers"], is_header=True),
        without_headers=_named(field["withoutHeaders"], is_header=True),
        query_params=_named(field["queryParams"], is_header=False),
        ignores_uri_case=field["ignoreUriCase"].flag(),
        port=port(field["port"]),
        source_labels=labels(field["sourceLabels"]),
        source_namespace=source_namespace(field["sourceNamespace"]),
    )
    if is_delegating:
        _refuse_regexes(field, match)
    return match


def port(field: Field) -> int | None:
    """The port of a match; 0 is protobuf's "not given"."""
    return None if field.value == 0 else field.if_set(Field.port)


def source_namespace(field: Field) -> str:
    return namespace(field) if field.optional_text() else ""


def _if_set(field: Field) -> StringMatch | None:
    return string_match(field) if field.is_set else None


def _named(field: Field, is_header: bool) -> tuple[tuple[str, StringMatch | None], ...]:
    found = []
    for entry in field.entries(MAX_HEADERS):
        if not entry.is_set:
            entry.refuse("is empty: write {} for one that only has to be there")
        if is_header:
            check_header_name(entry, entry.name)
        found.append((entry.name, string_match(entry)))
    return tuple(found)


def _refuse_regexes(field: Field, match: HttpMatch) -> None:
    for key, value in (
        ("uri", match.uri),
        ("scheme", match.scheme),
        ("method", match.method),
        ("authority", match.authority),
    ):
        if value is not None and value.kind == "regex":
            field[key].refuse("is a regular expression, which a delegation can't have: use exact or prefix")
    for key, values in (
        ("headers", match.headers),
        ("withoutHeaders", match.without_headers),
        ("queryParams", match.query_params),
    ):
        for name, value in values:
            if value is not None and value.kind == "regex":
                field[key][name].refuse("is a regular expression, which a delegation can't have: use exact or prefix")
