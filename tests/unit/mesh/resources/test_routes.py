"""HTTP routes of a VirtualService: which rule counts, what matches, and what happens to a request."""

from typing import Any

import pytest

from pilot_agent.mesh.model import DocumentRefused
from pilot_agent.mesh.reading.fields import dotted
from pilot_agent.mesh.resources.actions import RETRY_ON
from tests.unit.mesh.declared import Seen, document, kubernetes_service, service_entry

A, B = "a.default.svc.cluster.local", "b.default.svc.cluster.local"
SERVICES = (kubernetes_service("a"), kubernetes_service("b", more="clusterIP: 10.96.0.2"))
TO_A, TO_B = "route: [{destination: {host: a}}]", "route: [{destination: {host: b}}]"


def virtual_service(http: str, host: str = "a", name: str = "it", namespace: str = "default", more: str = "") -> str:
    return document("VirtualService", f"{{hosts: ['{host}'], http: {http}{more}}}", name, namespace)


def delegate(http: str, name: str = "part", namespace: str = "default", more: str = "") -> str:
    return document("VirtualService", f"{{http: {http}{more}}}", name, namespace)


def routes(*texts: str, **options: Any) -> list[Any]:
    mesh = Seen(*SERVICES, *texts, **options)
    assert mesh.problems == {}
    return mesh.routes(A)


def only(route: str, **options: Any) -> Any:
    """The values of the one route of `a`."""
    (found,) = routes(virtual_service(f"[{{{route}}}]"), **options)
    return found


def clusters(found: list[Any]) -> list[str]:
    """The host of the first cluster of each route, in short."""
    return [each["clusters"][0]["name"].split("|")[3].split(".")[0] for each in found]


# ---- which rule ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ([], "a"),
        ([virtual_service(f"[{{{TO_B}}}]")], "b"),
        ([virtual_service(f"[{{{TO_B}}}]", A)], "b"),
        ([virtual_service(f"[{{{TO_B}}}]", A.upper())], "b"),
        ([virtual_service(f"[{{{TO_B}}}]", "*.default.svc.cluster.local")], "b"),
        (
            [
                virtual_service(f"[{{{TO_B}}}]", "*.svc.cluster.local", "wide"),
                virtual_service(f"[{{{TO_A}}}]", "*.default.svc.cluster.local", "narrow"),
            ],
            "a",
        ),
        ([virtual_service(f"[{{{TO_B}}}]", "*.svc.cluster.local", "wide"), virtual_service(f"[{{{TO_A}}}]")], "a"),
        ([virtual_service(f"[{{{TO_B}}}]", namespace="elsewhere", more=", exportTo: [.]")], "a"),
        ([virtual_service(f"[{{route: [{{destination: {{host: {B}}}}}]}}]", A, namespace="elsewhere")], "b"),
        ([virtual_service(f"[{{{TO_B}}}]", more=", gateways: [ingress]")], "a"),
        ([virtual_service(f"[{{{TO_B}}}]", more=", gateways: [ingress, mesh]")], "b"),
    ],
)
def test_which_rule_counts(rules: list[str], found: str) -> None:
    assert clusters(Seen(*SERVICES, *rules).routes(A)) == [found]


def test_the_first_of_two_rules_counts_and_the_other_is_told() -> None:
    mesh = Seen(
        *SERVICES, virtual_service(f"[{{{TO_B}}}]", name="first"), virtual_service(f"[{{{TO_A}}}]", name="second")
    )
    assert clusters(mesh.routes(A)) == ["b"]
    assert "has the routes of first already" in mesh.problems["spec.hosts"]
    assert [problem.origin.document for problem in mesh.view.problems] == [3]


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ("port: 80", ["b"]),
        ("port: 81", ["a"]),  # no route for this port: as if there were no rule
        ("sourceLabels: {app: me}", ["b"]),
        ("sourceLabels: {app: you}", ["a"]),
        ("sourceNamespace: default", ["b"]),
        ("sourceNamespace: other", ["a"]),
        ("gateways: [mesh]", ["b"]),
    ],
)
def test_what_a_match_says_of_the_client(match: str, found: list[str]) -> None:
    rule = virtual_service(f"[{{match: [{{{match}}}], {TO_B}}}]")
    assert clusters(routes(rule, labels={"app": "me"})) == found


