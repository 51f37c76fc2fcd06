"""`trafficPolicy` of a DestinationRule, for all its host, one port or a subset: balancing, limits, ejection, TLS.

Part of reading a DestinationRule; the rules are those of Istio's own validation where an element has an effect here.
"""

from typing import cast

from pilot_agent.mesh.policy import (
    ClientTls,
    ConnectionPool,
    ConsistentHash,
    Cookie,
    LoadBalancer,
    OutlierDetection,
    TlsMode,
    TrafficPolicy,
)
from pilot_agent.mesh.reading.fields import Field, shown

MAX_PORTS = 256
MAX_SUBJECTS = 256
MAX_COUNT = 2**31 - 1
MAX_RING = 8 * 2**20  # Envoy's limits of the hash tables
MAX_TABLE = 5_000_011

_PART_KEYS = ("loadBalancer", "connectionPool", "outlierDetection", "tls")
_SIMPLE = ("UNSPECIFIED", "ROUND_ROBIN", "LEAST_REQUEST", "LEAST_CONN", "RANDOM", "PASSTHROUGH")
_BALANCER_KEYS = ("simple", "consistentHash", "warmup", "warmupDurationSecs")
_HASHES = ("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName")
_TABLES = ("ringHash", "maglev", "minimumRingSize")
_TCP_KEYS = ("maxConnections", "connectTimeout", "idleTimeout", "maxConnectionDuration", "tcpKeepalive")
_HTTP_KEYS = (
    "http1MaxPendingRequests",
    "http2MaxRequests",
    "maxRequestsPerConnection",
    "maxRetries",
    "idleTimeout",
    "h2UpgradePolicy",
    "useClientProtocol",
    "maxConcurrentStreams",
)
_UPGRADES = ("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE")
_OUTLIER_KEYS = (
    "consecutive5xxErrors",
    "consecutiveGatewayErrors",
    "splitExternalLocalOriginErrors",
    "consecutiveLocalOriginFailures",
    "interval",
    "baseEjectionTime",
    "maxEjectionPercent",
    "minHealthPercent",
)
_TLS_KEYS = (
    "mode",
    "clientCertificate",
    "privateKey",
    "caCertificates",
    "sni",
    "subjectAltNames",
    "insecureSkipVerify",
)
_TLS_MODES = ("DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL")


def traffic_policy(field: Field) -> TrafficPolicy:
    field.mapping((*_PART_KEYS, "portLevelSettings"))
    ports: dict[int, TrafficPolicy] = {}
    for item in field["portLevelSettings"].items(MAX_PORTS):
        item.mapping(("port", *_PART_KEYS))
        number = item["port"].mapping(("number",))["number"]
        if number.port() in ports:
            number.refuse(f"{number.port()} is there twice: remove one of them")
        ports[number.port()] = _parts(item)
    return _parts(field)._replace(ports=ports)


def _parts(field: Field) -> TrafficPolicy:
    return TrafficPolicy(
        load_balancer=field["loadBalancer"].if_set(_load_balancer),
        connection_pool=field["connectionPool"].if_set(_connection_pool),
        outlier_detection=field["outlierDetection"].if_set(_outlier_detection),
        tls=field["tls"].if_set(_tls),
    )


def _load_balancer(field: Field) -> LoadBalancer:
    field.mapping(_BALANCER_KEYS)
    simple, consistent = field["simple"], field["consistentHash"]
    if simple.is_set and consistent.is_set:
        consistent.refuse("is given beside simple: keep one of them")
    if field["warmup"].is_set and field["warmupDurationSecs"].is_set:
        field["warmupDurationSecs"].refuse("is given beside warmup, which replaces it: remove it")
    warmup = field["warmup"].mapping(("duration",))
    if warmup.is_set and not warmup["duration"].is_set:
        warmup["duration"].refuse("is missing: say how long the warm-up takes, such as 30s")
    return LoadBalancer(
        simple=_simple(simple) if simple.is_set else "",
        consistent_hash=consistent.if_set(_consistent_hash),
        warmup=(warmup["duration"] if warmup.is_set else field["warmupDurationSecs"]).if_set(Field.duration),
    )


def _simple(field: Field) -> str:
    """LEAST_CONN is the old name of LEAST_REQUEST."""
    return {"UNSPECIFIED": "", "LEAST_CONN": "LEAST_REQUEST"}.get(name := field.choice(_SIMPLE), name)


def _consistent_hash(field: Field) -> ConsistentHash:
    field.mapping((*_HASHES, *_TABLES))
    for keys in (_HASHES, _TABLES):
        given = [key for key in keys if field[key].is_set]
        if len(given) > 1:
            field[given[1]].refuse(f"is given beside {given[0]}: keep one of them")
    uses_source_ip = field["useSourceIp"].flag()
    if not any(field[key].value for key in _HASHES):
        field.refuse(f"has nothing to hash: give one of {', '.join(_HASHES)}")
    ring = field["ringHash"].mapping(("minimumRingSize",))["minimumRingSize"]
    size = ring if field["ringHash"].is_set else field["minimumRingSize"]
    return ConsistentHash(
        header=field["httpHeaderName"].optional_text(),
        cookie=field["httpCookie"].if_set(_cookie),
        uses_source_ip=uses_source_ip,
        query_parameter=field["httpQueryParameterName"].optional_text(),
        minimum_ring_size=(size.whole_number(0, MAX_RING) or None) if size.is_set else None,
        maglev_table_size=field["maglev"].if_set(_maglev),
    )


