"""VirtualService: what a whole one means, what each refusal says, what is left out with a warning."""

import pytest

from pilot_agent.mesh.traffic import (
    ConnectionMatch,
    ConnectionRoute,
    Cors,
    Destination,
    DirectResponse,
    Fault,
    HeaderChanges,
    Headers,
    HttpMatch,
    HttpRoute,
    Mirror,
    Redirect,
    Retries,
    Rewrite,
    StringMatch,
    VirtualService,
    WeightedDestination,
)
from tests.unit.mesh.reading.outcome import VIRTUAL_SERVICE, document, read, read_one, refusal, warnings


def virtual_service(spec: str) -> str:
    return document("VirtualService", f"spec:\n{spec}")


def one_route(*lines: str) -> str:
    """A VirtualService whose only route has these fields: the first of them is in line 7."""
    return virtual_service("  hosts: [a]\n  http:\n  - " + "\n    ".join(lines))


def to(host: str) -> tuple[WeightedDestination, ...]:
    return (WeightedDestination(Destination(host)),)


ROUTE = "route: [{destination: {host: a}}]"


def http_route(*lines: str) -> HttpRoute:
    service = read_one(one_route(*lines))
    assert isinstance(service, VirtualService)
    return service.http[0]


def test_a_whole_virtual_service_is_understood() -> None:
    service = read_one(VIRTUAL_SERVICE)
    assert isinstance(service, VirtualService)
    assert service.hosts == ("reviews", "*.example.com", "10.0.0.1")
    assert (service.name, service.namespace, service.export_to) == ("x", "demo", ("*",))
    assert service.http[0] == HttpRoute(
        name="first",
        matches=(
            HttpMatch(
                name="all",
                uri=StringMatch("prefix", "/a"),
                scheme=StringMatch("exact", "http"),
                method=StringMatch("regex", "GET|POST"),
                authority=StringMatch("exact", "reviews"),
                headers=(("end-user", StringMatch("exact", "jason")), ("x-there", None)),
                without_headers=(("x-not", None),),
                query_params=(("q", StringMatch("regex", "[0-9]+$")),),
                ignores_uri_case=True,
                port=9080,
                source_labels={"app": "web"},
                source_namespace="demo",
            ),
        ),
        destinations=(
            WeightedDestination(
                Destination("reviews", "v1", 9080),
                90,
                Headers(HeaderChanges(remove=("x-r",)), HeaderChanges(add=(("x-v", "v1"),))),
            ),
            WeightedDestination(Destination("reviews", "v2"), 10),
        ),
        rewrite=Rewrite("/new", "new.example.com"),
        timeout="90s",
        retries=Retries(3, "2s", "5xx,reset,503", True, "0.025s"),
        fault=Fault("5s", 0.1, 503, "", 50.0),
        mirrors=(Mirror(Destination("shadow"), 12.5),),
        cors=Cors((StringMatch("exact", "https://a.example.com"),), ("GET",), ("X-Foo",), ("*",), "86400s", True),
        headers=Headers(
            HeaderChanges((("x-a", "%START_TIME%"),), (("x-b", "100%%"),), ("x-c",)),
            HeaderChanges((("x-d", "e"),)),
        ),
    )
    assert [route.place for route in service.http] == [0, 1, 2, 3, 4]
    assert service.http[1].redirect == Redirect("/x", "y.example.com", "https", None, "FROM_REQUEST_PORT", 308)
    assert service.http[2].direct_response == DirectResponse(200, "fine")
    assert service.http[3].delegate == ("sub", "other")
    assert service.http[4] == HttpRoute(
        destinations=to("reviews"),
        rewrite=Rewrite(regex=("^/a/(.*)$", "/\\1")),
        mirrors=(Mirror(Destination("s"), 3.0, 0), Mirror(Destination("t"), 100.0, 1)),
        fault=Fault(None, 0.0, None, "UNAVAILABLE", 5.0),
        place=4,
    )
    assert service.tls == (
        ConnectionRoute(
            (ConnectionMatch(("a.example.com",), ("10.0.0.0/8",), 443, {"app": "web"}),), to("a.example.com")
        ),
    )
    assert service.tcp == (
        ConnectionRoute((ConnectionMatch((), (), 27017, {}, "demo"),), (WeightedDestination(Destination("mongo"), 1),)),
    )