def test_routes_are_in_order_up_to_one_that_takes_everything() -> None:
    rule = virtual_service(
        f"[{{match: [{{uri: {{prefix: /x}}}}, {{uri: {{exact: /y}}}}], {TO_B}}}, {{{TO_A}}}, "
        f"{{match: [{{uri: {{exact: /never}}}}], {TO_B}}}]"
    )
    found = routes(rule)
    assert [each["match"] for each in found] == [{"prefix": "/x"}, {"path": "/y"}, {"prefix": "/"}]
    assert clusters(found) == ["b", "b", "a"]


# ---- what matches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ("uri: {exact: /x}", {"path": "/x"}),
        ("uri: {prefix: /x}", {"prefix": "/x"}),
        ("uri: {regex: '/x.*'}", {"safe_regex": {"regex": "/x.*"}}),
        ("uri: {prefix: /x}, ignoreUriCase: true", {"prefix": "/x", "case_sensitive": False}),
        (
            "method: {exact: GET}",
            {"prefix": "/", "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
        ),
        (
            "scheme: {exact: http}, authority: {prefix: a.}",
            {
                "prefix": "/",
                "headers": [
                    {"name": ":scheme", "string_match": {"exact": "http"}},
                    {"name": ":authority", "string_match": {"prefix": "a."}},
                ],
            },
        ),
        (
            "headers: {x: {exact: '1'}, y: {regex: 'a|b'}, z: {}}",
            {
                "prefix": "/",
                "headers": [
                    {"name": "x", "string_match": {"exact": "1"}},
                    {"name": "y", "string_match": {"safe_regex": {"regex": "a|b"}}},
                    {"name": "z", "present_match": True},
                ],
            },
        ),
        (
            "withoutHeaders: {x: {exact: '1'}, z: {}}",
            {
                "prefix": "/",
                "headers": [
                    {
                        "name": "x",
                        "string_match": {"exact": "1"},
                        "invert_match": True,
                        "treat_missing_header_as_empty": True,
                    },
                    {"name": "z", "present_match": True, "invert_match": True},
                ],
            },
        ),
        (
            "queryParams: {q: {exact: '1'}, r: {}}",
            {
                "prefix": "/",
                "query_parameters": [
                    {"name": "q", "string_match": {"exact": "1"}},
                    {"name": "r", "present_match": True},
                ],
            },
        ),
    ],
)
def test_matches(match: str, found: dict[str, object]) -> None:
    assert only(f"match: [{{{match}}}], {TO_B}")["match"] == found


# ---- delegates -------------------------------------------------------------------------------------------------------

ROOT = "match: [{uri: {prefix: /api}}], delegate: {name: part}"


@pytest.mark.parametrize(
    ("root", "part", "found"),
    [
        ("delegate: {name: part}", f"[{{{TO_B}}}]", [{"prefix": "/"}]),
        (ROOT, f"[{{{TO_B}}}]", [{"prefix": "/api"}]),
        (
            ROOT,
            f"[{{match: [{{uri: {{prefix: /api/v1}}}}], {TO_B}}}, {{match: [{{uri: {{exact: /api}}}}], {TO_B}}}]",
            [{"prefix": "/api/v1"}, {"path": "/api"}],
        ),
        (
            ROOT,
            f"[{{match: [{{headers: {{x: {{}}}}}}], {TO_B}}}]",
            [{"prefix": "/api", "headers": [{"name": "x", "present_match": True}]}],
        ),
        (
            "match: [{headers: {r: {}}}, {uri: {prefix: /y}}], delegate: {name: part}",
            f"[{{match: [{{uri: {{prefix: /y/z}}}}], {TO_B}}}]",
            [{"prefix": "/y/z", "headers": [{"name": "r", "present_match": True}]}, {"prefix": "/y/z"}],
        ),
        (
            "match: [{uri: {prefix: /y}, ignoreUriCase: true}], delegate: {name: part}",
            f"[{{{TO_B}}}, {{match: [{{method: {{exact: GET}}}}], {TO_B}}}]",
            [
                {"prefix": "/y", "case_sensitive": False},
                {
                    "prefix": "/y",
                    "case_sensitive": False,
                    "headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
                },
            ],
        ),
    ],
)
def test_a_delegates_routes_are_within_the_roots_matches(root: str, part: str, found: list[Any]) -> None:
    assert [each["match"] for each in routes(virtual_service(f"[{{{root}}}]"), delegate(part))] == found


