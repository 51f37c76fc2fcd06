"""Mutual TLS between two real Envoys of one development CA, each with a mesh of its own and secrets in files.

The client's opens the service's port on loopback, the server's takes it in on 127.0.0.2, as a Sidecar says.
"""

import http.client
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.authority import Authority
from tests.support.echoing import Answer, Echo, ask, echoing
from tests.support.eventually import eventually
from tests.support.load import load
from tests.support.mesh_proxy import Proxy, mesh_proxy
from tests.support.ports import free_ports
from tests.support.sds_files import write_secrets
from tests.support.tls_envoy import tls_connection
from tests.unit.mesh.declared import document, kubernetes_service

ADDRESS = "127.0.0.2"
IDENTITY = "spiffe://cluster.local/ns/default/sa"


class Pair(NamedTuple):
    """Requests to `port` (and TCP to `tcp`) of loopback go to the server's `ingress` (and `tcp_ingress`)."""

    client: Proxy
    server: Proxy
    app: Echo
    port: int
    tcp: int
    ingress: int
    tcp_ingress: int
    root: str

    def be(self, mode: str, account: str = "web", rule: str = "") -> None:
        """Both follow this PeerAuthentication; the client takes the server for `account`."""
        policy = document("PeerAuthentication", f"{{mtls: {{mode: {mode}}}}}")
        ports = f"{{http: {self.ingress}, tcp: {self.tcp_ingress}}}"
        spec = f"{{address: {ADDRESS}, labels: {{app: web}}, serviceAccount: {account}, ports: {ports}}}"
        ports = f"[{{name: http, port: {self.port}}}, {{name: tcp, port: {self.tcp}}}]"
        service = kubernetes_service("web", ports, "selector: {app: web}")
        rules = [document("DestinationRule", f"{{host: web, {rule}}}")] if rule else []
        for proxy, texts in (
            (self.server, [policy]),
            (self.client, [policy, service, document("WorkloadEntry", spec, "web"), *rules]),
        ):
            proxy.mesh.write("mesh.yaml", "---\n".join(texts))
            proxy.reload()

    def ask(self) -> Answer:
        return ask(self.port, "web")

    def who_asks(self) -> str:
        """What the application is told of the client, "" for nothing."""
        answer = self.ask()
        assert answer.status == 200, answer
        return str(answer.got["headers"].get("x-forwarded-client-cert", ""))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        app = stack.enter_context(echoing("app"))
        directories = {name: tmp_path_factory.mktemp(name) for name in ("ca", "sleep", "web")}
        client, server = (
            stack.enter_context(
                mesh_proxy(
                    directories[name],
                    interception_mode="NONE",
                    addresses=(address,),
                    secrets=write_secrets(directories[name] / "sds", name, directories["ca"] / "ca"),
                    access_log=str(directories[name] / "access.log"),
                    access_log_format="%RESPONSE_CODE% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n",
                )
            )
            for name, address in (("sleep", "127.0.0.1"), ("web", ADDRESS))
        )
        port, tcp = free_ports(2)
        ingress, tcp_ingress = free_ports(2, ADDRESS)
        root = (directories["ca"] / "ca/ca-cert.pem").read_text()
        pair = Pair(client, server, app, port, tcp, ingress, tcp_ingress, root)
        listeners = [
            f"{{port: {{number: {number}, protocol: {protocol}}}, bind: {ADDRESS}, "
            f"defaultEndpoint: 127.0.0.1:{app.port}}}"
            for number, protocol in ((pair.ingress, "HTTP"), (pair.tcp_ingress, "TCP"))
        ]
        pair.server.mesh.write("own.yaml", document("Sidecar", f"{{ingress: [{', '.join(listeners)}]}}"))
        pair.be("PERMISSIVE")
        eventually(lambda: pair.ask().status == 200, within=15)
        yield pair


@pytest.fixture(autouse=True)
def _everything_is_taken(pair: Pair) -> Iterator[None]:
    yield
    assert pair.client.complaints() == pair.server.complaints() == {}


@pytest.mark.parametrize(
    ("mode", "is_mtls", "takes_plain"),
    [("PERMISSIVE", True, True), ("STRICT", True, False), ("DISABLE", False, True), ("STRICT", True, False)],
)
def test_each_mode(pair: Pair, mode: str, is_mtls: bool, takes_plain: bool) -> None:
    pair.be(mode)
    eventually(lambda: bool(pair.who_asks()) is is_mtls)
    if is_mtls:
        facts = dict(part.split("=", 1) for part in pair.who_asks().split(";"))
        assert (facts["URI"], facts["By"]) == (f"{IDENTITY}/sleep", f"{IDENTITY}/web")
    if takes_plain:
        assert "x-forwarded-client-cert" not in ask(pair.ingress, "web", address=ADDRESS).got["headers"]
        assert ask(pair.tcp_ingress, "anything", address=ADDRESS).name == "app"
    else:
        for port in (pair.ingress, pair.tcp_ingress):
            with pytest.raises((OSError, http.client.HTTPException)):
                ask(port, "web", address=ADDRESS)
    assert ask(pair.tcp, "anything").name == "app"


def test_a_peer_of_another_name_is_refused(pair: Pair) -> None:
    pair.be("PERMISSIVE", account="somebody-else")
    eventually(lambda: pair.ask().status == 503)
    log = Path(pair.client.options.access_log)
    reasons = eventually(lambda: [line for line in log.read_text().splitlines() if line.startswith("503 TLS_error")])
    assert "CERTIFICATE_VERIFY_FAILED" in reasons[-1] and "SAN" in reasons[-1]
    pair.be("PERMISSIVE")
    eventually(lambda: pair.ask().status == 200)


def test_a_client_of_another_ca_is_refused(pair: Pair) -> None:
    pair.be("STRICT")
    client, root = Authority().pair(f"{IDENTITY}/sleep"), pair.root
    with pytest.raises(OSError), tls_connection(pair.ingress, client, root, ADDRESS) as connection:
        connection.request()


def test_a_rule_may_ask_for_mutual_tls_and_http2(pair: Pair) -> None:
    pool = "connectionPool: {http: {h2UpgradePolicy: UPGRADE}}"
    pair.be("STRICT", rule=f"trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}, {pool}}}")
    connections = rf"outbound\|{pair.port}\|\|.*upstream_cx_http2_total$"
    eventually(lambda: pair.who_asks() and sum(pair.client.stats(connections).values()))
    assert f"URI={IDENTITY}/sleep" in pair.who_asks()


def test_a_rule_may_turn_it_off(pair: Pair) -> None:
    pair.be("PERMISSIVE", rule="trafficPolicy: {tls: {mode: DISABLE}}")
    eventually(lambda: pair.who_asks() == "")


def test_no_request_fails_while_the_mode_changes(pair: Pair) -> None:
    """Peers that are known to speak mutual TLS go on, whatever else is let in."""
    pair.be("PERMISSIVE")
    eventually(pair.who_asks)
    with load(pair.port, "web", None) as requests:
        for mode in islice(cycle(("STRICT", "PERMISSIVE")), 8):
            pair.be(mode)
            requests.go_on(5)
        assert requests.is_on
    assert requests.failures == []