def test_what_is_not_given_is_protobufs_default() -> None:
    assert http_route(ROUTE) == HttpRoute(destinations=to("a"))
    assert http_route("redirect: {scheme: https}").redirect == Redirect(scheme="https", code=301)
    assert http_route("redirect: {uri: /, port: 0, redirectCode: 0}").redirect == Redirect("/")
    assert http_route(ROUTE, "retries: {}").retries == Retries(0)
    assert http_route(ROUTE, "mirror: {host: m}").mirrors == (Mirror(Destination("m"), 100.0),)
    assert http_route(ROUTE, "mirror: {host: m}", "mirrorPercent: 7").mirrors == (Mirror(Destination("m"), 7.0),)
    assert http_route("directResponse: {status: 204}").direct_response == DirectResponse(204)
    assert http_route("delegate: {name: sub}").delegate == ("sub", "demo")
    assert http_route("match: [{uri: {}, port: 0, sourceNamespace: ''}]", ROUTE).matches == (HttpMatch(),)


def test_the_host_among_headers_is_a_rewrite() -> None:
    """Envoy keeps `host` and `:authority` out of its header options."""
    route = http_route(ROUTE, "headers: {request: {set: {Host: b.org, x: y}}}")
    assert route.rewrite == Rewrite(authority="b.org")
    assert route.headers.request.set == (("x", "y"),)


def test_a_body_may_have_lines_and_be_in_base64() -> None:
    assert http_route('directResponse: {status: 200, body: {string: "a\\nb"}}').direct_response == DirectResponse(
        200, "a\nb"
    )
    assert http_route("directResponse: {status: 200, body: {bytes: YcO8}}").direct_response == DirectResponse(200, "aü")


def test_the_old_list_of_origins_is_read() -> None:
    cors = http_route(ROUTE, "corsPolicy: {allowOrigin: [https://a.org]}").cors
    assert cors == Cors(allow_origins=(StringMatch("exact", "https://a.org"),))


def test_a_delegate_has_no_hosts() -> None:
    delegate = read_one(virtual_service(f"  http: [{{match: [{{uri: {{prefix: /a}}}}], {ROUTE}}}]"))
    assert isinstance(delegate, VirtualService)
    assert (delegate.hosts, len(delegate.http)) == ((), 1)


class TestGateways:
    def test_one_for_gateways_alone_is_left_out(self) -> None:
        text = virtual_service(f"  hosts: ['*']\n  gateways: [istio-system/a, b]\n  http: [{{{ROUTE}}}]")
        assert read(text).resources == ()
        assert warnings(text) == [
            "a.yaml:6: spec.gateways: has no `mesh`: this is for gateways only and has no effect here"
        ]

    def test_matches_for_gateways_are_left_out(self) -> None:
        text = one_route("match: [{uri: {prefix: /a}, gateways: [b]}, {uri: {prefix: /c}}]", ROUTE)
        service = read_one(text)
        assert isinstance(service, VirtualService)
        assert service.http[0].matches == (HttpMatch(uri=StringMatch("prefix", "/c")),)
        assert [line.split(": ")[1] for line in warnings(text)] == ["spec.http[0].match[0].gateways"]

    def test_a_route_with_no_other_match_does_not_become_one_for_everything(self) -> None:
        gone = "match: [{uri: {prefix: /a}, gateways: [b]}]"
        assert read(one_route(gone, ROUTE)).resources == ()
        service = read_one(one_route(gone, ROUTE) + "  - " + ROUTE)
        assert isinstance(service, VirtualService)
        assert [(route.place, route.matches) for route in service.http] == [(1, ())]

    def test_the_same_of_tls_and_tcp(self) -> None:
        text = (
            f"  hosts: [a.org]\n  tls: [{{match: [{{sniHosts: [a.org], gateways: [b]}}], {ROUTE}}}]\n"
            f"  tcp: [{{match: [{{port: 1, gateways: [b]}}], {ROUTE}}}, {{match: [{{port: 2}}], {ROUTE}}}]"
        )
        service = read_one(virtual_service(text))
        assert isinstance(service, VirtualService)
        assert (service.tls, [route.place for route in service.tcp]) == ((), [1])


