"""Clusters: how each service, port and subset is talked to, by its DestinationRule, and over which TLS."""

from typing import Any

import pytest

from tests.unit.mesh.declared import Seen, document, endpoint_slice, kubernetes_service, service_entry

WEB = "web.default.svc.cluster.local"
CLUSTER = f"outbound|80||{WEB}"
NO_LIMIT = 4294967295


def rule(spec: str, name: str = "it", namespace: str = "default", host: str = "web") -> str:
    return document("DestinationRule", f"{{host: '{host}', {spec}}}", name, namespace)


def balanced(simple: str) -> str:
    return f"trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}"


def web(*rules: str, **options: Any) -> Seen:
    return Seen(kubernetes_service("web"), endpoint_slice("web", "10.0.0.1"), *rules, **options)


def policy(mesh: Seen, cluster: str = CLUSTER) -> str:
    return str(mesh.clusters[cluster]["balancing"]["policy"])


# ---- which DestinationRule, and what of it ---------------------------------------------------------------------------

RANDOM, ROBIN = balanced("RANDOM"), balanced("ROUND_ROBIN")


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ([], "LEAST_REQUEST"),
        ([rule(RANDOM)], "RANDOM"),
        ([rule(RANDOM, host="web.default.svc.cluster.local")], "RANDOM"),
        ([rule(RANDOM, host="WEB.default.svc.cluster.local")], "RANDOM"),
        ([rule(RANDOM, host="*.default.svc.cluster.local")], "RANDOM"),
        ([rule(RANDOM, host="*")], "RANDOM"),
        ([rule(RANDOM, host="*"), rule(ROBIN, "two", host="*.svc.cluster.local")], "ROUND_ROBIN"),
        ([rule(RANDOM, host="*"), rule(ROBIN, "two")], "ROUND_ROBIN"),
        ([rule(RANDOM, host="other")], "LEAST_REQUEST"),
        ([rule(RANDOM), rule(ROBIN, "two")], "RANDOM"),
        # Namespaces: the client's, the service's, the root namespace; a short name is of the rule's own.
        ([rule(RANDOM, namespace="client", host=WEB), rule(ROBIN)], "RANDOM"),
        ([rule(RANDOM, namespace="client", host="*"), rule(ROBIN)], "RANDOM"),
        ([rule(RANDOM, namespace="client"), rule(ROBIN)], "ROUND_ROBIN"),
        ([rule(RANDOM, namespace="istio-system", host="*"), rule(ROBIN, host="*")], "ROUND_ROBIN"),
        ([rule(RANDOM, namespace="istio-system", host="*")], "RANDOM"),
        ([rule(RANDOM, namespace="third", host=WEB)], "LEAST_REQUEST"),
        ([rule(f"{RANDOM}, exportTo: ['.']")], "LEAST_REQUEST"),
        ([rule(f"{RANDOM}, exportTo: [client]")], "RANDOM"),
        # A rule for some workloads goes before one for all, and counts in its own namespace only.
        (
            [
                rule(ROBIN, namespace="client", host=WEB),
                rule(f"{RANDOM}, workloadSelector: {{matchLabels: {{app: me}}}}", "two", "client", WEB),
            ],
            "RANDOM",
        ),
        ([rule(f"{RANDOM}, workloadSelector: {{matchLabels: {{app: you}}}}", "two", "client", WEB)], "LEAST_REQUEST"),
        ([rule(f"{RANDOM}, workloadSelector: {{matchLabels: {{app: me}}}}")], "LEAST_REQUEST"),
    ],
)
def test_which_rule_counts(rules: list[str], found: str) -> None:
    assert policy(web(*rules, namespace="client", labels={"app": "me"})) == found


def test_a_rule_of_the_root_namespace_hides_none_from_a_proxy_there() -> None:
    rules = [rule(RANDOM, namespace="istio-system", host="*"), rule(ROBIN)]
    assert policy(web(*rules, namespace="istio-system")) == "ROUND_ROBIN"


