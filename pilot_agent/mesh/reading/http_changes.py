"""What a VirtualService's routes change in requests and responses: headers, rewrites, redirects, answers of their own.

Part of reading a VirtualService, used by http_route.
"""

from pilot_agent.mesh.reading.fields import Field, shown
from pilot_agent.mesh.reading.http_match import regex
from pilot_agent.mesh.traffic import DirectResponse, HeaderChanges, Headers, Redirect, Rewrite

MAX_HEADERS = 256
MAX_BODY = 2**20

_REDIRECT_KEYS = ("uri", "authority", "scheme", "port", "derivePort", "redirectCode")
_REDIRECT_CODES = (301, 302, 303, 307, 308)
_DERIVED_PORTS = ("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT")


def redirect(field: Field) -> Redirect:
    field.mapping(_REDIRECT_KEYS)
    if not any(field[key].value for key in ("uri", "authority", "scheme", "port", "derivePort")):
        field.refuse("changes nothing: give uri, authority, scheme or port")
    code, derived = field["redirectCode"], field["derivePort"]
    if code.value not in (None, 0, *_REDIRECT_CODES):
        code.refuse(f"{shown(code.value)} is not usable: give one of {', '.join(map(str, _REDIRECT_CODES))}")
    if field["port"].value and derived.is_set:
        derived.refuse("is given beside port: keep one of them")
    return Redirect(
        uri=field["uri"].optional_text(),
        authority=field["authority"].optional_text(),
        scheme=field["scheme"].choice(("http", "https")) if field["scheme"].optional_text() else "",
        port=field["port"].port() if field["port"].value else None,
        derive_port=derived.choice(_DERIVED_PORTS) if derived.is_set else "",
        code=code.whole_number(301, 308) if code.value else 301,
    )


def direct_response(field: Field) -> DirectResponse:
    field.mapping(("status", "body"))
    body = field["body"].mapping(("string", "bytes"))
    if body["string"].is_set and body["bytes"].is_set:
        body["bytes"].refuse("is given beside string: keep one of them")
    return DirectResponse(field["status"].whole_number(200, 599), _body(body))


def _body(field: Field) -> str:
    value = field["string"].value if field["string"].is_set else field["bytes"].value
    key = "string" if field["string"].is_set else "bytes"
    if value is None:
        return ""
    if not isinstance(value, str):
        field[key].refuse(f"{shown(value)} is not text: put it in quotes")
    try:
        if key == "bytes":
            import base64

            value = base64.b64decode(value, validate=True).decode()
        size = len(value.encode())
    except ValueError:
        field[key].refuse("can't be sent: give UTF-8 text, in base64 where it stands below bytes")
    if size > MAX_BODY:
        field[key].refuse(f"has {size} bytes: Envoy answers with {MAX_BODY} at most")
    return value


def rewrite(field: Field, authority: str) -> Rewrite | None:
    """`authority` is what the route's headers set, which is a rewrite too."""
    field.mapping(("uri", "authority", "uriRegexRewrite"))
    uri, own = field["uri"].optional_text(), field["authority"].optional_text()
    pattern = field["uriRegexRewrite"]
    if own and authority:
        field["authority"].refuse("is set by headers.request of the route as well: keep one of them")
    if uri and pattern.is_set:
        pattern.refuse("is given beside uri: keep one of them")
    if field.is_set and not (uri or own or pattern.is_set):
        field.refuse("changes nothing: give uri, uriRegexRewrite or authority")
    if not field.is_set and not authority:
        return None
    return Rewrite(uri, own or authority, pattern.if_set(_regex_rewrite))


def _regex_rewrite(field: Field) -> tuple[str, str]:
    field.mapping(("match", "rewrite"))
    return regex(field["match"]), field["rewrite"].text()


def route_headers(field: Field) -> tuple[Headers, str]:
    """A route's changes, without those of the host: Envoy has an option of its own for that, which rewrite sets."""
    changes = headers(field)
    request = changes.request
    kept = request._replace(set=_without_host(request.set), add=_without_host(request.add))
    return changes._replace(request=kept), _new_host(field, changes)


def destination_headers(field: Field) -> Headers:
    """The changes for one of a route's destinations; the new host, if there is one, is the last of those that set."""
    changes = headers(field)
    request, host = changes.request, _new_host(field, changes)
    added = _without_host(request.set)
    kept = request._replace(set=(*added, (":authority", host)) if host else added, add=_without_host(request.add))
    return changes._replace(request=kept)


def _new_host(field: Field, changes: Headers) -> str:
    """ "" where the host stays."""
    named = [(key, pair) for key in ("set", "add") for pair in getattr(changes.request, key) if _is_host(pair[0])]
    for key, (name, _) in named[1:]:
        field["request"][key][name].refuse("sets the host a second time: keep one of them")
    return named[0][1][1] if named else ""


def _without_host(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in pairs if not _is_host(pair[0]))


def _is_host(name: str) -> bool:
    return name.lower() in ("host", ":authority")


def headers(field: Field) -> Headers:
    field.mapping(("request", "response"))
    return Headers(_changes(field["request"], is_request=True), _changes(field["response"], is_request=False))


def _changes(field: Field, is_request: bool) -> HeaderChanges:
    field.mapping(("set", "add", "remove"))
    for key in ("set", "add"):
        for entry in field[key].entries(MAX_HEADERS):
            if not (is_request and _is_host(entry.name)):
                _check_changeable(entry, entry.name)
    for item in field["remove"].items(MAX_HEADERS):
        _check_changeable(item, item.text())
    return HeaderChanges(
        set=tuple((entry.name, _header_value(entry)) for entry in field["set"].entries(MAX_HEADERS)),
        add=tuple((entry.name, _header_value(entry)) for entry in field["add"].entries(MAX_HEADERS)),
        remove=tuple(item.text() for item in field["remove"].items(MAX_HEADERS)),
    )


def _check_changeable(field: Field, name: str) -> None:
    if not name or name.startswith(":") or _is_host(name):
        field.refuse(f"{shown(name)} can't be changed: Envoy keeps the host and headers that begin with a colon")
    if not name.isprintable() or not name.isascii() or " " in name:
        field.refuse(f"{shown(name)} is not the name of a header")


def _header_value(field: Field) -> str:
    """Text in which `%` begins one of Envoy's commands, such as %HOSTNAME%, or stands for itself as `%%`."""
    text = field.optional_text()
    if "%" in text:
        from pilot_agent.mesh.reading.header_commands import complaint

        problem = complaint(text)
        if problem:
            field.refuse(f"{shown(text)} can't be sent: {problem}")
    return text
