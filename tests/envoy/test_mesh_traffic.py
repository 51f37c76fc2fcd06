"""Istio's rules with real requests: one Envoy on loopback reads the mesh of each test, and routes as it says.

Every test has a host of its own; all share the mesh, whose documents stay, and Envoy must have taken all of it.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.authority import Authority
from tests.support.echoing import Answer, Echo, ask, echoing
from tests.support.eventually import eventually
from tests.support.mesh_proxy import Proxy, mesh_proxy, said, saying
from tests.support.ports import free_ports
from tests.unit.mesh.declared import document, endpoint_slice, kubernetes_service, service_entry

_names = count()


class Stage(NamedTuple):
    """A proxy and what is behind it. HTTP is on `port`."""

    proxy: Proxy
    one: Echo
    two: Echo
    port: int

    def serve(self, *texts: str) -> str:
        """Write the documents, and wait until Envoy has them; the file."""
        name = f"{next(_names)}.yaml"
        self.proxy.mesh.write(name, "---\n".join(texts))
        self.proxy.reload()
        return name

    def take_back(self, name: str) -> None:
        (self.proxy.mesh.documents / name).unlink()
        self.proxy.reload()

    def service(self, host: str, *backends: Echo) -> str:
        """A service on `port`, whose endpoints have the label `version` with the backend's name."""
        endpoints = [
            f"{{address: 127.0.0.1, ports: {{http: {each.port}}}, labels: {{version: {each.name}}}}}"
            for each in backends or (self.one,)
        ]
        ports = f"[{{number: {self.port}, name: http, protocol: HTTP}}]"
        spec = f"{{hosts: [{host}], ports: {ports}, resolution: STATIC, endpoints: [{', '.join(endpoints)}]}}"
        return document("ServiceEntry", spec, host.replace(".", "-"))

    def routed(self, host: str, routes: str) -> str:
        """The host with these HTTP routes, where `two.HOST` is another service; the file."""
        rule = document("VirtualService", f"{{hosts: [{host}], http: {routes}}}", host.replace(".", "-"))
        return self.serve(self.service(host), self.service(f"two.{host}", self.two), rule)

    def ask(self, host: str, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.port, host, path, method=method, headers=names)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        proxy = stack.enter_context(mesh_proxy(tmp_path_factory.mktemp("mesh"), interception_mode="NONE"))
        one, two = (stack.enter_context(echoing(name)) for name in ("one", "two"))
        stage = Stage(proxy, one, two, *free_ports(1))
        stage.serve(stage.service("ready.test"))
        eventually(lambda: stage.ask("ready.test").name == "one", within=15)
        yield stage


@pytest.fixture(autouse=True)
def _everything_is_taken(stage: Stage) -> Iterator[None]:
    yield
    assert stage.proxy.complaints() == {}
    assert dict(stage.proxy.mesh.local.errors) == {}


def test_requests_go_where_they_match(stage: Stage) -> None:
    matches = {
        "exact": "uri: {exact: /exact}",
        "prefix": "uri: {prefix: /pre}",
        "regex": r"uri: {regex: '/re/\d+'}",
        "case": "uri: {prefix: /case}, ignoreUriCase: true",
        "header": "headers: {x-kind: {exact: beta}}",
        "pattern": "headers: {x-kind: {regex: 'b.*9'}}",
        "present": "headers: {x-present: {}}",
        "method": "method: {exact: PUT}",
        "query": "queryParams: {v: {exact: '2'}}",
        "both": "uri: {prefix: /both}, headers: {x-both: {prefix: y}}",
        "authority": f"authority: {{exact: 'match.test:{stage.port}'}}, uri: {{exact: /port}}",
        "without": "uri: {exact: /without}, withoutHeaders: {x-user: {}}",
    }
    routes = [
        f"{{match: [{{{match}}}], route: [{{destination: {{host: two.match.test}}}}], "
        f"headers: {{response: {{set: {{x-route: {name}}}}}}}}}"
        for name, match in matches.items()
    ]
    stage.routed("match.test", f"[{', '.join(routes)}, {{route: [{{destination: {{host: match.test}}}}]}}]")

    def route(path: str = "/", method: str = "GET", **headers: str) -> str:
        answer = stage.ask("match.test", path, method, **headers)
        name = answer.headers.get("x-route", "")
        assert answer.got["name"] == ("two" if name else "one")
        return name

    assert eventually(lambda: route("/exact")) == "exact"
    assert [route("/exact/x"), route("/prefix"), route("/re/12"), route("/re/x")] == ["", "prefix", "regex", ""]
    assert [route("/CASE/x"), route("/exact?q=1"), route("/x?v=2"), route("/x?v=3")] == ["case", "exact", "query", ""]
    assert [route(x_kind=kind) for kind in ("beta", "b-9", "alpha")] == ["header", "pattern", ""]
    assert [route(x_present="1"), route(method="PUT"), route(method="POST")] == ["present", "method", ""]
    assert [route("/both", x_both="yes"), route("/both", x_both="no"), route("/both")] == ["both", "", ""]
    assert [route("/without"), route("/without", x_user="me")] == ["without", ""]
    answer = ask(stage.port, f"match.test:{stage.port}", "/port")
    assert answer.headers["x-route"] == "authority"