@pytest.mark.parametrize(
    ("root", "inner"),
    [
        ("uri: {prefix: /api}", "uri: {prefix: /other}"),
        ("uri: {exact: /api}", "uri: {prefix: /api}"),
        ("method: {exact: GET}", "method: {exact: PUT}"),
        ("port: 80", "port: 81"),
        ("sourceLabels: {app: me}", "sourceLabels: {app: you}"),
        ("sourceNamespace: default", "sourceNamespace: other"),
    ],
)
def test_a_delegates_route_beyond_the_roots_matches_is_left_out(root: str, inner: str) -> None:
    mesh = Seen(
        *SERVICES,
        virtual_service(f"[{{match: [{{{root}}}], delegate: {{name: part}}}}, {{{TO_A}}}]"),
        delegate(f"[{{match: [{{{inner}}}], {TO_B}}}]"),
    )
    assert clusters(mesh.routes(A)) == ["a"]
    assert "matches nothing that it delegates here" in mesh.problems["spec.http[0].match"]


def test_a_delegate_inherits_what_it_does_not_say() -> None:
    settings = (
        "timeout: 1s, retries: {attempts: 5}, rewrite: {uri: /r}, headers: {request: {set: {x: root}}}, "
        "fault: {abort: {httpStatus: 500, percentage: {value: 1}}}, mirrors: [{destination: {host: a}}], "
        "corsPolicy: {allowMethods: [GET]}, name: root"
    )
    own = (
        "timeout: 2s, retries: {attempts: 1}, rewrite: {uri: /own}, headers: {request: {set: {x: own}}}, "
        "fault: {abort: {httpStatus: 501, percentage: {value: 1}}}, mirrors: [{destination: {host: b}}], "
        "corsPolicy: {allowMethods: [PUT]}, name: part"
    )
    root = virtual_service(f"[{{delegate: {{name: part}}, {settings}}}]")
    match = "match: [{uri: {prefix: /o}}]"
    said, inherited = routes(root, delegate(f"[{{{match}, {TO_B}, {own}}}, {{{TO_B}}}]"))

    def facts(route: Any) -> tuple[object, ...]:
        return (
            route["name"],
            route["timeout"],
            route["retry"]["num_retries"],
            route["rewrite"]["prefix_rewrite"],
            route["headers"]["request_headers_to_add"][0]["header"]["value"],
            route["fault"]["abort"]["http_status"],
            route["mirrors"][0]["cluster"],
            route["cors"]["allow_methods"],
        )

    assert facts(said) == ("root-part", "2s", 1, "/own", "own", 501, f"outbound|80||{B}", "PUT")
    assert facts(inherited) == ("root", "1s", 5, "/r", "root", 500, f"outbound|80||{A}", "GET")


@pytest.mark.parametrize(
    ("wanted", "others", "reason"),
    [
        ("{name: nobody}", [], "nobody is no VirtualService without hosts in default"),
        ("{name: part, namespace: other}", [delegate(f"[{{{TO_B}}}]")], "part is no VirtualService without hosts in"),
        ("{name: whole}", [virtual_service(f"[{{{TO_B}}}]", "b", "whole")], "whole is no VirtualService without hosts"),
        (
            "{name: part, namespace: other}",
            [delegate(f"[{{{TO_B}}}]", namespace="other", more=", exportTo: [.]")],
            "part of other is not exported to default",
        ),
    ],
)
def test_a_delegate_that_is_not_there(wanted: str, others: list[str], reason: str) -> None:
    mesh = Seen(*SERVICES, virtual_service(f"[{{{ROOT}}}, {{{TO_B}}}]".replace("{name: part}", wanted)), *others)
    assert clusters(mesh.routes(A)) == ["b"]
    assert list(mesh.problems) == ["spec.http[0].delegate"]
    assert reason in mesh.problems["spec.http[0].delegate"]


