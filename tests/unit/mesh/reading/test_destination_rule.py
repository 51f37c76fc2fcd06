"""DestinationRule: what a whole one means, what each refusal says, what is left out with a warning."""

import pytest

from pilot_agent.mesh.policy import (
    ClientTls,
    ConnectionPool,
    ConsistentHash,
    Cookie,
    DestinationRule,
    LoadBalancer,
    OutlierDetection,
    Subset,
    TrafficPolicy,
)
from tests.unit.mesh.reading.outcome import DESTINATION_RULE, document, read_one, refusal, warnings


def rule(*lines: str) -> str:
    """A DestinationRule with these fields: the first of them is in line 6."""
    return document("DestinationRule", "spec:\n  host: a\n  " + "\n  ".join(lines))


def policy(text: str) -> TrafficPolicy:
    read = read_one(rule(f"trafficPolicy: {text}"))
    assert isinstance(read, DestinationRule)
    return read.policy


def test_a_whole_destination_rule_is_understood() -> None:
    found = read_one(DESTINATION_RULE)
    assert isinstance(found, DestinationRule)
    assert found._replace(origin=None) == DestinationRule(  # type: ignore[arg-type]
        origin=None,  # type: ignore[arg-type]
        name="x",
        namespace="demo",
        host="reviews",
        policy=TrafficPolicy(
            load_balancer=LoadBalancer("LEAST_REQUEST", warmup="30s"),
            connection_pool=ConnectionPool(
                max_connections=100,
                connect_timeout="0.03s",
                tcp_idle_timeout="3600s",
                max_connection_duration="7200s",
                keepalive_probes=3,
                keepalive_time="7200s",
                keepalive_interval="75s",
                max_pending_requests=1,
                max_requests=2,
                max_requests_per_connection=3,
                max_retries=4,
                idle_timeout="5s",
                h2_upgrade="UPGRADE",
                max_concurrent_streams=6,
            ),
            outlier_detection=OutlierDetection(7, 5, True, 2, "300s", "900s", 10, 50),
            tls=ClientTls("MUTUAL", "/c.pem", "/k.pem", "/ca.pem", "reviews.example.com", ("spiffe://a",)),
            ports={80: TrafficPolicy(load_balancer=LoadBalancer("ROUND_ROBIN"))},
        ),
        subsets=(
            Subset("v1", {"version": "v1"}),
            Subset(
                "v2",
                {},
                TrafficPolicy(
                    load_balancer=LoadBalancer(
                        consistent_hash=ConsistentHash(cookie=Cookie("user", "/", "0s"), minimum_ring_size=2048)
                    ),
                    tls=ClientTls("SIMPLE", skips_verification=True),
                ),
                place=1,
            ),
        ),
        selector={"app": "web"},
        export_to=(".",),
    )


def test_what_is_not_given_is_protobufs_default() -> None:
    bare = read_one(rule())
    assert isinstance(bare, DestinationRule)
    assert (bare.policy, bare.subsets, bare.selector) == (TrafficPolicy(), (), None)
    assert policy("{loadBalancer: {simple: UNSPECIFIED}}").load_balancer == LoadBalancer()
    limits = policy("{connectionPool: {tcp: {maxConnections: 0}, http: {maxRetries: 0, h2UpgradePolicy: DEFAULT}}}")
    assert limits.connection_pool == ConnectionPool()
    ejection = policy("{outlierDetection: {consecutive5xxErrors: 0}}").outlier_detection
    assert ejection == OutlierDetection(consecutive_5xx=0)


def test_hashes() -> None:
    def hashed(text: str) -> ConsistentHash | None:
        balancer = policy(f"{{loadBalancer: {{consistentHash: {{{text}}}}}}}").load_balancer
        return balancer and balancer.consistent_hash

    assert hashed("httpHeaderName: x-user, minimumRingSize: 0") == ConsistentHash(header="x-user")
    assert hashed("useSourceIp: true, minimumRingSize: 64") == ConsistentHash(uses_source_ip=True, minimum_ring_size=64)
    assert hashed("httpQueryParameterName: q, maglev: {tableSize: 65537}") == ConsistentHash(
        query_parameter="q", maglev_table_size=65537
    )
    assert hashed("httpCookie: {name: c}") == ConsistentHash(cookie=Cookie("c"))