@pytest.mark.parametrize(
    ("whole", "subset", "found"),
    [
        ("", "", ("LEAST_REQUEST", "10s")),
        ("loadBalancer: {simple: RANDOM}", "", ("RANDOM", "10s")),
        (
            "loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {connectTimeout: 1s}}",
            "loadBalancer: {simple: ROUND_ROBIN}",
            ("ROUND_ROBIN", "1s"),
        ),
        # A port's settings replace all four parts ...
        (
            "connectionPool: {tcp: {connectTimeout: 1s}}, "
            "portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]",
            "",
            ("RANDOM", "10s"),
        ),
        # ... of where they are said: the subset's own parts still go before the host's port.
        (
            "portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}, "
            "connectionPool: {tcp: {connectTimeout: 2s}}}]",
            "loadBalancer: {simple: ROUND_ROBIN}",
            ("ROUND_ROBIN", "2s"),
        ),
        (
            "loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {connectTimeout: 1s}}",
            "portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {connectTimeout: 3s}}}]",
            ("LEAST_REQUEST", "3s"),
        ),
        ("loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 81}}]", "", ("RANDOM", "10s")),
    ],
)
def test_policies_of_host_port_and_subset(whole: str, subset: str, found: tuple[str, str]) -> None:
    mesh = web(rule(f"trafficPolicy: {{{whole}}}, subsets: [{{name: v1, trafficPolicy: {{{subset}}}}}]"))
    cluster = mesh.clusters[f"outbound|80|v1|{WEB}"]
    assert (cluster["balancing"]["policy"], cluster["pool"]["connect_timeout"]) == found


def test_rules_of_one_host_are_one() -> None:
    mesh = web(
        rule("subsets: [{name: v1}]", "one"),
        rule(f"{RANDOM}, subsets: [{{name: v1, {ROBIN}}}, {{name: v2}}]", "two"),
    )
    names = [f"outbound|80|{subset}|{WEB}" for subset in ("", "v1", "v2")]
    assert {name: policy(mesh, name) for name in names} == dict.fromkeys(names, "RANDOM")


def test_a_subset_has_the_endpoints_with_its_labels() -> None:
    ports = "[{number: 80, name: main, protocol: HTTP}]"
    endpoints = "[{address: 10.0.0.1, labels: {version: v1}}, {address: 10.0.0.2, labels: {version: v2, x: y}}]"
    mesh = Seen(
        document("ServiceEntry", f"{{hosts: [a.org], ports: {ports}, resolution: STATIC, endpoints: {endpoints}}}"),
        rule(
            "subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, "
            "{name: v3, labels: {version: v3}}, {name: all}]",
            host="a.org",
        ),
    )
    one, two = "10.0.0.1:80", "10.0.0.2:80"
    wanted = {"": [one, two], "v1": [one], "v2": [two], "v3": [], "all": [one, two]}
    assert {subset: mesh.addresses(f"outbound|80|{subset}|a.org") for subset in wanted} == wanted


def test_a_subset_of_a_resolved_name_has_it_only_without_labels() -> None:
    mesh = Seen(
        service_entry("a", port=80, resolution="DNS", endpoint=""),
        rule("subsets: [{name: all}, {name: v1, labels: {version: v1}}]", host="a.example.com"),
    )
    assert mesh.addresses("outbound|80||a.example.com") == ["a.example.com:80"]
    assert mesh.addresses("outbound|80|all|a.example.com") == ["a.example.com:80"]
    assert mesh.addresses("outbound|80|v1|a.example.com") == []