def test_without_a_route_that_matches_there_is_nothing(stage: Stage) -> None:
    stage.routed("nomatch.test", "[{match: [{uri: {exact: /x}}], route: [{destination: {host: nomatch.test}}]}]")
    assert eventually(lambda: stage.ask("nomatch.test", "/x").name) == "one"
    assert stage.ask("nomatch.test", "/y").status == 404


def test_weights(stage: Stage) -> None:
    stage.routed(
        "weights.test",
        "[{match: [{uri: {prefix: /half}}], route: [{destination: {host: weights.test}, weight: 50}, "
        "{destination: {host: two.weights.test}, weight: 50}]}, "
        "{route: [{destination: {host: weights.test}}, {destination: {host: two.weights.test}, weight: 100}]}]",
    )
    eventually(lambda: stage.ask("weights.test").name == "two")
    assert {stage.ask("weights.test", "/half").name for _ in range(60)} == {"one", "two"}
    assert {stage.ask("weights.test").name for _ in range(20)} == {"two"}


def test_rewrites(stage: Stage) -> None:
    to = "route: [{destination: {host: rewrite.test}}]"
    stage.routed(
        "rewrite.test",
        f"[{{match: [{{uri: {{prefix: /api}}}}], rewrite: {{uri: /}}, {to}}}, "
        f"{{match: [{{uri: {{prefix: /Old}}, ignoreUriCase: true}}], rewrite: {{uri: /}}, {to}}}, "
        f"{{match: [{{uri: {{prefix: /v1/}}}}], rewrite: {{uri: /v2/, authority: other.org}}, {to}}}, "
        f"{{match: [{{uri: {{exact: /from}}}}], rewrite: {{uri: /to}}, {to}}}, "
        f"{{match: [{{uri: {{prefix: /user}}}}], "
        f"rewrite: {{uriRegexRewrite: {{match: '/user/(\\d+)', rewrite: '/id-\\1'}}}}, {to}}}, {{{to}}}]",
    )
    eventually(lambda: stage.ask("rewrite.test").status == 200)
    paths = {
        "/api": "/",
        "/api/": "/",
        "/api/x/y?q=1": "/x/y?q=1",
        "/oLD/x": "/x",
        "/v1/x": "/v2/x",
        "/from": "/to",
        "/user/7/x": "/id-7/x",
        "/other": "/other",
    }
    assert {path: stage.ask("rewrite.test", path).got["path"] for path in paths} == paths
    assert stage.ask("rewrite.test", "/v1/x").got["headers"]["host"] == "other.org"


def test_redirects_and_answers_of_envoys_own(stage: Stage) -> None:
    stage.routed(
        "redirect.test",
        "[{match: [{uri: {exact: /old}}], redirect: {uri: /new, redirectCode: 302}}, "
        "{match: [{uri: {prefix: /pre}}], redirect: {uri: '%PREFIX()%/post', authority: b.org}}, "
        "{match: [{uri: {exact: /secure}}], redirect: {scheme: https, port: 8443, redirectCode: 308}}, "
        "{directResponse: {status: 418, body: {string: short and stout}}}]",
    )
    host = f"redirect.test:{stage.port}"
    eventually(lambda: stage.ask("redirect.test").status == 418)
    assert ask(stage.port, host).body == "short and stout"
    found = {path: ask(stage.port, host, path) for path in ("/old", "/pre/x", "/secure")}
    assert {path: (answer.status, answer.headers["location"]) for path, answer in found.items()} == {
        "/old": (302, f"http://{host}/new"),
        "/pre/x": (301, "http://b.org/post/x"),
        "/secure": (308, "https://redirect.test:8443/secure"),
    }