def test_a_delegate_cannot_delegate() -> None:
    with pytest.raises(DocumentRefused) as refused:
        Seen(*SERVICES, virtual_service(f"[{{{ROOT}}}]"), delegate("[{delegate: {name: part}}]"))
    assert (refused.value.field, refused.value.line) == ("spec.http[0].delegate", 19)


def test_short_names_in_a_delegate_are_of_its_namespace() -> None:
    mesh = Seen(
        *SERVICES,
        kubernetes_service("c", more="clusterIP: 10.96.0.3", namespace="other"),
        virtual_service("[{delegate: {name: part, namespace: other}}]"),
        delegate("[{route: [{destination: {host: c}}]}]", namespace="other"),
    )
    assert mesh.routes(A)[0]["clusters"][0]["name"] == "outbound|80||c.other.svc.cluster.local"
    assert mesh.problems == {}


# ---- where requests go -----------------------------------------------------------------------------------------------


def test_weights() -> None:
    found = only(
        "route: [{destination: {host: a}, weight: 90}, {destination: {host: b, port: {number: 80}}, weight: 10}, "
        "{destination: {host: b}}]"
    )
    assert [(each["name"], each["weight"]) for each in found["clusters"]] == [
        (f"outbound|80||{A}", 90),
        (f"outbound|80||{B}", 10),
        (f"outbound|80||{B}", 0),
    ]
    assert [each["weight"] for each in only("route: [{destination: {host: b}}]")["clusters"]] == [1]


@pytest.mark.parametrize(
    ("route", "field", "reason"),
    [
        ("route: [{destination: {host: nobody}}]", "route[0].destination.host", "nobody.default.svc.cluster.local is"),
        ("route: [{destination: {host: a, port: {number: 81}}}]", "route[0].destination.port", "has no port 81"),
        ("route: [{destination: {host: two}}]", "route[0].destination.port", "has no port 80"),
        ("route: [{destination: {host: a, subset: v9}}]", "route[0].destination.subset", "v9 is no subset"),
        (
            "route: [{destination: {host: a}, weight: 1}, {destination: {host: nobody}, weight: 1}]",
            "route[1].destination.host",
            "nobody",
        ),
        (f"{TO_A}, mirror: {{host: nobody}}", "mirror.host", "nobody"),
        (
            f"{TO_A}, mirrors: [{{destination: {{host: b}}}}, {{destination: {{host: nobody}}}}]",
            "mirrors[1].destination.host",
            "nobody",
        ),
    ],
)
def test_a_route_to_what_is_not_there(route: str, field: str, reason: str) -> None:
    two = kubernetes_service("two", "[{name: http, port: 82}, {name: http-2, port: 83}]", "clusterIP: 10.96.0.3")
    mesh = Seen(*SERVICES, two, virtual_service(f"[{{{route}}}]"), virtual_service(f"[{{{TO_A}}}]", "b", "other"))
    assert list(mesh.problems) == [f"spec.http[0].{field}"]
    assert reason in mesh.problems[f"spec.http[0].{field}"]
    assert clusters(mesh.routes(B)) == ["a"]  # the rest serves


def test_the_only_port_of_a_service_needs_no_saying() -> None:
    other = kubernetes_service("other", "[{name: http, port: 8080}]", "clusterIP: 10.96.0.3")
    (found,) = routes(other, virtual_service("[{route: [{destination: {host: other}}]}]"))
    assert found["clusters"][0]["name"] == "outbound|8080||other.default.svc.cluster.local"