# ---- what a policy becomes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("balancer", "found"),
    [
        ("simple: LEAST_CONN", {"policy": "LEAST_REQUEST"}),
        ("simple: UNSPECIFIED", {"policy": "LEAST_REQUEST"}),
        ("simple: ROUND_ROBIN, warmupDurationSecs: 30s", {"policy": "ROUND_ROBIN", "warmup": "30s"}),
        ("consistentHash: {httpHeaderName: x}", {"policy": "RING_HASH", "minimum_ring_size": 1024}),
        (
            "consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 64}}",
            {"policy": "RING_HASH", "minimum_ring_size": 64},
        ),
        ("consistentHash: {httpHeaderName: x, maglev: {tableSize: 65537}}", {"policy": "MAGLEV", "table_size": 65537}),
    ],
)
def test_load_balancing(balancer: str, found: dict[str, object]) -> None:
    none = {"warmup": None, "minimum_ring_size": None, "table_size": None}
    assert web(rule(f"trafficPolicy: {{loadBalancer: {{{balancer}}}}}")).clusters[CLUSTER]["balancing"] == none | found


def test_passthrough_goes_where_the_client_wanted() -> None:
    cluster = web(rule(balanced("PASSTHROUGH"))).clusters[CLUSTER]
    assert (cluster["type"], cluster["balancing"]["policy"], cluster["localities"]) == (
        "ORIGINAL_DST",
        "CLUSTER_PROVIDED",
        [],
    )


@pytest.mark.parametrize(
    ("pool", "limits"),
    [
        ("", {}),
        ("tcp: {maxConnections: 5}", {"max_connections": 5}),
        (
            "http: {http1MaxPendingRequests: 1, http2MaxRequests: 2, maxRetries: 3}",
            {"max_pending_requests": 1, "max_requests": 2, "max_retries": 3},
        ),
        ("tcp: {maxConnections: 0}", {}),
    ],
)
def test_limits(pool: str, limits: dict[str, int]) -> None:
    none = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), NO_LIMIT)
    cluster = web(rule(f"trafficPolicy: {{connectionPool: {{{pool}}}}}")).clusters[CLUSTER]
    assert cluster["pool"]["thresholds"] == none | limits


def test_keepalive_is_in_whole_seconds() -> None:
    keepalive = "connectionPool: {tcp: {tcpKeepalive: {probes: 3, time: 90s, interval: 500ms}}}"
    cluster = web(rule(f"trafficPolicy: {{{keepalive}}}")).clusters[CLUSTER]
    assert cluster["pool"]["keepalive"] == {"keepalive_probes": 3, "keepalive_time": 90, "keepalive_interval": 1}


@pytest.mark.parametrize(
    ("port", "pool", "found"),
    [
        ("http", "", None),
        ("grpc", "", {"protocol": "http2"}),
        ("http", "http: {h2UpgradePolicy: UPGRADE}", {"protocol": "http2"}),
        ("http", "http: {h2UpgradePolicy: DO_NOT_UPGRADE}", None),
        ("http", "http: {useClientProtocol: true}", {"protocol": "client"}),
        ("http", "http: {idleTimeout: 5s}", {"protocol": "http1", "idle_timeout": "5s"}),
        ("http", "tcp: {maxConnectionDuration: 9s}", {"protocol": "http1", "max_connection_duration": "9s"}),
        ("http", "http: {maxRequestsPerConnection: 1}", {"protocol": "http1", "max_requests_per_connection": 1}),
        ("http2", "http: {maxConcurrentStreams: 7}", {"protocol": "http2", "max_concurrent_streams": 7}),
        ("tcp", "http: {h2UpgradePolicy: UPGRADE, idleTimeout: 5s}", None),
    ],
)
def test_how_requests_are_sent(port: str, pool: str, found: dict[str, object] | None) -> None:
    none = dict.fromkeys(
        ("idle_timeout", "max_connection_duration", "max_requests_per_connection", "max_concurrent_streams")
    )
    mesh = Seen(
        kubernetes_service("web", f"[{{name: {port}, port: 80}}]"),
        rule(f"trafficPolicy: {{connectionPool: {{{pool}}}}}"),
    )
    assert mesh.clusters[CLUSTER]["http"] == (None if found is None else none | found)


