"""Sidecar and PeerAuthentication: what whole ones mean, what each refusal says, what is left out with a warning."""

import pytest

from pilot_agent.mesh.policy import EgressListener, IngressListener, PeerAuthentication, Sidecar
from tests.unit.mesh.reading.outcome import PEER_AUTHENTICATION, SIDECAR, document, read_one, refusal, warnings


def sidecar(*lines: str) -> str:
    """A Sidecar with these fields: the first of them is in line 5."""
    return document("Sidecar", "spec:\n  " + "\n  ".join(lines))


def test_a_whole_sidecar_is_understood() -> None:
    found = read_one(SIDECAR)
    assert isinstance(found, Sidecar)
    assert (found.name, found.namespace, found.selector) == ("x", "demo", {"app": "api"})
    assert found.ingress == (
        IngressListener(80, "HTTP", "http", "0.0.0.0", "NONE", "127.0.0.1:8080"),
        IngressListener(81, "TCP", default_endpoint="unix:///run/a.sock", place=1),
    )
    assert found.egress == (
        EgressListener(((".", "*"), ("istio-system", "*.example.com")), 9080, "HTTP", "out", "127.0.0.1", "NONE"),
        EgressListener((("*", "api.example.com"), ("~", "*")), place=1),
    )
    assert found.outbound_policy == "REGISTRY_ONLY"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("':8080'", "127.0.0.1:8080"),
        ("0.0.0.0:8080", "0.0.0.0:8080"),
        ("'[::1]:8080'", "[::1]:8080"),
        ("unix:///run/a.sock", "unix:///run/a.sock"),
        ("unix://@a", "unix://@a"),
    ],
)
def test_default_endpoints(written: str, meant: str) -> None:
    found = read_one(sidecar(f"ingress: [{{port: {{number: 80, protocol: HTTP}}, defaultEndpoint: {written}}}]"))
    assert isinstance(found, Sidecar)
    assert found.ingress[0].default_endpoint == meant


def test_a_policy_without_mode_is_protobufs_first() -> None:
    found = read_one(sidecar("outboundTrafficPolicy: {}"))
    assert isinstance(found, Sidecar)
    assert found.outbound_policy == "REGISTRY_ONLY"


PORT = "port: {number: 80, protocol: HTTP}"
REFUSED = {
    "nothing": ("workloadSelector: {labels: {a: b}}", "4: spec: says nothing"),
    "an ingress without port": ("ingress: [{bind: 0.0.0.0}]", "5: spec.ingress[0].port: is missing"),
    "a number": ("ingress: [{port: {protocol: HTTP}}]", "5: spec.ingress[0].port.number: is missing"),
    "a protocol": (
        "ingress: [{port: {number: 1, protocol: HTPP}}]",
        "5: spec.ingress[0].port.protocol: 'HTPP' is unknown",
    ),
    "a name": (
        "ingress: [{port: {number: 1, protocol: TCP, name: a_b}}]",
        "5: spec.ingress[0].port.name: 'a_b' is not a port's name",
    ),
    "a port twice": (f"ingress: [{{{PORT}}}, {{{PORT}}}]", "5: spec.ingress[1].port.number: 80 is there twice"),
    "a bind": (f"ingress: [{{{PORT}, bind: localhost}}]", "5: spec.ingress[0].bind: 'localhost' is not an IP address"),
    "a capture mode": (f"ingress: [{{{PORT}, captureMode: ALL}}]", "5: spec.ingress[0].captureMode: 'ALL' is unknown"),
    "another's endpoint": (
        f"ingress: [{{{PORT}, defaultEndpoint: '10.0.0.1:80'}}]",
        "5: spec.ingress[0].defaultEndpoint: '10.0.0.1:80' is not of this workload",
    ),
    "an endpoint without port": (
        f"ingress: [{{{PORT}, defaultEndpoint: 127.0.0.1}}]",
        "5: spec.ingress[0].defaultEndpoint: '127.0.0.1' is not of this workload",
    ),
    "a socket that is a folder": (
        f"ingress: [{{{PORT}, defaultEndpoint: 'unix:///run/'}}]",
        "5: spec.ingress[0].defaultEndpoint: 'unix:///run/' is not a socket",
    ),
    "no hosts": (f"egress: [{{{PORT}}}]", "5: spec.egress[0].hosts: is missing or empty"),
    "a host without namespace": ("egress: [{hosts: [a.org]}]", "5: spec.egress[0].hosts[0]: 'a.org' has no namespace"),
    "a namespace": ("egress: [{hosts: ['a_b/*']}]", "5: spec.egress[0].hosts[0]: 'a_b' is not a namespace"),
    "a short name": ("egress: [{hosts: [./a]}]", "5: spec.egress[0].hosts[0]: 'a' is a short name"),
    "a host": ("egress: [{hosts: [./a..b]}]", "5: spec.egress[0].hosts[0]: 'a..b' is not a host name"),
    "all ports too early": (
        f"egress: [{{hosts: [./*]}}, {{{PORT}, hosts: [./*]}}]",
        "5: spec.egress[0].port: is missing: only the last egress listener",
    ),
    "an egress port twice": (
        f"egress: [{{{PORT}, hosts: [./*]}}, {{{PORT}, hosts: [./*]}}]",
        "5: spec.egress[1].port.number: 80 is there twice",
    ),
    "a mode": (
        "outboundTrafficPolicy: {mode: ALLOW}",
        "5: spec.outboundTrafficPolicy.mode: 'ALLOW' is unknown: use one of ALLOW_ANY, REGISTRY_ONLY",
    ),
}