def test_a_timeout_ends_a_request(stage: Stage) -> None:
    stage.routed("timeout.test", "[{timeout: 100ms, route: [{destination: {host: timeout.test}}]}]")
    assert eventually(lambda: stage.ask("timeout.test").status) == 200
    assert stage.ask("timeout.test", "/held").status == 504
    stage.one.released.set()
    eventually(lambda: stage.one.waiting == 0)
    stage.one.released.clear()


def test_retries(stage: Stage) -> None:
    to = "route: [{destination: {host: retry.test}}]"
    stage.routed(
        "retry.test",
        f"[{{match: [{{uri: {{prefix: /none}}}}], retries: {{attempts: 0}}, {to}}}, "
        f"{{match: [{{uri: {{prefix: /code}}}}], retries: {{attempts: 2, retryOn: '503'}}, {to}}}, "
        f"{{retries: {{attempts: 2, retryOn: 5xx, backoff: 1ms}}, {to}}}]",
    )
    eventually(lambda: stage.ask("retry.test").status == 200)

    def tried(path: str, failing: int) -> tuple[int, int]:
        stage.one.failing = failing
        seen = len(stage.one.seen)
        status = stage.ask("retry.test", path).status
        stage.one.failing = 0
        return status, len(stage.one.seen) - seen

    assert tried("/", 2) == (200, 3)
    assert tried("/", 3) == (503, 3)
    assert tried("/none", 1) == (503, 1)
    assert tried("/code", 2) == (200, 3)


def test_connections_that_fail_are_tried_again_by_default(stage: Stage) -> None:
    """An endpoint nobody listens at, beside one that works: no request fails."""
    (dead,) = free_ports(1)
    text = stage.service("default.test", stage.one, stage.two).replace(
        f"{{http: {stage.two.port}}}", f"{{http: {dead}}}"
    )
    robin = "{host: default.test, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}"
    stage.serve(text, document("DestinationRule", robin, "default"))
    eventually(lambda: stage.ask("default.test").name == "one")
    assert {stage.ask("default.test").name for _ in range(6)} == {"one"}


def test_faults(stage: Stage) -> None:
    to = "route: [{destination: {host: fault.test}}]"

    def fault(path: str, what: str) -> str:
        return f"{{match: [{{uri: {{exact: {path}}}}}], fault: {{{what}}}, {to}}}"

    stage.routed(
        "fault.test",
        f"[{fault('/abort', 'abort: {httpStatus: 429, percentage: {value: 100}}')}, "
        f"{fault('/delay', 'delay: {fixedDelay: 10ms, percentage: {value: 100}}')}, "
        f"{fault('/never', 'abort: {httpStatus: 429, percentage: {value: 0}}')}, {{{to}}}]",
    )
    eventually(lambda: stage.ask("fault.test").status == 200)
    seen = len(stage.one.seen)
    assert stage.ask("fault.test", "/abort").status == 429
    assert len(stage.one.seen) == seen
    delays = r"fault\.delays_injected$"
    before = sum(stage.proxy.stats(delays).values())
    assert stage.ask("fault.test", "/delay").name == "one"
    assert sum(stage.proxy.stats(delays).values()) == before + 1
    assert stage.ask("fault.test", "/never").status == 200


def test_a_mirror_sees_each_request(stage: Stage) -> None:
    stage.routed(
        "mirror.test",
        "[{mirrors: [{destination: {host: two.mirror.test}}], route: [{destination: {host: mirror.test}}]}]",
    )
    assert eventually(lambda: stage.ask("mirror.test", "/seen").name) == "one"
    copy = eventually(lambda: [each for each in stage.two.seen if each["path"] == "/seen"])[0]
    assert copy["headers"]["host"] == "mirror.test-shadow"