@pytest.mark.parametrize(
    ("detection", "found"),
    [
        ("{}", {}),
        ("{consecutive5xxErrors: 3}", {"consecutive_5xx": 3, "enforcing_consecutive_5xx": 100}),
        ("{consecutive5xxErrors: 0}", {"enforcing_consecutive_5xx": 0}),
        (
            "{consecutiveGatewayErrors: 2, interval: 1s, baseEjectionTime: 9s, maxEjectionPercent: 50}",
            {
                "consecutive_gateway_failure": 2,
                "enforcing_consecutive_gateway_failure": 100,
                "interval": "1s",
                "base_ejection_time": "9s",
                "max_ejection_percent": 50,
            },
        ),
        (
            "{splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 4}",
            {
                "split_external_local_origin_errors": True,
                "enforcing_local_origin_success_rate": 0,
                "consecutive_local_origin_failure": 4,
                "enforcing_consecutive_local_origin_failure": 100,
            },
        ),
    ],
)
def test_outlier_detection(detection: str, found: dict[str, object]) -> None:
    cluster = web(rule(f"trafficPolicy: {{outlierDetection: {detection}}}")).clusters[CLUSTER]
    assert cluster["outliers"] == {"enforcing_success_rate": 0} | found


def test_outliers_may_all_be_ejected_unless_a_share_is_kept() -> None:
    assert web().clusters[CLUSTER]["panic_threshold"] is None
    kept = rule("trafficPolicy: {outlierDetection: {minHealthPercent: 30}}")
    assert web(kept).clusters[CLUSTER]["panic_threshold"] == 30


@pytest.mark.parametrize(
    ("families", "found"),
    [(("IPv4",), "V4_ONLY"), (("IPv6",), "V6_ONLY"), (("IPv4", "IPv6"), "V4_PREFERRED")],
)
def test_names_are_resolved_for_the_nodes_families(families: tuple[str, ...], found: str) -> None:
    mesh = Seen(service_entry("a", port=80, resolution="DNS", endpoint=""), families=families)
    assert mesh.clusters["outbound|80||a.example.com"]["dns_family"] == found


def test_localities_have_weights() -> None:
    ports = "[{number: 80, name: main, protocol: HTTP}]"
    endpoints = (
        "[{address: 10.0.0.1, locality: eu/a, weight: 2}, {address: 10.0.0.2, locality: eu/b}, "
        "{address: 10.0.0.3, locality: eu/a, weight: 3}]"
    )
    spec = f"{{hosts: [a.org], ports: {ports}, resolution: STATIC, endpoints: {endpoints}}}"
    (values,) = Seen(document("ServiceEntry", spec)).view.endpoints.values()
    localities: Any = values["localities"]
    assert [(each["region"], each["zone"], each["weight"], len(each["endpoints"])) for each in localities] == [
        ("eu", "a", 5, 2),
        ("eu", "b", 1, 1),
    ]


# ---- TLS -------------------------------------------------------------------------------------------------------------

NAMESPACE = "spiffe://cluster.local/ns/default/"


def workload(address: str, rest: str) -> str:
    return document("WorkloadEntry", f"{{address: {address}, {rest}}}", f"w{address[-1]}")


def mesh_of(*workloads: str, rules: tuple[str, ...] = (), secrets: str = "/sds", **options: Any) -> Seen:
    addresses = [f"10.0.0.{number + 1}" for number in range(len(workloads))]
    found = [workload(address, rest) for address, rest in zip(addresses, workloads, strict=True)]
    return Seen(
        kubernetes_service("web"), endpoint_slice("web", *addresses), *found, *rules, secrets=secrets, **options
    )