REFUSED = {
    "no routes": ("  hosts: [a]", "4: spec: has no route: give http, tls or tcp"),
    "a host that is none": (f"  hosts: [a b]\n  http: [{{{ROUTE}}}]", "5: spec.hosts[0]: 'a b' is not a host name"),
    "everything": (f"  hosts: ['*']\n  http: [{{{ROUTE}}}]", "5: spec.hosts[0]: '*' is for gateways"),
    "a host twice": (f"  hosts: [a, A]\n  http: [{{{ROUTE}}}]", "5: spec.hosts[1]: 'A' is there twice"),
    "a host of a wildcard": (
        f"  hosts: ['*.a.org', b.a.org]\n  http: [{{{ROUTE}}}]",
        "5: spec.hosts[1]: 'b.a.org' is there twice, as itself or in a wildcard",
    ),
    "a delegate with gateways": (f"  gateways: [mesh]\n  http: [{{{ROUTE}}}]", "5: spec.gateways: is given without"),
    "a delegate with tcp": (f"  tcp: [{{{ROUTE}}}]", "5: spec.tcp: is given without hosts"),
    "a delegate of a delegate": ("  http: [{delegate: {name: a}}]", "5: spec.http[0].delegate: is in a delegate"),
    "a regex in a delegate": (
        f"  http: [{{match: [{{uri: {{regex: a}}}}], {ROUTE}}}]",
        "5: spec.http[0].match[0].uri: is a regular expression, which a delegation can't have",
    ),
    "tls without match": (f"  hosts: [a]\n  tls: [{{{ROUTE}}}]", "6: spec.tls[0].match: is missing or empty"),
    "tls without names": (
        f"  hosts: [a]\n  tls: [{{match: [{{port: 1}}], {ROUTE}}}]",
        "6: spec.tls[0].match[0].sniHosts: is missing or empty: give at least one server name",
    ),
    "a name that is no host's": (
        f"  hosts: [a.org]\n  tls: [{{match: [{{sniHosts: [b.org]}}], {ROUTE}}}]",
        "6: spec.tls[0].match[0].sniHosts[0]: 'b.org' is none of spec.hosts",
    ),
    "tcp without route": ("  hosts: [a]\n  tcp: [{}]", "6: spec.tcp[0].route: is missing or empty"),
    "a subnet that is none": (
        f"  hosts: [a]\n  tcp: [{{match: [{{destinationSubnets: [10.0.0.0/33]}}], {ROUTE}}}]",
        "6: spec.tcp[0].match[0].destinationSubnets[0]: '10.0.0.0/33' is not an address",
    ),
    "exportTo": (f"  hosts: [a]\n  exportTo: ['*', b]\n  http: [{{{ROUTE}}}]", "6: spec.exportTo: has `*`"),
    "an empty element": ("  hosts: [a]\n  http:\n  -\n", "7: spec.http[0]: is empty: fill it in, or remove its `-`"),
}