def test_a_problem_in_a_delegate_is_told_there() -> None:
    mesh = Seen(
        *SERVICES,
        virtual_service("[{delegate: {name: part}}]"),
        delegate(f"[{{match: [{{uri: {{exact: /x}}}}], {TO_A}}}, {{route: [{{destination: {{host: nobody}}}}]}}]"),
    )
    (problem,) = mesh.view.problems
    assert (problem.origin.document, dotted(problem.path)) == (3, "spec.http[1].route[0].destination.host")


# ---- what happens to them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redirect", "found"),
    [
        ("uri: /new", {"path_redirect": "/new", "response_code": "MOVED_PERMANENTLY"}),
        ("uri: '%PREFIX()%/new'", {"prefix_rewrite": "/new", "response_code": "MOVED_PERMANENTLY"}),
        ("authority: b.org, redirectCode: 302", {"host_redirect": "b.org", "response_code": "FOUND"}),
        ("scheme: https, redirectCode: 308", {"scheme_redirect": "https", "response_code": "PERMANENT_REDIRECT"}),
        ("port: 81, redirectCode: 303", {"port_redirect": 81, "response_code": "SEE_OTHER"}),
        ("uri: /x, derivePort: FROM_REQUEST_PORT", {"path_redirect": "/x", "port_redirect": 80}),
        ("scheme: https, derivePort: FROM_PROTOCOL_DEFAULT", {"scheme_redirect": "https", "port_redirect": 443}),
        ("uri: /x, redirectCode: 307", {"path_redirect": "/x", "response_code": "TEMPORARY_REDIRECT"}),
    ],
)
def test_redirects(redirect: str, found: dict[str, object]) -> None:
    assert only(f"redirect: {{{redirect}}}")["redirect"] == {"response_code": "MOVED_PERMANENTLY"} | found


def test_direct_responses() -> None:
    assert only("directResponse: {status: 503, body: {string: gone}}")["direct_response"] == {
        "status": 503,
        "body": {"inline_string": "gone"},
    }
    assert only("directResponse: {status: 204}")["direct_response"] == {"status": 204}


@pytest.mark.parametrize(
    ("match", "rewrite", "found"),
    [
        ("uri: {prefix: /api/}", "uri: /", {"prefix_rewrite": "/"}),
        (
            "uri: {prefix: /api}",
            "uri: /",
            {"regex_rewrite": {"pattern": {"regex": "^/api(/?)(.*)"}, "substitution": "/\\2"}},
        ),
        (
            "uri: {prefix: /a.b}, ignoreUriCase: true",
            "uri: /",
            {"regex_rewrite": {"pattern": {"regex": "^(?i)/a\\.b(/?)(.*)"}, "substitution": "/\\2"}},
        ),
        ("uri: {prefix: /api}", "uri: /v2", {"prefix_rewrite": "/v2"}),
        ("uri: {exact: /api}", "uri: /v2", {"prefix_rewrite": "/v2"}),
        ("uri: {exact: /api}", "uri: /", {"prefix_rewrite": "/"}),
        ("uri: {prefix: /}", "uri: /", {"prefix_rewrite": "/"}),
        ("uri: {prefix: /api}", "authority: b.org", {"host_rewrite_literal": "b.org"}),
        (
            "uri: {prefix: /api}",
            "uri: /v2, authority: b.org",
            {"host_rewrite_literal": "b.org", "prefix_rewrite": "/v2"},
        ),
        (
            "uri: {prefix: /api}",
            "uriRegexRewrite: {match: '/api/(.*)', rewrite: '/\\1'}",
            {"regex_rewrite": {"pattern": {"regex": "/api/(.*)"}, "substitution": "/\\1"}},
        ),
    ],
)
def test_rewrites(match: str, rewrite: str, found: dict[str, object]) -> None:
    assert only(f"match: [{{{match}}}], {TO_B}, rewrite: {{{rewrite}}}")["rewrite"] == found


