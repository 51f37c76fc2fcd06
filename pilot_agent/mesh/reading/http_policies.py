"""How a VirtualService's routes try, fail and copy requests: retries, faults, mirrors, CORS.

Part of reading a VirtualService, used by http_route. A percentage that is not given is Istio's: 0 of a fault, 100 of a
mirror.
"""

from pilot_agent.mesh.reading.destination import MAX_DESTINATIONS, destination
from pilot_agent.mesh.reading.fields import Field, shown
from pilot_agent.mesh.reading.http_match import check_header_name, string_match
from pilot_agent.mesh.traffic import Cors, Fault, Mirror, Retries, StringMatch

MAX_ATTEMPTS = 2**31 - 1
MAX_NAMES = 256

_RETRY_KEYS = ("attempts", "perTryTimeout", "retryOn", "retryRemoteLocalities", "backoff")
_CORS_KEYS = (
    "allowOrigins",
    "allowOrigin",
    "allowMethods",
    "allowHeaders",
    "exposeHeaders",
    "maxAge",
    "allowCredentials",
)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*")
RETRY_ON = frozenset(
    "5xx gateway-error reset reset-before-request connect-failure retriable-4xx refused-stream retriable-status-codes "
    "retriable-headers envoy-ratelimited http3-post-connect-failure "
    "cancelled deadline-exceeded internal resource-exhausted unavailable".split()
)
GRPC_STATUSES = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
    "UNAUTHENTICATED".split()
)


def retries(field: Field) -> Retries:
    field.mapping(_RETRY_KEYS)
    attempts = field["attempts"].whole_number(0, MAX_ATTEMPTS) if field["attempts"].is_set else 0
    for key in _RETRY_KEYS[1:]:
        if not attempts and field[key].is_set:
            field[key].refuse("is given without attempts, so that there are no retries: give attempts, or remove it")
    remote = field["retryRemoteLocalities"]
    return Retries(
        attempts=attempts,
        per_try_timeout=field["perTryTimeout"].if_set(Field.duration),
        retry_on=_retry_on(field["retryOn"]),
        retry_remote_localities=remote.if_set(Field.flag),
        backoff=field["backoff"].if_set(Field.duration),
    )


def _retry_on(field: Field) -> str:
    text = field.optional_text()
    words = [word.strip() for word in text.split(",")] if text else []
    for word in words:
        is_code = word.isascii() and word.isdigit() and 100 <= int(word[:4]) <= 599
        if word not in RETRY_ON and not is_code:
            field.refuse(f"{shown(word)} is unknown: use HTTP codes and {', '.join(sorted(RETRY_ON))}")
    return ",".join(words)


def fault(field: Field) -> Fault:
    field.mapping(("delay", "abort"))
    delay = field["delay"].mapping(("fixedDelay", "percentage", "percent"))
    abort = field["abort"].mapping(("httpStatus", "grpcStatus", "percentage", "percent"))
    if not delay.is_set and not abort.is_set:
        field.refuse("does nothing: give delay or abort")
    status, grpc = abort["httpStatus"], abort["grpcStatus"]
    if status.is_set and grpc.is_set:
        grpc.refuse("is given beside httpStatus: keep one of them")
    if abort.is_set and not status.is_set and not grpc.is_set:
        abort.warn("has no httpStatus and no grpcStatus and has no effect")
    return Fault(
        delay=delay["fixedDelay"].duration() if delay.is_set else None,
        delay_percent=_fault_percent(delay),
        abort_status=status.whole_number(200, 599) if status.is_set else None,
        abort_grpc=_grpc_status(grpc) if grpc.is_set else "",
        abort_percent=_fault_percent(abort),
    )


def _fault_percent(fault: Field) -> float:
    """Of Istio, 0 where none is given: a fault that nobody sees."""
    if fault["percentage"].is_set:
        return _percent(fault["percentage"])
    if fault["percent"].is_set:
        return float(fault["percent"].whole_number(0, 100))
    if fault.is_set:
        fault.warn("has no percentage, which means 0: no request is affected; give percentage.value")
    return 0.0


def _percent(field: Field) -> float:
    value = field.mapping(("value",))["value"]
    return value.number(0, 100) if value.is_set else 0.0


def _grpc_status(field: Field) -> str:
    names = dict(enumerate(GRPC_STATUSES))
    text = str(field.value) if isinstance(field.value, int) and not isinstance(field.value, bool) else field.text()
    if text.upper() not in GRPC_STATUSES and text not in map(str, names):
        field.refuse(f"{shown(field.value)} is unknown: use 0 to {len(names) - 1} or one of {', '.join(GRPC_STATUSES)}")
    return text.upper()


def mirrors(field: Field) -> tuple[Mirror, ...]:
    found = [_mirror(item) for item in field["mirrors"].items(MAX_DESTINATIONS)]
    if field["mirror"].is_set:
        if found:
            field["mirror"].refuse("is given beside mirrors: keep one of them")
        percentage, percent = field["mirrorPercentage"], field["mirrorPercent"]
        share = 100.0
        if percentage.is_set:
            share = _percent(percentage)
        elif percent.is_set:
            share = float(percent.whole_number(0, 100))
        found = [Mirror(destination(field["mirror"]), share)]
    else:
        for key in ("mirrorPercentage", "mirrorPercent"):
            if field[key].is_set:
                field[key].warn("has no effect without mirror; below mirrors give percentage")
    return tuple(found)


def _mirror(field: Field) -> Mirror:
    field.mapping(("destination", "percentage"))
    percent = field["percentage"]
    share = _percent(percent) if percent.is_set else 100.0
    return Mirror(destination(field["destination"]), share, field.place)


def cors(field: Field) -> Cors:
    field.mapping(_CORS_KEYS)
    origins = tuple(_origin(item) for item in field["allowOrigins"].items(MAX_NAMES))
    plain = tuple(StringMatch("exact", item.text()) for item in field["allowOrigin"].items(MAX_NAMES))
    age = field["maxAge"].if_set(Field.duration)
    if age is not None and "." in age:
        field["maxAge"].refuse(f"{shown(field['maxAge'].value)} is finer than seconds, which is all CORS has: round it")
    return Cors(
        allow_origins=origins or plain,
        allow_methods=tuple(item.choice(_METHODS) for item in field["allowMethods"].items(MAX_NAMES)),
        allow_headers=_cors_names(field["allowHeaders"]),
        expose_headers=_cors_names(field["exposeHeaders"]),
        max_age=age,
        allow_credentials=field["allowCredentials"].if_set(Field.flag),
    )


def _origin(field: Field) -> StringMatch:
    match = string_match(field)
    if match is None or not match.value:
        field.refuse("is empty: give exact, prefix or regex")
    return match


def _cors_names(field: Field) -> tuple[str, ...]:
    """Header names, which here are values, or `*`."""
    items = field.items(MAX_NAMES)
    for item in items:
        if item.text() != "*":
            check_header_name(item, item.text())
    return tuple(item.text() for item in items)