@pytest.mark.parametrize(
    ("workloads", "speaking", "names"),
    [
        (("serviceAccount: one",), [True], [{"exact": f"{NAMESPACE}sa/one"}]),
        (
            ("serviceAccount: two", "serviceAccount: one", "serviceAccount: one"),
            [True, True, True],
            [{"exact": f"{NAMESPACE}sa/one"}, {"exact": f"{NAMESPACE}sa/two"}],
        ),
        (("serviceAccount: one", "weight: 1"), [True, False], [{"exact": f"{NAMESPACE}sa/one"}]),
        (
            ("serviceAccount: one", "labels: {security.istio.io/tlsMode: istio}"),
            [True, True],
            [{"prefix": NAMESPACE}],
        ),
        (("serviceAccount: one, labels: {security.istio.io/tlsMode: disabled}",), [False], [{"prefix": NAMESPACE}]),
        (("weight: 1",), [False], [{"prefix": NAMESPACE}]),
    ],
)
def test_auto_mtls_by_endpoint(workloads: tuple[str, ...], speaking: list[bool], names: list[dict[str, str]]) -> None:
    mesh = mesh_of(*workloads)
    assert [endpoint["is_mtls"] for endpoint in mesh.endpoints(CLUSTER)] == speaking
    assert mesh.clusters[CLUSTER]["tls"] == {
        "kind": "auto",
        "sni": f"outbound_.80_._.{WEB}",
        "sans": names,
        "alpn": ["istio"],
        "secrets": "/sds",
    }


@pytest.mark.parametrize("options", [{"secrets": ""}, {"has_auto_mtls": False}])
def test_no_auto_mtls(options: dict[str, Any]) -> None:
    assert mesh_of("serviceAccount: one", **options).clusters[CLUSTER]["tls"] is None


@pytest.mark.parametrize(("location", "kind"), [("MESH_INTERNAL", "auto"), ("MESH_EXTERNAL", None)])
def test_auto_mtls_is_for_what_is_in_the_mesh(location: str, kind: str | None) -> None:
    ports = "[{number: 80, name: main, protocol: HTTP}]"
    spec = (
        f"{{hosts: [a.org], ports: {ports}, resolution: STATIC, location: {location}, "
        "endpoints: [{address: 10.0.0.1, serviceAccount: one}], subjectAltNames: [spiffe://other/x]}"
    )
    mesh = Seen(document("ServiceEntry", spec), secrets="/sds")
    tls = mesh.clusters["outbound|80||a.org"]["tls"]
    assert (tls and tls["kind"]) == kind
    assert [endpoint["is_mtls"] for endpoint in mesh.endpoints("outbound|80||a.org")] == [kind is not None]
    if tls:
        assert tls["sans"] == [{"exact": f"{NAMESPACE}sa/one"}, {"exact": "spiffe://other/x"}]


@pytest.mark.parametrize(
    ("tls", "workloads", "found"),
    [
        ("mode: DISABLE", ("serviceAccount: one",), None),
        (
            "mode: ISTIO_MUTUAL",
            ("serviceAccount: one",),
            ("istio", f"outbound_.80_._.{WEB}", [{"exact": f"{NAMESPACE}sa/one"}]),
        ),
        # Every endpoint is spoken to in mutual TLS, so one nobody knows must not be refused for its name.
        (
            "mode: ISTIO_MUTUAL",
            ("serviceAccount: one", "weight: 1"),
            ("istio", f"outbound_.80_._.{WEB}", [{"prefix": NAMESPACE}]),
        ),
        (
            "mode: ISTIO_MUTUAL, sni: other, subjectAltNames: [spiffe://x/y]",
            ("serviceAccount: one",),
            ("istio", "other", [{"exact": "spiffe://x/y"}]),
        ),
        ("mode: SIMPLE", ("weight: 1",), ("simple", WEB, [{"exact": WEB}])),
        ("mode: SIMPLE, sni: x.org, caCertificates: /ca.pem", ("weight: 1",), ("simple", "x.org", [])),
        ("mode: SIMPLE, subjectAltNames: [y.org]", ("weight: 1",), ("simple", WEB, [{"exact": "y.org"}])),
        ("mode: SIMPLE, insecureSkipVerify: true", ("weight: 1",), ("simple", WEB, [])),
        (
            "mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem, caCertificates: /ca.pem",
            ("weight: 1",),
            ("mutual", WEB, [{"exact": WEB}]),
        ),
    ],
)
def test_tls_modes(tls: str, workloads: tuple[str, ...], found: tuple[object, ...] | None) -> None:
    values = mesh_of(*workloads, rules=(rule(f"trafficPolicy: {{tls: {{{tls}}}}}"),)).clusters[CLUSTER]["tls"]
    assert (values and (values["kind"], values["sni"], values["sans"])) == found