@pytest.mark.parametrize(
    ("retries", "found"),
    [
        ("", {"num_retries": 2, "retry_on": RETRY_ON}),
        (", retries: {attempts: 0}", None),
        (", retries: {}", None),
        (", retries: {attempts: 3}", {"num_retries": 3, "retry_on": RETRY_ON}),
        (
            ", retries: {attempts: 1, perTryTimeout: 2s, backoff: 50ms, retryRemoteLocalities: true}",
            {
                "num_retries": 1,
                "retry_on": RETRY_ON,
                "per_try_timeout": "2s",
                "backoff": "0.05s",
                "leaves_locality": True,
            },
        ),
        (
            ", retries: {attempts: 1, retryOn: '5xx,409, reset'}",
            {"num_retries": 1, "retry_on": "5xx,reset,retriable-status-codes", "codes": [409]},
        ),
        (
            ", retries: {attempts: 1, retryOn: 'retriable-status-codes,409'}",
            {"num_retries": 1, "retry_on": "retriable-status-codes", "codes": [409]},
        ),
    ],
)
def test_retries(retries: str, found: dict[str, object] | None) -> None:
    none: dict[str, object] = {"codes": [], "per_try_timeout": None, "backoff": None, "leaves_locality": False}
    assert only(TO_B + retries)["retry"] == (None if found is None else none | found)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (
            "delay: {fixedDelay: 1s, percentage: {value: 0.5}}",
            {"delay": {"fixed_delay": "1s", "percentage": {"numerator": 5000, "denominator": "MILLION"}}},
        ),
        (
            "abort: {httpStatus: 418, percentage: {value: 100}}",
            {"abort": {"http_status": 418, "percentage": {"numerator": 1_000_000, "denominator": "MILLION"}}},
        ),
        (
            "abort: {grpcStatus: UNAVAILABLE, percentage: {value: 1}}",
            {"abort": {"grpc_status": 14, "percentage": {"numerator": 10_000, "denominator": "MILLION"}}},
        ),
        (
            "abort: {httpStatus: 500}",  # no percentage: nobody
            {"abort": {"http_status": 500, "percentage": {"numerator": 0, "denominator": "MILLION"}}},
        ),
    ],
)
def test_faults(fault: str, found: dict[str, object]) -> None:
    assert only(f"{TO_B}, fault: {{{fault}}}")["fault"] == found


@pytest.mark.parametrize(
    ("mirror", "found"),
    [
        ("mirror: {host: a}", [(A, 1_000_000)]),
        ("mirror: {host: a}, mirrorPercentage: {value: 0.1}", [(A, 1000)]),
        (
            "mirrors: [{destination: {host: a}, percentage: {value: 50}}, {destination: {host: b}}]",
            [(A, 500_000), (B, 1_000_000)],
        ),
    ],
)
def test_mirrors(mirror: str, found: list[tuple[str, int]]) -> None:
    assert [(each["cluster"], each["parts"]) for each in only(f"{TO_B}, {mirror}")["mirrors"]] == [
        (f"outbound|80||{host}", parts) for host, parts in found
    ]