def test_header_changes(stage: Stage) -> None:
    own = "headers: {request: {set: {x-set: own, Host: own.org}, remove: [x-gone]}, response: {add: {x-added: own}}}"
    stage.routed(
        "headers.test",
        "[{match: [{uri: {prefix: /weighted}}], "
        f"route: [{{destination: {{host: headers.test}}, weight: 100, {own}}}, "
        "{destination: {host: two.headers.test}, weight: 0}]}, "
        "{match: [{uri: {prefix: /only}}], route: [{destination: {host: headers.test}, "
        "headers: {request: {add: {host: only.org}}}}]}, "
        "{headers: {request: {set: {x-set: new, ':authority': set.org}, add: {x-twice: b}, remove: [x-gone]}, "
        "response: {set: {x-from: envoy}, remove: [content-length]}}, route: [{destination: {host: headers.test}}]}]",
    )
    eventually(lambda: stage.ask("headers.test").status == 200)
    answer = stage.ask("headers.test", x_set="old", x_twice="a", x_gone="1")
    found = answer.got["headers"]
    assert (found["x-set"], found["x-twice"], found["host"]) == ("new", "a,b", "set.org")
    assert "x-gone" not in found
    assert (answer.headers["x-from"], answer.headers.get("content-length")) == ("envoy", None)
    weighted = stage.ask("headers.test", "/weighted", x_set="old", x_gone="1")
    assert (weighted.got["headers"]["x-set"], weighted.got["headers"]["host"]) == ("own", "own.org")
    assert "x-gone" not in weighted.got["headers"] and weighted.headers["x-added"] == "own"
    assert stage.ask("headers.test", "/only").got["headers"]["host"] == "only.org"


def test_cors(stage: Stage) -> None:
    policy = "{allowOrigins: [{exact: 'http://a.org'}], allowMethods: [PUT], maxAge: 60s}"
    stage.routed("cors.test", f"[{{corsPolicy: {policy}, route: [{{destination: {{host: cors.test}}}}]}}]")
    eventually(lambda: stage.ask("cors.test").status == 200)
    seen = len(stage.one.seen)
    preflight = {"origin": "http://a.org", "access_control_request_method": "PUT"}
    answer = stage.ask("cors.test", method="OPTIONS", **preflight)
    assert answer.headers["access-control-allow-origin"] == "http://a.org"
    assert (answer.headers["access-control-allow-methods"], answer.headers["access-control-max-age"]) == ("PUT", "60")
    assert len(stage.one.seen) == seen
    assert "access-control-allow-origin" not in stage.ask("cors.test", origin="http://b.org").headers


def test_a_delegates_routes(stage: Stage) -> None:
    part = "{http: [{match: [{uri: {prefix: /part/two}}], route: [{destination: {host: two.delegate.test}}]}]}"
    stage.serve(document("VirtualService", part, "part"))
    stage.routed(
        "delegate.test",
        "[{match: [{uri: {prefix: /part}}], delegate: {name: part}, headers: {request: {set: {x-root: '1'}}}}, "
        "{route: [{destination: {host: delegate.test}}]}]",
    )
    eventually(lambda: stage.ask("delegate.test").name == "one")
    found = stage.ask("delegate.test", "/part/two/x").got
    assert (found["name"], found["headers"]["x-root"]) == ("two", "1")
    assert stage.ask("delegate.test", "/part/one").name == "one"


def test_subsets_by_labels(stage: Stage) -> None:
    rule = "{host: subset.test, subsets: [{name: one, labels: {version: one}}, {name: two, labels: {version: two}}]}"
    routes = (
        "[{match: [{headers: {x-version: {exact: two}}}], route: [{destination: {host: subset.test, subset: two}}]}, "
        "{route: [{destination: {host: subset.test, subset: one}}]}]"
    )
    stage.serve(
        stage.service("subset.test", stage.one, stage.two),
        document("DestinationRule", rule, "subset"),
        document("VirtualService", f"{{hosts: [subset.test], http: {routes}}}", "subset"),
    )
    eventually(lambda: stage.ask("subset.test").name == "one")
    assert {stage.ask("subset.test").name for _ in range(10)} == {"one"}
    assert {stage.ask("subset.test", x_version="two").name for _ in range(10)} == {"two"}


@pytest.mark.parametrize("table", ["ringHash: {minimumRingSize: 64}", "maglev: {tableSize: 101}"])
def test_consistent_hashing_sticks(stage: Stage, table: str) -> None:
    host = f"{table.partition(':')[0].lower()}.test"
    by = f"{{consistentHash: {{httpHeaderName: x-user, {table}}}}}"
    stage.serve(
        stage.service(host, stage.one, stage.two),
        document("DestinationRule", f"{{host: {host}, trafficPolicy: {{loadBalancer: {by}}}}}", host.replace(".", "-")),
    )
    eventually(lambda: stage.ask(host).status == 200)
    reached = {str(user): {stage.ask(host, x_user=str(user)).name for _ in range(3)} for user in range(16)}
    assert all(len(names) == 1 for names in reached.values())
    assert set.union(*reached.values()) == {"one", "two"}