def test_files_of_tls_to_outside() -> None:
    files = "clientCertificate: /c.pem, privateKey: /k.pem, caCertificates: /ca.pem"
    tls = web(rule(f"trafficPolicy: {{tls: {{mode: MUTUAL, {files}}}}}")).clusters[CLUSTER]["tls"]
    assert (tls["certificate"], tls["private_key"], tls["ca"]) == ("/c.pem", "/k.pem", "/ca.pem")
    simple = web(rule("trafficPolicy: {tls: {mode: SIMPLE}}")).clusters[CLUSTER]["tls"]
    assert simple["ca"].endswith((".crt", ".pem"))  # the system's own
    skipping = web(rule("trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}")).clusters[CLUSTER]["tls"]
    assert skipping["ca"] == ""


@pytest.mark.parametrize(
    ("port", "pool", "of_mesh", "of_files"),
    [
        ("http", "", ["istio"], ["http/1.1"]),
        ("grpc", "", ["istio", "h2"], ["h2"]),
        ("http", "connectionPool: {http: {h2UpgradePolicy: UPGRADE}}, ", ["istio", "h2"], ["h2"]),
        ("tcp", "", ["istio"], []),
    ],
)
def test_alpn_is_what_will_be_spoken(port: str, pool: str, of_mesh: list[str], of_files: list[str]) -> None:
    for mode, wanted in (("ISTIO_MUTUAL", of_mesh), ("SIMPLE", of_files)):
        mesh = Seen(
            kubernetes_service("web", f"[{{name: {port}, port: 80}}]"),
            rule(f"trafficPolicy: {{{pool}tls: {{mode: {mode}}}}}"),
            secrets="/sds",
        )
        assert mesh.clusters[CLUSTER]["tls"]["alpn"] == wanted


def test_mutual_tls_without_an_identity_is_left_out() -> None:
    mesh = web(rule("trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}, subsets: [{name: v1}]"))
    assert list(mesh.clusters) == []
    assert "ISTIO_MUTUAL needs an identity" in mesh.problems["spec.host"]
    assert len(mesh.view.problems) == 1
    # A port that asks for something else stays.
    ports = "portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]"
    assert list(web(rule(f"trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}, {ports}}}")).clusters) == [CLUSTER]


@pytest.mark.parametrize(("labels", "kind"), [("serviceAccount: one", "istio"), ("weight: 1", None)])
def test_where_the_client_chose_the_address_all_speak_mtls_or_none(labels: str, kind: str | None) -> None:
    mesh = Seen(
        kubernetes_service("web", more="clusterIP: None"),
        endpoint_slice("web", "10.0.0.1"),
        workload("10.0.0.1", labels),
        secrets="/sds",
    )
    tls = mesh.clusters[CLUSTER]["tls"]
    assert (tls and tls["kind"]) == kind
    mixed = Seen(
        kubernetes_service("web", more="clusterIP: None"),
        endpoint_slice("web", "10.0.0.1", "10.0.0.2"),
        workload("10.0.0.1", labels),
        secrets="/sds",
    )
    assert mixed.clusters[CLUSTER]["tls"] is None


def test_files_for_endpoints_are_limited() -> None:
    texts = [service_entry(name, port=80, endpoint="10.0.0.1") for name in "abc"]
    mesh = Seen(*texts, endpoint_files=2)
    kinds = [cluster["type"] for cluster in mesh.clusters.values()]
    assert (kinds, len(mesh.view.endpoints)) == (["EDS", "EDS", "STATIC"], 2)
    assert mesh.addresses("outbound|80||c.example.com") == ["10.0.0.1:80"]