def added(name: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> dict[str, object]:
    return {"header": {"key": name, "value": value}, "append_action": action}


def test_header_changes() -> None:
    changes = "request: {set: {x: '1'}, add: {y: '2'}, remove: [z]}, response: {set: {s: '3'}, remove: [t]}"
    own = "headers: {request: {set: {x: own}, remove: [w]}, response: {add: {u: '4'}}}"
    one = only(f"route: [{{destination: {{host: b}}, {own}}}], headers: {{{changes}}}")
    assert one["headers"] == {
        "request_headers_to_add": [added("x", "1"), added("x", "own"), added("y", "2", "APPEND_IF_EXISTS_OR_ADD")],
        "request_headers_to_remove": ["z", "w"],
        "response_headers_to_add": [added("s", "3"), added("u", "4", "APPEND_IF_EXISTS_OR_ADD")],
        "response_headers_to_remove": ["t"],
    }
    two = only(
        f"route: [{{destination: {{host: b}}, weight: 1, {own}}}, {{destination: {{host: a}}, weight: 1}}], "
        f"headers: {{{changes}}}"
    )
    assert two["headers"]["request_headers_to_remove"] == ["z"]
    assert [each["headers"] for each in two["clusters"]] == [
        {
            "request_headers_to_add": [added("x", "own")],
            "request_headers_to_remove": ["w"],
            "response_headers_to_add": [added("u", "4", "APPEND_IF_EXISTS_OR_ADD")],
        },
        {},
    ]


@pytest.mark.parametrize("action", ["set", "add"])
@pytest.mark.parametrize("name", ["Host", "host", "':authority'"])
def test_the_host_is_changed_by_a_rewrite(action: str, name: str) -> None:
    """Envoy refuses a route that changes it as a header."""
    of_route = only(f"{TO_B}, headers: {{request: {{{action}: {{{name}: b.org}}}}}}")
    own = f"headers: {{request: {{{action}: {{{name}: b.org}}}}}}"
    of_only = only(f"route: [{{destination: {{host: b}}, {own}}}]")
    for found in (of_route, of_only):
        assert (found["headers"], found["rewrite"]) == ({}, {"host_rewrite_literal": "b.org"})
    weighted = only(f"route: [{{destination: {{host: b}}, weight: 1, {own}}}, {{destination: {{host: a}}, weight: 1}}]")
    assert weighted["clusters"][0]["headers"] == {"host_rewrite_literal": "b.org"}
    assert weighted["rewrite"] == {}


def test_cors() -> None:
    policy = (
        "allowOrigins: [{exact: 'https://a.org'}, {regex: '.*'}], allowMethods: [GET, PUT], allowHeaders: [x, y], "
        "exposeHeaders: [z], maxAge: 1m, allowCredentials: true"
    )
    assert only(f"{TO_B}, corsPolicy: {{{policy}}}")["cors"] == {
        "allow_origin_string_match": [{"exact": "https://a.org"}, {"safe_regex": {"regex": ".*"}}],
        "allow_methods": "GET,PUT",
        "allow_headers": "x,y",
        "expose_headers": "z",
        "max_age": "60",
        "allow_credentials": True,
    }


@pytest.mark.parametrize(
    ("route", "timeout"), [(TO_B, "0s"), (f"{TO_B}, timeout: 250ms", "0.25s"), (f"{TO_B}, timeout: 1m", "60s")]
)
def test_timeouts(route: str, timeout: str) -> None:
    assert only(route)["timeout"] == timeout


HASHES = {
    "httpHeaderName: x": {"header": {"header_name": "x"}},
    "httpCookie: {name: c, path: /p, ttl: 1s}": {"cookie": {"name": "c", "path": "/p", "ttl": "1s"}},
    "httpCookie: {name: c, ttl: 0s}": {"cookie": {"name": "c", "ttl": "0s"}},
    "useSourceIp: true": {"connection_properties": {"source_ip": True}},
    "httpQueryParameterName: q": {"query_parameter": {"name": "q"}},
}


def hashing(by: str, host: str = "a", name: str = "it", more: str = "") -> str:
    spec = f"{{host: {host}, trafficPolicy: {{loadBalancer: {{consistentHash: {{{by}}}}}}}{more}}}"
    return document("DestinationRule", spec, name)


@pytest.mark.parametrize("by", HASHES)
def test_what_is_hashed(by: str) -> None:
    (found,) = routes(hashing(by))
    assert found["hash_policy"] == [HASHES[by]]


def test_hashing_is_the_destinations() -> None:
    header = {"header": {"header_name": "x"}}
    cookie = {"cookie": {"name": "c", "ttl": "0s"}}
    subset = "httpCookie: {name: c, ttl: 0s}"
    subsets = f", subsets: [{{name: v1, trafficPolicy: {{loadBalancer: {{consistentHash: {{{subset}}}}}}}}}]"
    rules = (hashing("httpHeaderName: x", "b", more=subsets),)

    def hashed(route: str) -> object:
        (found,) = routes(virtual_service(f"[{{route: {route}}}]"), *rules)
        return found["hash_policy"]

    assert hashed("[{destination: {host: a}}]") == []
    assert hashed("[{destination: {host: b}}]") == [header]
    assert hashed("[{destination: {host: b, subset: v1}}]") == [cookie]
    weighted = "[{destination: {host: a}, weight: 1}, {destination: {host: b}, weight: 1}, "
    assert hashed(weighted + "{destination: {host: b, subset: v1}, weight: 1}]") == [header, cookie]
    assert hashed(weighted + "{destination: {host: b, port: {number: 80}}, weight: 1}]") == [header]


def test_a_port_may_be_hashed_by_itself() -> None:
    spec = (
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x}}, portLevelSettings: "
        "[{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}}"
    )
    (found,) = routes(document("DestinationRule", spec))
    assert found["hash_policy"] == []