@pytest.mark.parametrize(("line", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_sidecar_is_refused(line: str, message: str) -> None:
    assert refusal(sidecar(line)).startswith(f"a.yaml:{message}")


def test_what_is_left_out_of_a_sidecar_is_a_warning() -> None:
    text = sidecar(
        "ingress:",
        f"- {{{PORT}, tls: {{}}, connectionPool: {{}}}}",
        "- {port: {number: 53, protocol: UDP}}",
        "egress:",
        "- {port: {number: 0, protocol: HTTP}, bind: unix:///a, hosts: [./*]}",
        "- {hosts: [./*]}",
        "inboundConnectionPool: {}",
        "outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {}}",
    )
    found = read_one(text)
    assert isinstance(found, Sidecar)
    assert ([each.port for each in found.ingress], [each.place for each in found.egress]) == ([80], [1])
    assert warnings(text) == [
        "a.yaml:6: spec.ingress[0].tls: is not supported here and has no effect",
        "a.yaml:6: spec.ingress[0].connectionPool: is not supported here and has no effect",
        "a.yaml:7: spec.ingress[1].port.protocol: UDP is not proxied: the listener is left out",
        "a.yaml:9: spec.egress[0].bind: Unix sockets are not supported here: the listener is left out",
        "a.yaml:11: spec.inboundConnectionPool: is not supported here and has no effect",
        "a.yaml:12: spec.outboundTrafficPolicy.egressProxy: is not supported here and has no effect",
    ]


def test_a_whole_peer_authentication_is_understood() -> None:
    found = read_one(PEER_AUTHENTICATION)
    assert isinstance(found, PeerAuthentication)
    assert (found.name, found.namespace, found.selector) == ("x", "demo", {"app": "api"})
    assert (found.mode, found.ports) == ("STRICT", {8080: "DISABLE", 9090: "PERMISSIVE"})


def test_a_peer_authentication_may_say_nothing() -> None:
    for body in ("", "spec: {}", "spec: {mtls: {}}", "spec: {mtls: {mode: UNSET}}"):
        found = read_one(document("PeerAuthentication", body))
        assert isinstance(found, PeerAuthentication)
        assert (found.selector, found.mode, found.ports) == (None, "UNSET", {})


SELECTED = "selector: {matchLabels: {a: b}}"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mtls: {mode: ON}", "5: spec.mtls.mode: True is unknown: use one of UNSET, DISABLE, PERMISSIVE, STRICT"),
        ("mtls: STRICT", "5: spec.mtls: 'STRICT' is not a mapping"),
        ("portLevelMtls: {80: {mode: STRICT}}", "5: spec.portLevelMtls: is given for a whole namespace"),
        (f"{SELECTED}\n  portLevelMtls: {{0: {{mode: STRICT}}}}", "6: spec.portLevelMtls.0: is not a port"),
        (f"{SELECTED}\n  portLevelMtls: {{http: {{mode: STRICT}}}}", "6: spec.portLevelMtls.http: is not a port"),
        (f"{SELECTED}\n  portLevelMtls: {{80: {{mode: X}}}}", "6: spec.portLevelMtls.80.mode: 'X' is unknown"),
        (f"{SELECTED}\n  portLevelMtls: {{true: {{mode: X}}}}", "6: spec.portLevelMtls: the key True is not text"),
        ("selector: {matchLabels: {'a*': b}}", "5: spec.selector.matchLabels.a*: has a wildcard"),
    ],
)
def test_a_wrong_peer_authentication_is_refused(spec: str, message: str) -> None:
    assert refusal(document("PeerAuthentication", f"spec:\n  {spec}")).startswith(f"a.yaml:{message}")
