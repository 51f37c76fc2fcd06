"""A real Envoy serves TLS with what the agent gives it over SDS, and goes on serving while that changes."""

import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agents import AgentProcess
from tests.support.authority import Authority, Pair
from tests.support.confidential import found_in
from tests.support.envoy_binary import envoy_binary
from tests.support.eventually import eventually
from tests.support.fake_istiod import FakeIstiod
from tests.support.identities import (
    SPIFFE_ID,
    WORKLOAD_CERTS,
    Mounted,
    certs,
    described,
    failures,
    prepare,
    sds,
    serial,
    serve_tls,
    socket_of,
)
from tests.support.tls_envoy import ANSWER, TlsConnection, tls_connection

MakeAgent = Callable[..., AgentProcess]
CLIENT = "spiffe://cluster.local/ns/foo/sa/client"


@pytest.fixture
def istiod(tmp_path: Path) -> Iterator[FakeIstiod]:
    fake = FakeIstiod(tmp_path).start()
    yield fake
    fake.stop()


def connected(port: int, client: Pair, root: str, *, other_than: str = "") -> TlsConnection:
    """A connection, once there is one whose server shows another certificate than `other_than`."""

    def connect() -> TlsConnection | None:
        connection = TlsConnection(port, client, root)
        if connection.serial != other_than:
            return connection
        connection.close()
        return None

    found = eventually(connect, within=15)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "kind", [{"ECC_SIGNATURE_ALGORITHM": "ECDSA"}, {"ECC_SIGNATURE_ALGORITHM": ""}], ids=["EC", "RSA"]
)
def test_envoy_serves_with_the_certificate_of_the_ca_and_its_renewal(
    agent: MakeAgent, istiod: FakeIstiod, tmp_path: Path, kind: dict[str, str]
) -> None:
    istiod.lifetime_s = 6.0
    running = prepare(agent(binary=envoy_binary()), istiod, **kind)
    port = serve_tls(running)
    running.start()
    client = istiod.provision(tmp_path / "client", CLIENT)
    first = connected(port, client, istiod.root_pem)
    try:
        assert first.spiffe_id == SPIFFE_ID
        assert first.request() == ANSWER
        second = connected(port, client, istiod.root_pem, other_than=first.serial)
        try:
            assert second.request() == ANSWER
            assert first.request() == ANSWER, "a connection from before the renewal goes on"
        finally:
            second.close()
    finally:
        first.close()
    assert all(
        "is valid for 6 s only" in line or "issued: it is valid for 5 s only" in line
        for line in running.lines("certificate issued: ")
    )
    assert running.lines("certificate issued: ")
    assert running.stop() == 0
    assert not socket_of(running).exists()


def test_a_client_without_a_certificate_of_the_mesh_is_refused(
    agent: MakeAgent, istiod: FakeIstiod, tmp_path: Path
) -> None:
    running = prepare(agent(binary=envoy_binary()), istiod)
    port = serve_tls(running)
    running.start()
    connected(port, istiod.provision(tmp_path / "client", CLIENT), istiod.root_pem).close()
    stranger = Authority("stranger").pair(CLIENT)
    with pytest.raises((ssl.SSLError, ConnectionError)), tls_connection(port, stranger, istiod.root_pem) as connection:
        connection.request()
    assert running.stop() == 0


def test_every_rotation_of_a_mounted_secret_reaches_envoy(agent: MakeAgent) -> None:
    running = prepare(agent(binary=envoy_binary()))
    del running.env["FILE_MOUNTED_CERTS"]
    mounted = Mounted(running.directory / WORKLOAD_CERTS)
    mounted.rotate()
    port = serve_tls(running)
    running.start()
    client, before = mounted.authority.pair(CLIENT), ""
    kept = connected(port, client, mounted.authority.pem)
    try:
        for _ in range(25):
            connection = connected(port, client, mounted.authority.pem, other_than=before)
            before = connection.serial
            connection.close()
            mounted.rotate()
        assert kept.request() == ANSWER
    finally:
        kept.close()
    assert not [line for line in running.log.splitlines() if "\terror\t" in line]
    assert running.stop() == 0


def test_a_broken_rotation_leaves_the_last_good_certificate_in_use(agent: MakeAgent) -> None:
    running = prepare(agent(binary=envoy_binary()))
    del running.env["FILE_MOUNTED_CERTS"]
    mounted = Mounted(running.directory / WORKLOAD_CERTS)
    good = mounted.rotate()
    port = serve_tls(running)
    running.start()
    client = mounted.authority.pair(CLIENT)
    first = connected(port, client, mounted.authority.pem)
    first.close()
    eventually(lambda: running.lines("config: "), within=10)  # the watcher begins after 5 s in any case
    mounted.rotate(Pair(mounted.authority.pair(SPIFFE_ID).chain, good.key))
    eventually(lambda: failures(running, "key_mismatch") >= 1, within=15)
    assert "does not belong to" in described(running)["last_error"]
    with tls_connection(port, client, mounted.authority.pem) as connection:
        assert connection.serial == first.serial
    mounted.rotate()
    second = connected(port, client, mounted.authority.pem, other_than=first.serial)
    second.close()
    assert described(running)["last_error"] is None
    assert running.stop() == 0