# ---- names and hosts -------------------------------------------------------------------------------------------------


def test_names_are_istiods() -> None:
    found = only(f"name: r, match: [{{name: m, uri: {{prefix: /x}}}}], {TO_B}")
    assert found["name"] == "r.m"
    assert found["operation"] == f"{A}:80/x*"
    assert found["config"] == "/apis/networking.istio.io/v1/namespaces/default/virtual-service/it"
    (default,) = routes()
    assert (default["name"], default["operation"], default["config"]) == ("default", f"{A}:80/*", "")


@pytest.mark.parametrize(
    ("namespace", "found"),
    [
        ("default", [A, f"{A}.", "a", "a.default.svc", "a.default", "10.96.0.1"]),
        ("other", [A, f"{A}.", "a.default.svc", "a.default", "10.96.0.1"]),
    ],
)
def test_domains(namespace: str, found: list[str]) -> None:
    assert Seen(*SERVICES, namespace=namespace).hosts("80")[f"{A}:80"]["domains"] == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (service_entry("a", port=80), ["a.example.com"]),
        (service_entry("a", port=80, addresses=("fd00::1", "10.0.0.0/8")), ["a.example.com", "[fd00::1]"]),
        (service_entry("a", host="'*.example.com'", port=80), ["*.example.com"]),
        (
            kubernetes_service("a", more="clusterIP: None"),
            [A, f"{A}.", "a", "a.default.svc", "a.default", f"*.{A}"],
        ),
        (
            kubernetes_service("a", more="clusterIPs: [10.96.0.1, 'fd00::a']"),
            [A, f"{A}.", "a", "a.default.svc", "a.default", "10.96.0.1", "[fd00::a]"],
        ),
    ],
)
def test_domains_by_kind_of_service(text: str, found: list[str]) -> None:
    (host,) = Seen(text).hosts("80").values()
    assert host["domains"] == found


def test_a_host_no_service_has_is_served_on_port_80() -> None:
    mesh = Seen(*SERVICES, virtual_service(f"[{{{TO_B}}}]", "stranger.org"))
    host = mesh.hosts("80")["stranger.org:80"]
    assert (host["domains"], clusters(host["routes"])) == (["stranger.org"], ["b"])
    assert mesh.problems == {}


@pytest.mark.parametrize("host", ["a.default", "a.default.svc", "10.96.0.1", "A.default"])
def test_no_domain_is_there_twice(host: str) -> None:
    """Envoy would refuse all routes of the port."""
    hosts = Seen(*SERVICES, virtual_service(f"[{{{TO_B}}}]", host)).hosts("80")
    domains = [domain.lower() for values in hosts.values() for domain in values["domains"]]
    assert len(domains) == len(set(domains))


def test_an_ipv6_host_is_in_brackets() -> None:
    assert Seen(*SERVICES, virtual_service(f"[{{{TO_B}}}]", "fd00::9")).hosts("80")["fd00::9:80"]["domains"] == [
        "[fd00::9]"
    ]


def test_a_host_no_service_has_needs_port_80() -> None:
    mesh = Seen(kubernetes_service("b", "[{name: http, port: 81}]"), virtual_service(f"[{{{TO_B}}}]", "stranger.org"))
    assert list(mesh.hosts("81")) == [f"{B}:81"]
    assert "stranger.org is no service of this mesh" in mesh.problems["spec.hosts"]
