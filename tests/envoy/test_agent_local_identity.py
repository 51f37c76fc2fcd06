"""Local mode: two agents with certificates of one development CA, whose Envoys speak mutual TLS by file-based SDS."""

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.agents import AgentProcess
from tests.support.authority import Pair
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.identities import described, failures, gate, serial
from tests.support.ports import free_ports
from tests.support.tls_envoy import ANSWER, from_file, tls_bootstrap, tls_connection, write_bootstrap

MakeAgent = Callable[..., AgentProcess]


def identity_of(account: str) -> str:
    return f"spiffe://cluster.local/ns/demo/sa/{account}"


def ca(*arguments: str) -> str:
    command = [sys.executable, "-m", "pilot_agent.commands.main", "ca", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def issue(authority: Path, output: Path) -> None:
    who = ("--namespace", "demo", "--serviceAccount", "only")
    ca("issue", "--directory", str(authority), "--output", str(output), *who)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    directory = tmp_path / "authority"
    ca("init", "--directory", str(directory))
    return directory


class Sidecar:
    """An agent in local mode whose Envoy is a TLS server, and a client of `peer_port`'s that trusts only `trusts`."""

    def __init__(self, agent: MakeAgent, account: str, *flags: str, **env: str) -> None:
        base = {"POD_NAMESPACE": "demo", "SERVICE_ACCOUNT": account, "ECC_SIGNATURE_ALGORITHM": "ECDSA"}
        self.agent = agent(*flags, binary=envoy_binary(), env={**base, **env})
        self.server_port, self.plain_port = free_ports(2)

    def start(self, peer_port: int, trusts: str) -> "Sidecar":
        directory = self.agent.config_path / "sds"
        source = {name: from_file(directory / f"{name}.json") for name in ("default", "ROOTCA")}
        document = tls_bootstrap(
            self.agent.ports.admin, self.server_port, sds=source, peer=(self.plain_port, peer_port), trusts=trusts
        )
        write_bootstrap(self.agent.directory / "custom.json", document)
        self.agent.write_mesh(customConfigFile=str(self.agent.directory / "custom.json"))
        self.agent.start()
        return self

    def get(self) -> str:
        """What the peer answers to a plain request of an application beside this sidecar."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.plain_port}/", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return str(error.code)


def test_two_sidecars_of_one_ca_speak_mutual_tls(agent: MakeAgent, authority: Path) -> None:
    sleep, httpbin = (Sidecar(agent, name, "--caDir", str(authority)) for name in ("sleep", "httpbin"))
    sleep.start(httpbin.server_port, identity_of("httpbin"))
    httpbin.start(sleep.server_port, identity_of("sleep"))
    eventually(lambda: sleep.get() == httpbin.get() == ANSWER, within=15)
    found = described(sleep.agent)
    assert found["spiffe_id"] == identity_of("sleep")
    assert "development CA" in found["issuer"]
    for sidecar in (sleep, httpbin):
        secrets = sidecar.agent.config_path / "sds"
        assert {path.name: path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {
            "default.json": 0o600,
            "ROOTCA.json": 0o600,
        }
        assert sidecar.agent.stop() == 0
        assert sidecar.agent.left_behind() == []


def test_a_peer_with_another_identity_is_refused(agent: MakeAgent, authority: Path) -> None:
    sleep, other = (Sidecar(agent, name, "--caDir", str(authority)) for name in ("sleep", "other"))
    sleep.start(other.server_port, identity_of("httpbin"))
    other.start(sleep.server_port, identity_of("sleep"))
    eventually(lambda: serial(sleep.agent) and serial(other.agent), within=15)

    def is_refused_by_name() -> bool:
        answer, stats = sleep.get(), sleep.agent.fetch("/stats?usedonly", port=sleep.agent.ports.admin)[1]
        return answer == "503" and "cluster.peer.ssl.fail_verify_san" in stats

    eventually(is_refused_by_name, within=15)
    assert sleep.get() == "503"
    for sidecar in (sleep, other):
        assert sidecar.agent.stop() == 0


def test_certificates_of_the_ca_are_renewed_while_they_are_used(agent: MakeAgent, authority: Path) -> None:
    only = Sidecar(agent, "only", "--caDir", str(authority), SECRET_TTL="6s")
    only.start(only.server_port, identity_of("only"))
    eventually(lambda: only.get() == ANSWER, within=15)
    issued = authority.parent / "client"
    ca(
        "issue",
        "--directory",
        str(authority),
        "--output",
        str(issued),
        "--namespace",
        "demo",
        "--serviceAccount",
        "only",
    )
    client = Pair(*((issued / name).read_text() for name in ("cert-chain.pem", "key.pem")))
    root = (issued / "root-cert.pem").read_text()
    with tls_connection(only.server_port, client, root) as first:

        def is_renewed() -> bool:
            with tls_connection(only.server_port, client, root) as second:
                return second.serial != first.serial

        eventually(is_renewed, within=15)
        assert first.request() == ANSWER
    assert only.get() == ANSWER
    assert only.agent.stop() == 0


def test_issued_files_are_taken_and_taken_again(agent: MakeAgent, authority: Path) -> None:
    sidecar = Sidecar(agent, "only")
    output = sidecar.agent.directory / "etc/certs"
    issue(authority, output)
    sidecar.start(sidecar.server_port, identity_of("only"))
    eventually(lambda: sidecar.get() == ANSWER, within=15)
    before = serial(sidecar.agent)
    eventually(lambda: sidecar.agent.lines("not ready: config: "), within=10)
    issue(authority, output)
    eventually(lambda: serial(sidecar.agent) not in (None, before), within=15)
    assert sidecar.get() == ANSWER
    assert sidecar.agent.stop() == 0


def test_a_ca_that_is_not_there_yet_is_waited_for(agent: MakeAgent, tmp_path: Path) -> None:
    directory = tmp_path / "later"
    running = agent("--caDir", str(directory), env={"ECC_SIGNATURE_ALGORITHM": "ECDSA"}).start()
    eventually(lambda: failures(running, "ca_root") >= 1, within=15)
    assert str(directory) in str(gate(running))
    ca("init", "--directory", str(directory))
    eventually(lambda: gate(running) is None, within=20)
    assert described(running)["spiffe_id"] == "spiffe://cluster.local/ns/default/sa/default"
    assert running.stop() == 0


def test_without_certificates_local_mode_has_no_identity(agent: MakeAgent) -> None:
    running = agent().start().until_ready()
    assert running.fetch("/debug/certs")[0] == 404
    assert not (running.config_path / "sds").exists()
    assert "istio_agent_num_outgoing_requests" not in running.fetch("/metrics")[1]
    maps = Path(f"/proc/{running.pid}/maps").read_text()
    assert "cygrpc" not in maps and "cryptography" not in maps
    assert running.stop() == 0