def test_a_new_root_reaches_envoy_too(agent: MakeAgent) -> None:
    running = prepare(agent(binary=envoy_binary()))
    del running.env["FILE_MOUNTED_CERTS"]
    mounted = Mounted(running.directory / WORKLOAD_CERTS)
    pair = mounted.rotate()
    port = serve_tls(running)
    running.start()
    connected(port, mounted.authority.pair(CLIENT), mounted.authority.pem).close()
    newcomer = Authority("another root")
    client = newcomer.pair(CLIENT)
    mounted.rotate(pair, root=mounted.authority.pem + newcomer.pem)

    def is_served() -> bool:
        try:
            with tls_connection(port, client, mounted.authority.pem) as connection:
                return connection.request() == ANSWER
        except ssl.SSLError:
            return False

    eventually(is_served, within=15)
    assert running.stop() == 0


def test_names_of_files_are_served_and_renewed(agent: MakeAgent) -> None:
    running = prepare(agent(binary=envoy_binary()))
    mounted = Mounted(running.directory / "mine")
    first = mounted.rotate()
    chain, key, root = (mounted.directory / f"{name}.pem" for name in ("cert-chain", "key", "root-cert"))
    names = {"key_pair": f"file-cert:{chain}~{key}", "roots": f"file-root:{root}"}
    port = serve_tls(running, **names)
    running.start()
    client = mounted.authority.pair(CLIENT)
    connection = connected(port, client, mounted.authority.pem)
    connection.close()
    assert {each["name"] for each in certs(running)["certificates"]} == set(names.values())
    assert mounted.rotate() != first
    connected(port, client, mounted.authority.pem, other_than=connection.serial).close()
    assert running.stop() == 0


def test_the_last_certificate_is_served_while_the_ca_is_away(
    agent: MakeAgent, istiod: FakeIstiod, tmp_path: Path
) -> None:
    running = prepare(
        agent(binary=envoy_binary()), istiod, SECRET_GRACE_PERIOD_RATIO="1", SECRET_GRACE_PERIOD_RATIO_JITTER="0"
    )
    port = serve_tls(running)
    running.start()
    client = istiod.provision(tmp_path / "client", CLIENT)
    first = connected(port, client, istiod.root_pem)
    try:
        istiod.stop()
        eventually(lambda: failures(running, "ca_unavailable") >= 1, within=15)
        kept = serial(running)
        with tls_connection(port, client, istiod.root_pem) as connection:
            assert connection.serial == kept
            assert connection.request() == ANSWER
        istiod.start()
        connected(port, client, istiod.root_pem, other_than=str(kept)).close()
        assert first.request() == ANSWER
    finally:
        first.close()
    assert running.stop() == 0


def test_nothing_that_can_be_looked_at_shows_a_key_or_a_token(
    agent: MakeAgent, istiod: FakeIstiod, tmp_path: Path
) -> None:
    """The fixture looks for every key and token of the tests in the log and in what was fetched."""
    flags = ("--log_output_level", "all:debug", "--proxyLogLevel", "debug")
    running = prepare(agent(*flags, binary=envoy_binary()), istiod)
    port = serve_tls(running)
    running.start()
    connected(port, istiod.provision(tmp_path / "client", CLIENT), istiod.root_pem).close()
    with sds(running) as client:
        confided = client.fetch("default").tls_certificate.private_key.inline_bytes
    assert found_in(confided), "what is looked for can be found"
    assert istiod.requests[0].token and found_in(istiod.requests[0].token)
    dumps = {"/config_dump": running.ports.admin, "/certs": running.ports.admin, "/stats": running.ports.admin}
    own = "/ /metrics /debug/status /debug/certs /debug/shutdown /healthz/ready?verbose".split()
    for path, where in {**dumps, **dict.fromkeys(own, running.ports.status)}.items():
        assert running.fetch(path, port=where)[1]
    command = [sys.executable, "-m", "pilot_agent.commands.main", "status", "--port", str(running.ports.status)]
    shown = subprocess.run([*command], env={**os.environ, **running.env}, capture_output=True, text=True, check=True)
    assert f"default  {SPIFFE_ID}, from ca" in shown.stdout
    assert "renewed at" in shown.stdout
    assert not found_in(shown.stdout)
    assert running.stop() == 0
