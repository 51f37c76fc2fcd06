"""What a route does with requests besides choosing a cluster: retries, rewrites, redirects, faults, headers, hashes.

Each function gives the part of Envoy's route of that name. Called by routes; pure.
"""

import re

from pilot_agent.mesh.policy import TrafficPolicy
from pilot_agent.mesh.resources.matches import string_match
from pilot_agent.mesh.traffic import (
    Cors,
    Fault,
    HeaderChanges,
    Headers,
    HttpMatch,
    HttpRoute,
    Redirect,
    Retries,
)

Values = dict[str, object]
RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
_HOST = ("host", ":authority")
PARTS_OF_A_PERCENT = 10_000
"""Parts of a million in a percent."""


def retry(retries: Retries | None) -> Values | None:
    """Istio's default is two retries of what can't have been seen by the server."""
    if retries is None:
        retries = Retries(attempts=2)
    if retries.attempts == 0:
        return None
    words = [word for word in (retries.retry_on or RETRY_ON).split(",") if word]
    codes = [int(word) for word in words if word.isdigit()]
    if codes:
        words = [word for word in words if not word.isdigit()]
        if "retriable-status-codes" not in words:
            words.append("retriable-status-codes")
    return {
        "retry_on": ",".join(words),
        "num_retries": retries.attempts,
        "codes": codes,
        "per_try_timeout": retries.per_try_timeout,
        "backoff": retries.backoff,
        "leaves_locality": bool(retries.retry_remote_localities),
    }


def rewrite(route: HttpRoute, match: HttpMatch) -> Values:
    """host_rewrite_literal, and one of prefix_rewrite and regex_rewrite."""
    found: Values = {}
    rewrite = route.rewrite
    if rewrite is None:
        return found
    if rewrite.authority:
        found["host_rewrite_literal"] = rewrite.authority
    if rewrite.regex is not None:
        pattern, substitution = rewrite.regex
        found["regex_rewrite"] = {"pattern": {"regex": pattern}, "substitution": substitution}
    elif rewrite.uri:
        prefix = match.uri.value if match.uri is not None and match.uri.kind == "prefix" else ""
        if rewrite.uri == "/" and prefix not in ("", "/") and not prefix.endswith("/"):
            # /api/x must become /x, not //x, and /api itself /.
            pattern = f"^{'(?i)' if match.ignores_uri_case else ''}{re.escape(prefix)}(/?)(.*)"
            found["regex_rewrite"] = {"pattern": {"regex": pattern}, "substitution": r"/\2"}
        else:
            found["prefix_rewrite"] = rewrite.uri
    return found


def redirect(redirect: Redirect, port: int) -> Values:
    found: Values = {"response_code": _CODES[redirect.code]}
    if redirect.authority:
        found["host_redirect"] = redirect.authority
    if redirect.uri.startswith("%PREFIX()%"):
        found["prefix_rewrite"] = redirect.uri.removeprefix("%PREFIX()%")
    elif redirect.uri:
        found["path_redirect"] = redirect.uri
    if redirect.scheme:
        found["scheme_redirect"] = redirect.scheme
    if redirect.port is not None:
        found["port_redirect"] = redirect.port
    elif redirect.derive_port == "FROM_REQUEST_PORT":
        found["port_redirect"] = port
    elif redirect.derive_port == "FROM_PROTOCOL_DEFAULT":
        found["port_redirect"] = 443 if redirect.scheme == "https" else 80
    return found


def fault(fault: Fault) -> Values:
    found: Values = {}
    if fault.delay is not None:
        found["delay"] = {"fixed_delay": fault.delay, "percentage": _percentage(fault.delay_percent)}
    if fault.abort_status is not None:
        found["abort"] = {"http_status": fault.abort_status, "percentage": _percentage(fault.abort_percent)}
    elif fault.abort_grpc:
        found["abort"] = {"grpc_status": _grpc_status(fault.abort_grpc), "percentage": _percentage(fault.abort_percent)}
    return found


_GRPC = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
    "UNAUTHENTICATED"
).split()


def _grpc_status(name: str) -> int:
    return int(name) if name.isdigit() else _GRPC.index(name.upper())


def _percentage(percent: float) -> Values:
    return {"numerator": round(percent * PARTS_OF_A_PERCENT), "denominator": "MILLION"}


def cors(cors: Cors) -> Values:
    found: Values = {
        "allow_origin_string_match": [string_match(origin) for origin in cors.allow_origins],
        "allow_methods": ",".join(cors.allow_methods),
        "allow_headers": ",".join(cors.allow_headers),
        "expose_headers": ",".join(cors.expose_headers),
    }
    if cors.max_age is not None:
        found["max_age"] = cors.max_age.removesuffix("s")
    if cors.allow_credentials is not None:
        found["allow_credentials"] = cors.allow_credentials
    return {name: value for name, value in found.items() if value not in ("", [])}


def joined(route: Headers, destination: Headers) -> Headers:
    """Of a route and of its only destination."""

    def both(first: HeaderChanges, second: HeaderChanges) -> HeaderChanges:
        return HeaderChanges(first.set + second.set, first.add + second.add, first.remove + second.remove)

    return Headers(both(route.request, destination.request), both(route.response, destination.response))


def new_host(headers: Headers) -> Values:
    """Envoy changes the host by another field than other headers."""
    hosts = [value for name, value in (*headers.request.set, *headers.request.add) if name.lower() in _HOST]
    return {"host_rewrite_literal": hosts[-1]} if hosts else {}


def header_changes(headers: Headers, *, of_route: bool = False) -> Values:
    """Members of a route or, with the host, of a weighted cluster."""
    found: Values = {} if of_route else new_host(headers)
    for side, changes in (("request", headers.request), ("response", headers.response)):
        added = _added(changes)
        if added:
            found[f"{side}_headers_to_add"] = added
        if changes.remove:
            found[f"{side}_headers_to_remove"] = list(changes.remove)
    return {"headers": found}


def _added(changes: HeaderChanges) -> list[Values]:
    both = (("OVERWRITE_IF_EXISTS_OR_ADD", changes.set), ("APPEND_IF_EXISTS_OR_ADD", changes.add))
    return [
        {"header": {"key": name, "value": value}, "append_action": action}
        for action, pairs in both
        for name, value in pairs
        if name.lower() not in _HOST
    ]


def hash_policy(policy: TrafficPolicy) -> list[Values]:
    hashing = policy.load_balancer.consistent_hash if policy.load_balancer else None
    if hashing is None:
        return []
    if hashing.header:
        return [{"header": {"header_name": hashing.header}}]
    if hashing.cookie is not None:
        cookie = {"name": hashing.cookie.name, "path": hashing.cookie.path, "ttl": hashing.cookie.ttl}
        return [{"cookie": {name: value for name, value in cookie.items() if value}}]
    if hashing.uses_source_ip:
        return [{"connection_properties": {"source_ip": True}}]
    if hashing.query_parameter:
        return [{"query_parameter": {"name": hashing.query_parameter}}]
    return []