def test_a_cookie_is_given_and_sticks(stage: Stage) -> None:
    by = "{consistentHash: {httpCookie: {name: who, ttl: 60s, path: /}}}"
    stage.serve(
        stage.service("cookie.test", stage.one, stage.two),
        document("DestinationRule", f"{{host: cookie.test, trafficPolicy: {{loadBalancer: {by}}}}}", "cookie"),
    )
    eventually(lambda: stage.ask("cookie.test").status == 200)
    answer = stage.ask("cookie.test")
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert {stage.ask("cookie.test", cookie=cookie).name for _ in range(8)} == {answer.name}


def test_an_outlier_is_ejected(stage: Stage) -> None:
    detection = "{consecutive5xxErrors: 1, baseEjectionTime: 60s, maxEjectionPercent: 100}"
    policy = f"{{outlierDetection: {detection}, loadBalancer: {{simple: ROUND_ROBIN}}}}"
    stage.serve(
        stage.service("outlier.test", stage.one, stage.two),
        document("DestinationRule", f"{{host: outlier.test, trafficPolicy: {policy}}}", "outlier"),
    )
    eventually(lambda: {stage.ask("outlier.test").name for _ in range(4)} == {"one", "two"})
    stage.one.failing = 1
    eventually(lambda: stage.ask("outlier.test").status == 503)
    ejected = r"outlier\.test;\.outlier_detection\.ejections_active$"
    eventually(lambda: sum(stage.proxy.stats(ejected).values()) == 1)
    assert {stage.ask("outlier.test").name for _ in range(8)} == {"two"}


def test_a_full_pool_overflows(stage: Stage) -> None:
    pool = "{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}}"
    stage.serve(
        stage.service("overflow.test"),
        document("DestinationRule", f"{{host: overflow.test, trafficPolicy: {pool}}}", "overflow"),
    )
    eventually(lambda: stage.ask("overflow.test").status == 200)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(stage.ask("overflow.test", "/held").status)) for _ in range(2)
    ]
    threads[0].start()
    eventually(lambda: stage.one.waiting == 1)  # until there is a connection, the first is pending too
    threads[1].start()
    pending = r"overflow\.test;?\.upstream_rq_pending_active$"
    eventually(lambda: sum(stage.proxy.stats(pending).values()) == 1)
    overflowed = stage.ask("overflow.test")
    assert (overflowed.status, overflowed.headers.get("x-envoy-overloaded")) == (503, "true")
    stage.one.released.set()
    for thread in threads:
        thread.join()
    stage.one.released.clear()
    assert answers == [200, 200]


def test_tcp_is_shared_by_weight(stage: Stage) -> None:
    with saying("one") as one, saying("two") as two:
        port, other = free_ports(2)
        both = "{destination: {host: one.tcp.test}, weight: 50}, {destination: {host: two.tcp.test}, weight: 50}"
        name = stage.serve(
            service_entry("tcp-one", host="one.tcp.test", port=port, protocol="TCP", target=one),
            service_entry("tcp-two", host="two.tcp.test", port=other, protocol="TCP", target=two),
            document("VirtualService", f"{{hosts: [one.tcp.test], tcp: [{{route: [{both}]}}]}}", "tcp"),
        )
        eventually(lambda: said(port))
        assert {said(port) for _ in range(40)} == {"one", "two"}
        stage.take_back(name)


def spoken(port: int, name: str, root: str) -> str:
    """What the TLS server of this name says."""
    context = ssl.create_default_context(cadata=root)
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    with plain, context.wrap_socket(plain, server_hostname=name) as connection:
        return connection.makefile().read()