REFUSED = {
    "a host": (["host: ''"], "the key 'host' is there twice"),
    "a subset twice": (["subsets: [{name: v}, {name: v}]"], "subsets[1].name: 'v' is there twice"),
    "a subset without a name": (["subsets: [{labels: {a: b}}]"], "subsets[0].name: is missing"),
    "a port twice": (
        ["trafficPolicy: {portLevelSettings: [{port: {number: 1}}, {port: {number: 1}}]}"],
        "trafficPolicy.portLevelSettings[1].port.number: 1 is there twice",
    ),
    "no port": (
        ["trafficPolicy: {portLevelSettings: [{tls: {mode: DISABLE}}]}"],
        "trafficPolicy.portLevelSettings[0].port.number: is missing",
    ),
    "exportTo beyond": (
        ["exportTo: [., other]", "workloadSelector: {matchLabels: {a: b}}"],
        "exportTo: goes beyond the rule's own namespace",
    ),
    "a selector with a wildcard": (
        ["workloadSelector: {matchLabels: {a: 'b*'}}"],
        "workloadSelector.matchLabels.a: has a wildcard",
    ),
}
REFUSED_POLICIES = {
    "a balancer": ("{loadBalancer: {simple: FAST}}", "loadBalancer.simple: 'FAST' is unknown"),
    "two balancers": (
        "{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}",
        "loadBalancer.consistentHash: is given beside simple",
    ),
    "two hashes": (
        "{loadBalancer: {consistentHash: {useSourceIp: true, httpHeaderName: a}}}",
        "loadBalancer.consistentHash.useSourceIp: is given beside httpHeaderName",
    ),
    "two tables": (
        "{loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {}, maglev: {tableSize: 7}}}}",
        "loadBalancer.consistentHash.maglev: is given beside ringHash",
    ),
    "nothing to hash": (
        "{loadBalancer: {consistentHash: {useSourceIp: false}}}",
        "loadBalancer.consistentHash: has nothing to hash",
    ),
    "a cookie without a name": (
        "{loadBalancer: {consistentHash: {httpCookie: {ttl: 1s}}}}",
        "loadBalancer.consistentHash.httpCookie.name: is missing",
    ),
    "no prime": (
        "{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65536}}}}",
        "loadBalancer.consistentHash.maglev.tableSize: 65536 is not a prime number",
    ),
    "a huge table": (
        "{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 5000077}}}}",
        "loadBalancer.consistentHash.maglev.tableSize: 5000077 is not usable",
    ),
    "a huge ring": (
        "{loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 8388609}}}}",
        "loadBalancer.consistentHash.ringHash.minimumRingSize: 8388609 is not usable",
    ),
    "two warm-ups": (
        "{loadBalancer: {warmup: {duration: 1s}, warmupDurationSecs: 1s}}",
        "loadBalancer.warmupDurationSecs: is given beside warmup",
    ),
    "a warm-up without time": ("{loadBalancer: {warmup: {}}}", "loadBalancer.warmup.duration: is missing"),
    "a limit": ("{connectionPool: {tcp: {maxConnections: -1}}}", "connectionPool.tcp.maxConnections: -1 is not usable"),
    "a time": ("{connectionPool: {tcp: {connectTimeout: 0s}}}", "connectionPool.tcp.connectTimeout: '0s' is too short"),
    "an upgrade": (
        "{connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}}",
        "connectionPool.http.useClientProtocol: is true beside h2UpgradePolicy UPGRADE",
    ),
    "local failures": (
        "{outlierDetection: {consecutiveLocalOriginFailures: 5}}",
        "outlierDetection.consecutiveLocalOriginFailures: counts only with splitExternalLocalOriginErrors",
    ),
    "a percentage": (
        "{outlierDetection: {maxEjectionPercent: 101}}",
        "outlierDetection.maxEjectionPercent: 101 is not usable",
    ),
    "a mode": ("{tls: {mode: OPTIONAL}}", "tls.mode: 'OPTIONAL' is unknown"),
    "no certificate": ("{tls: {mode: MUTUAL, privateKey: /k}}", "tls.clientCertificate: is missing: mode MUTUAL needs"),
    "no key": ("{tls: {mode: MUTUAL, clientCertificate: /c}}", "tls.privateKey: is missing: mode MUTUAL needs"),
    "a CA for nothing": (
        "{tls: {mode: SIMPLE, caCertificates: /ca, insecureSkipVerify: true}}",
        "tls.caCertificates: '/ca' is given beside insecureSkipVerify",
    ),
}


@pytest.mark.parametrize(("lines", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_rule_is_refused(lines: list[str], message: str) -> None:
    assert message in refusal(rule(*lines))


@pytest.mark.parametrize(("text", "message"), REFUSED_POLICIES.values(), ids=REFUSED_POLICIES.keys())
def test_a_wrong_policy_is_refused_wherever_it_stands(text: str, message: str) -> None:
    assert refusal(rule(f"trafficPolicy: {text}")).startswith(f"a.yaml:6: spec.trafficPolicy.{message}")
    of_subset = refusal(rule("subsets:", "- name: v", f"  trafficPolicy: {text}"))
    assert of_subset.startswith(f"a.yaml:8: spec.subsets[0].trafficPolicy.{message}")


def test_what_has_no_effect_is_a_warning() -> None:
    text = rule(
        "trafficPolicy:",
        "  tunnel: {protocol: CONNECT}",
        "  proxyProtocol: {}",
        "  loadBalancer: {localityLbSetting: {enabled: true}}",
        "  tls: {mode: ISTIO_MUTUAL, caCertificates: /ca, credentialName: a}",
        "subsets: [{name: v, trafficPolicy: {tls: {}}}]",
        "workloadSelector: {}",
    )
    assert warnings(text) == [
        "a.yaml:7: spec.trafficPolicy.tunnel: is not supported here and has no effect",
        "a.yaml:8: spec.trafficPolicy.proxyProtocol: is not supported here and has no effect",
        "a.yaml:9: spec.trafficPolicy.loadBalancer.localityLbSetting: is not supported here and has no effect",
        "a.yaml:10: spec.trafficPolicy.tls.credentialName: is not supported here and has no effect",
        "a.yaml:10: spec.trafficPolicy.tls.caCertificates: has no effect with mode ISTIO_MUTUAL",
        "a.yaml:11: spec.subsets[0].trafficPolicy.tls.mode: is missing, which means DISABLE: no TLS; write the mode",
        "a.yaml:12: spec.workloadSelector: selects by no label, so it counts for every workload: give matchLabels, or "
        "remove it",
    ]
