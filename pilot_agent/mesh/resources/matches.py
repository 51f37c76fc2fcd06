"""What a route's match says: of requests, as Envoy's RouteMatch, and of who sends them. Called by routes, actions and
outbound; pure.
"""

from pilot_agent.mesh.model import Options
from pilot_agent.mesh.registry import selects
from pilot_agent.mesh.traffic import ConnectionMatch, HttpMatch, StringMatch

Values = dict[str, object]


def is_ours(match: HttpMatch | ConnectionMatch, port: int, options: Options) -> bool:
    """What a match says of the listener's port and of the client, that is of this proxy."""
    return (
        match.port in (None, port)
        and match.source_namespace in ("", options.namespace)
        and selects(match.source_labels, options.labels)
    )


def request_match(match: HttpMatch) -> Values:
    found: Values = dict(_path(match.uri))
    if match.ignores_uri_case:
        found["case_sensitive"] = False
    headers = [_header(f":{name}", value) for name, value in _pseudo(match)]
    headers += [_header(name, value) for name, value in match.headers]
    headers += [_absent(name, value) for name, value in match.without_headers]
    if headers:
        found["headers"] = headers
    if match.query_params:
        found["query_parameters"] = [
            {"name": name, **({"present_match": True} if value is None else {"string_match": string_match(value)})}
            for name, value in match.query_params
        ]
    return found


def _pseudo(match: HttpMatch) -> list[tuple[str, StringMatch]]:
    values = (("scheme", match.scheme), ("method", match.method), ("authority", match.authority))
    return [(name, value) for name, value in values if value is not None]


def _path(uri: StringMatch | None) -> Values:
    if uri is None:
        return {"prefix": "/"}
    if uri.kind == "exact":
        return {"path": uri.value}
    return {"prefix": uri.value} if uri.kind == "prefix" else {"safe_regex": {"regex": uri.value}}


def string_match(match: StringMatch) -> Values:
    return {"safe_regex": {"regex": match.value}} if match.kind == "regex" else {match.kind: match.value}


def _header(name: str, value: StringMatch | None) -> Values:
    return {"name": name, **({"present_match": True} if value is None else {"string_match": string_match(value)})}


def _absent(name: str, value: StringMatch | None) -> Values:
    if value is None:
        return {"name": name, "present_match": True, "invert_match": True}
    return {
        "name": name,
        "string_match": string_match(value),
        "invert_match": True,
        "treat_missing_header_as_empty": True,
    }


def operation(match: HttpMatch) -> str:
    """The path as spans name it."""
    uri = match.uri
    if uri is None:
        return "/*"
    return f"{uri.value}*" if uri.kind == "prefix" else uri.value