def test_tls_passes_through_by_server_name(stage: Stage, tmp_path: Path) -> None:
    authority = Authority()
    names = ("a.tls.test", "b.tls.test", "x.wild.test")
    with ExitStack() as stack:
        ports = []
        for name in names:
            pair = authority.pair(name, "moved.wild.test")
            (tmp_path / name).write_text(pair.key + pair.chain)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / name)
            ports.append(stack.enter_context(saying(name, context)))
        (port,) = free_ports(1)
        texts = [
            service_entry(f"tls-{target}", host=f"'{host}'", port=port, protocol="TLS", target=target)
            for host, target in zip(("a.tls.test", "b.tls.test", "*.wild.test"), ports, strict=True)
        ]
        routes = "[{match: [{sniHosts: [moved.wild.test]}], route: [{destination: {host: b.tls.test}}]}]"
        rule = document("VirtualService", f"{{hosts: ['*.wild.test'], tls: {routes}}}", "tls")
        served = stage.serve(*texts, rule)
        assert eventually(lambda: spoken(port, "a.tls.test", authority.pem)) == "a.tls.test"
        assert spoken(port, "b.tls.test", authority.pem) == "b.tls.test"
        assert spoken(port, "x.wild.test", authority.pem) == "x.wild.test"
        assert spoken(port, "moved.wild.test", authority.pem) == "b.tls.test"
        with pytest.raises((ssl.SSLError, OSError)):
            spoken(port, "nobody.test", authority.pem)
        stage.take_back(served)


def test_every_domain_of_a_service(stage: Stage) -> None:
    service = kubernetes_service("web", f"[{{name: http, port: {stage.port}}}]", "clusterIP: 10.96.7.7")
    stage.serve(service, endpoint_slice("web", "127.0.0.1", ports=f"[{{name: http, port: {stage.two.port}}}]"))
    names = ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local", "WEB.default", "10.96.7.7"]
    eventually(lambda: stage.ask("web").name == "two")
    for name in (*names, "web.default.svc.cluster.local."):
        assert (stage.ask(name).name, stage.ask(f"{name}:{stage.port}").name) == ("two", "two"), name


def test_what_is_missing_fails_alone(stage: Stage) -> None:
    name = stage.routed(
        "missing.test",
        "[{match: [{uri: {prefix: /host}}], route: [{destination: {host: nobody.test}}]}, "
        "{match: [{uri: {prefix: /port}}], route: [{destination: {host: missing.test, port: {number: 1}}}]}, "
        "{match: [{uri: {prefix: /subset}}], route: [{destination: {host: missing.test, subset: v9}}]}, "
        "{match: [{uri: {prefix: /delegate}}], delegate: {name: nobody}}, "
        "{route: [{destination: {host: missing.test}}]}]",
    )
    eventually(lambda: stage.ask("missing.test").name == "one")
    assert [stage.ask("missing.test", path).status for path in ("/host", "/port", "/subset")] == [503] * 3
    assert stage.ask("missing.test", "/delegate").name == "one"
    fields = [warning.field for warning in stage.proxy.mesh.local.warnings if warning.file == name]
    assert fields == [
        "spec.http[0].route[0].destination.host",
        "spec.http[1].route[0].destination.port",
        "spec.http[2].route[0].destination.subset",
        "spec.http[3].delegate",
    ]


def test_who_is_not_declared(stage: Stage) -> None:
    assert stage.ask("stranger.test").status == 503  # allowed, but without interception nobody knows where to
    name = stage.serve(document("Sidecar", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}", "only"))
    eventually(lambda: stage.ask("stranger.test").status == 502)
    assert stage.ask("ready.test").name == "one"
    stage.take_back(name)


def test_a_sidecar_limits_and_opens(stage: Stage) -> None:
    """Egress on an address of its own, for one host; ingress for the application beside us."""
    (ingress,) = free_ports(1, "127.0.0.3")
    spec = (
        f"{{egress: [{{port: {{number: {stage.port}, protocol: HTTP}}, bind: 127.0.0.3, hosts: ['*/ready.test']}}], "
        f"ingress: [{{port: {{number: {ingress}, protocol: HTTP}}, bind: 127.0.0.3, "
        f"defaultEndpoint: 127.0.0.1:{stage.two.port}}}]}}"
    )
    name = stage.serve(document("Sidecar", spec, "own"))
    assert eventually(lambda: ask(stage.port, "ready.test", address="127.0.0.3").name) == "one"
    assert ask(stage.port, "weights.test", address="127.0.0.3").status == 503
    assert ask(ingress, "anything", address="127.0.0.3").name == "two"
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(stage.port, "ready.test")
    stage.take_back(name)
    eventually(lambda: stage.ask("ready.test").name == "one")
