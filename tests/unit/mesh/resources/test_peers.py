"""PeerAuthentication: which policy counts for a port, here and at peers, and what it makes of the chains."""

import pytest

from tests.unit.mesh.declared import Seen, document, endpoint_slice, kubernetes_service

CLUSTER = "outbound|80||web.default.svc.cluster.local"
WEB = (
    kubernetes_service("web"),
    endpoint_slice("web", "10.0.0.1"),
    document("WorkloadEntry", "{address: 10.0.0.1, labels: {app: web}, serviceAccount: web}", "web"),
)


def policy(mode: str, selector: str = "", ports: str = "", namespace: str = "default", name: str = "") -> str:
    parts = [f"mtls: {{mode: {mode}}}"] if mode else []
    parts += [f"selector: {{matchLabels: {selector}}}"] if selector else []
    parts += [f"portLevelMtls: {ports}"] if ports else []
    return document(
        "PeerAuthentication", "{" + ", ".join(parts) + "}", name or f"p-{mode or 'none'}".lower(), namespace
    )


MESH = "istio-system"
TABLE = [
    ([], "PERMISSIVE"),
    ([policy("STRICT", namespace=MESH)], "STRICT"),
    ([policy("STRICT", namespace=MESH), policy("PERMISSIVE")], "PERMISSIVE"),
    ([policy("STRICT", namespace=MESH), policy("UNSET")], "STRICT"),
    ([policy("STRICT", namespace=MESH), policy("")], "STRICT"),
    ([policy("DISABLE"), policy("STRICT", "{app: web}")], "STRICT"),
    ([policy("DISABLE"), policy("UNSET", "{app: web}")], "DISABLE"),
    ([policy("DISABLE"), policy("STRICT", "{app: other}")], "DISABLE"),
    ([policy("STRICT", "{app: web, tier: x}")], "PERMISSIVE"),
    ([policy("STRICT", namespace="elsewhere")], "PERMISSIVE"),
    ([policy("STRICT", name="first"), policy("DISABLE", name="second")], "STRICT"),
    ([policy("STRICT", "{app: web}", "{80: {mode: DISABLE}}")], "DISABLE"),
    ([policy("STRICT", "{app: web}", "{81: {mode: DISABLE}}")], "STRICT"),
    ([policy("STRICT", "{app: web}", "{80: {mode: UNSET}}")], "STRICT"),
    ([policy("DISABLE"), policy("", "{app: web}", "{80: {mode: STRICT}}")], "STRICT"),
    ([policy("DISABLE"), policy("", "{app: web}", "{81: {mode: STRICT}}")], "DISABLE"),
]
TRANSPORTS = {"STRICT": [("tls", True)], "PERMISSIVE": [("tls", True), ("raw_buffer", False)], "DISABLE": [("", False)]}


@pytest.mark.parametrize(("policies", "mode"), TABLE)
def test_which_policy_counts_for_our_port(policies: list[str], mode: str) -> None:
    mesh = Seen(*WEB, *policies, addresses=("10.0.0.1",), labels={"app": "web"}, secrets="/sds")
    chains = [chain for chain in mesh.view.inbound.chains if chain["port"] == 80]
    assert [(chain["transport"], chain["is_mtls"]) for chain in chains] == TRANSPORTS[mode]
    assert all(chain["is_http"] for chain in chains)
    assert mesh.view.inbound.plain_ports == ([80] if mode == "DISABLE" else [])
    assert mesh.problems == {}


@pytest.mark.parametrize(("policies", "mode"), TABLE)
def test_which_policy_counts_for_a_peer(policies: list[str], mode: str) -> None:
    mesh = Seen(*WEB, *policies, namespace="default", secrets="/sds")
    assert [endpoint["is_mtls"] for endpoint in mesh.endpoints(CLUSTER)] == [mode != "DISABLE"]


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        ("STRICT", [("tls", True, True), ("tls", False, True)]),
        (
            "PERMISSIVE",
            [
                ("tls", True, True),
                ("raw_buffer", True, False),
                ("tls", False, True),
                ("raw_buffer", False, False),
                ("tls", False, False),
            ],
        ),
        ("DISABLE", [("raw_buffer", True, False), ("raw_buffer", False, False), ("tls", False, False)]),
    ],
)
def test_ports_of_no_service_follow_the_namespace(mode: str, found: list[object]) -> None:
    """(transport, HTTP, mutual TLS) of the passthrough chains; a port level is for ports it names."""
    ports = policy(mode, "{app: web}", "{80: {mode: DISABLE}}")
    mesh = Seen(ports, labels={"app": "web"}, secrets="/sds")
    chains = mesh.view.inbound.chains
    assert [(chain["transport"], chain["is_http"], chain["is_mtls"]) for chain in chains] == found
    assert {chain["cluster"] for chain in chains} == {"InboundPassthroughClusterIpv4"}


@pytest.mark.parametrize("where", ["default", MESH])
def test_strict_without_an_identity_lets_nobody_in(where: str) -> None:
    mesh = Seen(*WEB, policy("STRICT", namespace=where), addresses=("10.0.0.1",))
    (chain,) = mesh.view.inbound.chains
    assert (chain["cluster"], chain["port"], chain["transport"]) == ("BlackHoleCluster", 80, "")
    assert "STRICT needs an identity" in mesh.problems["spec"]


@pytest.mark.parametrize(
    "other", [policy("STRICT", namespace="elsewhere"), policy("STRICT", "{app: other}"), policy("PERMISSIVE")]
)
def test_what_is_not_for_us_needs_no_identity(other: str) -> None:
    mesh = Seen(*WEB, other, addresses=("10.0.0.1",), labels={"app": "web"})
    assert mesh.problems == {}
    assert "BlackHoleCluster" not in {chain["cluster"] for chain in mesh.view.inbound.chains}