def _cookie(field: Field) -> Cookie:
    field.mapping(("name", "path", "ttl"))
    return Cookie(field["name"].text(), field["path"].optional_text(), field["ttl"].if_set(lambda ttl: ttl.duration(0)))


def _maglev(field: Field) -> int:
    size = field.mapping(("tableSize",))["tableSize"]
    number = size.whole_number(1, MAX_TABLE)
    if any(number % factor == 0 for factor in range(2, int(number**0.5) + 1)):
        size.refuse(f"{number} is not a prime number, as Maglev needs: use 65537, for instance")
    return number


def _connection_pool(field: Field) -> ConnectionPool:
    field.mapping(("tcp", "http"))
    tcp = field["tcp"].mapping(_TCP_KEYS)
    http = field["http"].mapping(_HTTP_KEYS)
    keepalive = tcp["tcpKeepalive"].mapping(("probes", "time", "interval"))
    upgrade = http["h2UpgradePolicy"].choice(_UPGRADES) if http["h2UpgradePolicy"].is_set else ""
    if upgrade == "UPGRADE" and http["useClientProtocol"].flag():
        http["useClientProtocol"].refuse("is true beside h2UpgradePolicy UPGRADE: keep one of them")
    return ConnectionPool(
        max_connections=_count(tcp["maxConnections"]),
        connect_timeout=tcp["connectTimeout"].if_set(Field.duration),
        tcp_idle_timeout=tcp["idleTimeout"].if_set(Field.duration),
        max_connection_duration=tcp["maxConnectionDuration"].if_set(Field.duration),
        keepalive_probes=_count(keepalive["probes"]),
        keepalive_time=keepalive["time"].if_set(Field.duration),
        keepalive_interval=keepalive["interval"].if_set(Field.duration),
        max_pending_requests=_count(http["http1MaxPendingRequests"]),
        max_requests=_count(http["http2MaxRequests"]),
        max_requests_per_connection=_count(http["maxRequestsPerConnection"]),
        max_retries=_count(http["maxRetries"]),
        idle_timeout=http["idleTimeout"].if_set(Field.duration),
        h2_upgrade="" if upgrade == "DEFAULT" else upgrade,
        uses_client_protocol=http["useClientProtocol"].flag(),
        max_concurrent_streams=_count(http["maxConcurrentStreams"]),
    )


def _count(field: Field) -> int | None:
    """A limit; 0 is protobuf's "not given"."""
    return (field.whole_number(0, MAX_COUNT) or None) if field.is_set else None


def _outlier_detection(field: Field) -> OutlierDetection:
    field.mapping(_OUTLIER_KEYS)
    splits = field["splitExternalLocalOriginErrors"].flag()
    local = field["consecutiveLocalOriginFailures"].if_set(_errors)
    if local and not splits:
        field["consecutiveLocalOriginFailures"].refuse(
            "counts only with splitExternalLocalOriginErrors: set it to true"
        )
    return OutlierDetection(
        consecutive_5xx=field["consecutive5xxErrors"].if_set(_errors),
        consecutive_gateway=field["consecutiveGatewayErrors"].if_set(_errors),
        splits_local_errors=splits,
        consecutive_local=local,
        interval=field["interval"].if_set(Field.duration),
        base_ejection_time=field["baseEjectionTime"].if_set(Field.duration),
        max_ejection_percent=field["maxEjectionPercent"].if_set(_percent),
        min_health_percent=field["minHealthPercent"].if_set(_percent),
    )


def _errors(field: Field) -> int:
    """How many in a row; 0 turns the check off."""
    return field.whole_number(0, 2**32 - 1)


def _percent(field: Field) -> int:
    return field.whole_number(0, 100)


def _tls(field: Field) -> ClientTls:
    field.mapping(_TLS_KEYS)
    mode = field["mode"]
    if not mode.is_set:
        mode.warn("is missing, which means DISABLE: no TLS; write the mode")
    tls = ClientTls(
        mode=cast(TlsMode, mode.choice(_TLS_MODES)) if mode.is_set else "DISABLE",
        client_certificate=field["clientCertificate"].optional_text(),
        private_key=field["privateKey"].optional_text(),
        ca_certificates=field["caCertificates"].optional_text(),
        sni=field["sni"].optional_text(),
        subject_alt_names=tuple(item.text() for item in field["subjectAltNames"].items(MAX_SUBJECTS)),
        skips_verification=field["insecureSkipVerify"].flag(),
    )
    _check_tls(field, tls)
    return tls


def _check_tls(field: Field, tls: ClientTls) -> None:
    files = ("clientCertificate", "privateKey")
    if tls.mode == "MUTUAL":
        for key in files:
            if not field[key].optional_text():
                field[key].refuse("is missing: mode MUTUAL needs the path of a PEM file")
    unused = {"SIMPLE": files, "MUTUAL": (), "ISTIO_MUTUAL": (*files, "caCertificates"), "DISABLE": _TLS_KEYS[1:]}
    for key in unused[tls.mode]:
        if field[key].value:
            field[key].warn(f"has no effect with mode {tls.mode}")
    if tls.skips_verification and tls.mode in ("SIMPLE", "MUTUAL"):
        for key in ("caCertificates", "subjectAltNames"):
            if field[key].value:
                field[key].refuse(f"{shown(field[key].value)} is given beside insecureSkipVerify: keep one of them")