@pytest.mark.parametrize(("spec", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_virtual_service_is_refused(spec: str, message: str) -> None:
    assert refusal(virtual_service(spec)).startswith(f"a.yaml:{message}")


REFUSED_ROUTES = {
    "nowhere to go": (["name: a"], ": has nowhere to go: give route, redirect, directResponse or delegate"),
    "two ways": ([ROUTE, "redirect: {uri: /}"], ".route: is given beside redirect: keep one of them"),
    "no destination": (["route: []"], ".route: is missing or empty"),
    "no host": (["route: [{destination: {}}]"], ".route[0].destination.host: is missing"),
    "a destination that is missing": (["route: [{weight: 1}]"], ".route[0].destination: is missing"),
    "no weight": (
        ["route: [{destination: {host: a}}, {destination: {host: b}}]"],
        ".route: has weight 0 everywhere",
    ),
    "a negative weight": (["route: [{destination: {host: a}, weight: -1}]"], ".route[0].weight: -1 is not usable"),
    "a bad subset": (["route: [{destination: {host: a, subset: a_b}}]"], ".route[0].destination.subset: 'a_b' is not"),
    "a bad port": (["route: [{destination: {host: a, port: {number: 0}}}]"], ".route[0].destination.port.number: 0 is"),
    "a port of nothing": (
        ["route: [{destination: {host: a, port: {}}}]"],
        ".route[0].destination.port.number: is miss",
    ),
    "a redirect to itself": (["redirect: {}"], ".redirect: changes nothing"),
    "a code that is none": (["redirect: {uri: /, redirectCode: 304}"], ".redirect.redirectCode: 304 is not usable"),
    "a code that is text": (["redirect: {uri: /, redirectCode: '301'}"], ".redirect.redirectCode: '301' is not usable"),
    "a scheme": (["redirect: {scheme: ftp}"], ".redirect.scheme: 'ftp' is unknown: use one of http, https"),
    "two ports": (["redirect: {port: 1, derivePort: FROM_REQUEST_PORT}"], ".redirect.derivePort: is given beside port"),
    "a fault of a redirect": (["redirect: {uri: /}", "fault: {}"], ".fault: has no effect with redirect"),
    "a rewrite of an answer": (["directResponse: {status: 200}", "rewrite: {uri: /}"], ".rewrite: has no effect with"),
    "a status": (["directResponse: {status: 600}"], ".directResponse.status: 600 is not usable"),
    "two bodies": (["directResponse: {status: 200, body: {string: a, bytes: YQ==}}"], ".directResponse.body.bytes: is"),
    "a body that is no base64": (
        ["directResponse: {status: 200, body: {bytes: '?'}}"],
        ".directResponse.body.bytes: c",
    ),
    "a rewrite of nothing": ([ROUTE, "rewrite: {}"], ".rewrite: changes nothing"),
    "two rewrites": (
        [ROUTE, "rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}"],
        ".rewrite.uriRegexRewrite:",
    ),
    "half a rewrite": (
        [ROUTE, "rewrite: {uriRegexRewrite: {match: a}}"],
        ".rewrite.uriRegexRewrite.rewrite: is missing",
    ),
    "two hosts": (
        [ROUTE, "rewrite: {authority: a}", "headers: {request: {set: {host: b}}}"],
        ".rewrite.authority: is set by headers.request",
    ),
    "the host twice": (
        [ROUTE, "headers: {request: {set: {host: b}, add: {':authority': c}}}"],
        ".headers.request.add.:authority: sets the host a second time",
    ),
    "no time": ([ROUTE, "timeout: 5"], ".timeout: 5 is not text"),
    "a number for a time": ([ROUTE, "timeout: '5'"], ".timeout: '5' is not a duration"),
    "time back": ([ROUTE, "timeout: -1s"], ".timeout: '-1s' is too short: give 1ms or more"),
    "a short time": ([ROUTE, "timeout: 0.5ms"], ".timeout: '0.5ms' is too short: give 1ms or more"),
    "a fine time": ([ROUTE, "timeout: 1.5ms"], ".timeout: '1.5ms' is finer than milliseconds"),
    "no attempts": ([ROUTE, "retries: {retryOn: 5xx}"], ".retries.retryOn: is given without attempts"),
    "negative attempts": ([ROUTE, "retries: {attempts: -1}"], ".retries.attempts: -1 is not usable"),
    "an unknown word": ([ROUTE, "retries: {attempts: 1, retryOn: '5xx,5yy'}"], ".retries.retryOn: '5yy' is unknown"),
    "an empty word": ([ROUTE, "retries: {attempts: 1, retryOn: '5xx,'}"], ".retries.retryOn: '' is unknown"),
    "a fault of nothing": ([ROUTE, "fault: {}"], ".fault: does nothing"),
    "a delay without time": ([ROUTE, "fault: {delay: {percent: 5}}"], ".fault.delay.fixedDelay: is missing"),
    "two faults": ([ROUTE, "fault: {abort: {httpStatus: 500, grpcStatus: '1'}}"], ".fault.abort.grpcStatus: is given"),
    "an HTTP status": ([ROUTE, "fault: {abort: {httpStatus: 600}}"], ".fault.abort.httpStatus: 600 is not usable"),
    "a gRPC status": ([ROUTE, "fault: {abort: {grpcStatus: BROKEN}}"], ".fault.abort.grpcStatus: 'BROKEN' is unknown"),
    "a percentage": (
        [ROUTE, "fault: {abort: {httpStatus: 500, percentage: {value: 101}}}"],
        ".fault.abort.percentage.value: 101 is not usable: give a number from 0 to 100",
    ),
    "a whole percentage": ([ROUTE, "fault: {delay: {fixedDelay: 1s, percent: 0.5}}"], ".fault.delay.percent: 0.5 is n"),
    "two mirrors": ([ROUTE, "mirror: {host: a}", "mirrors: [{destination: {host: b}}]"], ".mirror: is given beside"),
    "an origin": ([ROUTE, "corsPolicy: {allowOrigins: [{}]}"], ".corsPolicy.allowOrigins[0]: is empty"),
    "a method": ([ROUTE, "corsPolicy: {allowMethods: [GO]}"], ".corsPolicy.allowMethods[0]: 'GO' is unknown"),
    "a header of CORS": ([ROUTE, "corsPolicy: {allowHeaders: ['a b']}"], ".corsPolicy.allowHeaders[0]: 'a b' is not"),
    "an age": ([ROUTE, "corsPolicy: {maxAge: 1500ms}"], ".corsPolicy.maxAge: '1500ms' is finer than seconds"),
    "a pseudo header": (
        [ROUTE, "headers: {request: {set: {':path': a}}}"],
        ".headers.request.set.:path: ':path' can't",
    ),
    "the host of a response": (
        [ROUTE, "headers: {response: {set: {host: a}}}"],
        ".headers.response.set.host: 'host' c",
    ),
    "a header to remove": ([ROUTE, "headers: {request: {remove: [Host]}}"], ".headers.request.remove[0]: 'Host' can't"),
    "an answer too long": (
        [f"directResponse: {{status: 200, body: {{string: {'ü' * 2**19}x}}}}"],
        ".directResponse.body.string: has 1048577 bytes",
    ),
    "a time without end": ([ROUTE, "timeout: 876001h"], ".timeout: '876001h' is too long"),
    "a lone per cent sign": ([ROUTE, "headers: {request: {set: {a: 5%}}}"], ".headers.request.set.a: '5%' can't"),
}


@pytest.mark.parametrize(("lines", "message"), REFUSED_ROUTES.values(), ids=REFUSED_ROUTES.keys())
def test_a_wrong_route_is_refused(lines: list[str], message: str) -> None:
    assert f": spec.http[0]{message}" in refusal(one_route(*lines))


REFUSED_MATCHES = {
    "two kinds": ("{uri: {exact: /a, prefix: /b}}", ".uri: has exact and prefix: keep one of them"),
    "an empty prefix": ("{uri: {prefix: ''}}", ".uri.prefix: has 0 characters"),
    "text": ("{method: GET}", ".method: 'GET' is not a mapping"),
    "a regex": ("{uri: {regex: 'a('}}", ".uri.regex: 'a(' is not a regular expression of RE2: missing )"),
    "a header of nothing": ("{headers: {a: }}", ".headers.a: is empty: write {} for one that only has to be there"),
    "a header's name": ("{headers: {'a b': {}}}", ".headers.a b: 'a b' is not the name of a header"),
    "a claim": ("{headers: {'@request.auth.claims.a': {}}}", ".headers.@request.auth.claims.a: '@request"),
    "a port": ("{port: 70000}", ".port: 70000 is not a port"),
    "a namespace": ("{sourceNamespace: a_b}", ".sourceNamespace: 'a_b' is not a namespace"),
    "not a flag": ("{ignoreUriCase: 'yes'}", ".ignoreUriCase: 'yes' is neither true nor false"),
}


@pytest.mark.parametrize(("match", "message"), REFUSED_MATCHES.values(), ids=REFUSED_MATCHES.keys())
def test_a_wrong_match_is_refused(match: str, message: str) -> None:
    assert refusal(one_route(f"match: [{match}]", ROUTE)).startswith(f"a.yaml:7: spec.http[0].match[0]{message}")


@pytest.mark.parametrize("action", ["set", "add"])
def test_the_host_for_one_destination_is_the_last_thing_set(action: str) -> None:
    text = one_route(
        "route:", f"- {{destination: {{host: a}}, headers: {{request: {{{action}: {{Host: b}}, remove: [z]}}}}}}"
    )
    service = read_one(text)
    assert isinstance(service, VirtualService)
    changes = service.http[0].destinations[0].headers.request
    assert (changes.set, changes.add, changes.remove) == (((":authority", "b"),), (), ("z",))
    assert warnings(text) == []
    twice = one_route("route:", "- {destination: {host: a}, headers: {request: {set: {host: b}, add: {host: c}}}}")
    assert ".request.add.host: sets the host a second time" in refusal(twice)


def test_what_has_no_effect_is_a_warning() -> None:
    text = one_route(
        "match: [{uri: {prefix: /}, statPrefix: a}]",
        ROUTE,
        "fault: {abort: {percentage: {value: 5}}, delay: {fixedDelay: 1s}}",
        "mirrorPercentage: {value: 5}",
    )
    assert warnings(text) == [
        "a.yaml:7: spec.http[0].match[0].statPrefix: is not supported here and has no effect",
        "a.yaml:9: spec.http[0].fault.abort: has no httpStatus and no grpcStatus and has no effect",
        "a.yaml:9: spec.http[0].fault.delay: has no percentage, which means 0: no request is affected; give "
        "percentage.value",
        "a.yaml:10: spec.http[0].mirrorPercentage: has no effect without mirror; below mirrors give percentage",
    ]
