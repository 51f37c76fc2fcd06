"""The agent's identity in a mesh, seen from outside: every fault of a CA, of files and of the token, and what follows.

The same for each: the reason is in the log, in a metric and in readiness, an old certificate stays in use, and the end
of the fault is noticed without a restart.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.agents import AgentProcess
from tests.support.authority import Authority, Pair
from tests.support.eventually import eventually
from tests.support.fake_istiod import FakeIstiod
from tests.support.identities import (
    SPIFFE_ID,
    WORKLOAD_CERTS,
    Mounted,
    certs,
    described,
    failures,
    gate,
    notes,
    prepare,
    sds,
    serial,
    socket_of,
    write_token,
)
from tests.support.sds_client import SdsClient, secrets_in
from tests.unit.cloud.metadata_server import FakeMetadataServer
from tests.unit.sds.served import Served, pair  # an SDS server as good as SPIRE's

MakeAgent = Callable[..., AgentProcess]

# One renewal a second, as Istio's own tests have it.
ALWAYS = {"SECRET_GRACE_PERIOD_RATIO": "1", "SECRET_GRACE_PERIOD_RATIO_JITTER": "0"}

FAULTS = {
    "garbage": ("ca_answer", "its answer is no certificate response"),
    "garbage_pem": ("pem", "has no certificate in it"),
    "empty": ("ca_answer", "invalid empty CertChain"),
    "chain_of_one": ("ca_answer", "invalid empty CertChain: the CA gave 1 certificates"),
    "wrong_key": ("key_mismatch", "the private key does not belong to the certificate of the CA"),
    "expired": ("expired", "the certificate of the CA expired at"),
    "not_yet_valid": ("not_yet_valid", "is not valid before"),
    "unavailable": ("ca_unavailable", "UNAVAILABLE: fake istiod: unavailable"),
    "unauthenticated": ("ca_denied", "UNAUTHENTICATED: fake istiod"),
    "permission_denied": ("ca_denied", "PERMISSION_DENIED: fake istiod"),
    "unknown": ("ca_error", "UNKNOWN: fake istiod"),
}


@pytest.fixture
def istiod(tmp_path: Path) -> Iterator[FakeIstiod]:
    fake = FakeIstiod(tmp_path).start()
    yield fake
    fake.stop()


def until_certified(running: AgentProcess) -> str:
    found = eventually(lambda: serial(running), within=15)
    assert found is not None
    return found


def until_renewed(running: AgentProcess, before: str) -> None:
    eventually(lambda: serial(running) not in (None, before), within=40)


def test_a_certificate_is_there_soon_and_told_of(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = prepare(agent(), istiod, ISTIO_META_CLUSTER_ID="Kubernetes", CA_HEADER_X_CA="a=b").start()
    until_certified(running)
    (request,) = istiod.requests
    assert request.validity_s == 24 * 3600
    assert request.metadata["clusterid"] == "Kubernetes"
    assert request.metadata["x_ca"] == "a=b"
    found = described(running)
    assert found["spiffe_id"] == SPIFFE_ID
    assert found["source"] == "ca"
    assert found["not_after"] > found["next_renewal"] > found["not_before"]
    assert found["last_error"] is None
    assert described(running, "ROOTCA")["roots"] == 1
    assert running.metric('istio_agent_num_outgoing_requests{request_type="csr"}') == 1
    assert running.metric('istio_agent_cert_expiry_seconds{resource_name="default"}') > 86_000
    assert running.metric("istio_agent_cert_renewals_total") == 1
    assert gate(running) is None
    assert running.lines("certificate issued")
    with sds(running) as client:
        assert b"BEGIN EC PRIVATE KEY" in client.fetch("default").tls_certificate.private_key.inline_bytes
        assert client.fetch("ROOTCA").validation_context.trusted_ca.inline_bytes.decode() == istiod.root_pem.strip()
    assert running.stop() == 0
    assert not socket_of(running).parent.exists()


@pytest.mark.parametrize("fault", ["garbage", "wrong_key", "unavailable"])
def test_a_ca_that_fails_at_the_start_is_asked_until_it_does_not(
    agent: MakeAgent, istiod: FakeIstiod, fault: str
) -> None:
    """The other faults, at the start too: tests/unit/identity/test_issuing.py."""
    kind, words = FAULTS[fault]
    istiod.fault = fault
    running = prepare(agent(), istiod).start()
    eventually(lambda: failures(running, kind) >= 1, within=15)
    assert words in str(gate(running))
    assert words in described(running)["last_error"]
    assert [line for line in running.lines("no certificate: ") if words in line]
    istiod.fault = None
    with sds(running) as client:
        assert client.fetch("default").tls_certificate.certificate_chain.inline_bytes, "who asks need not wait long"
    assert gate(running) is None
    assert notes(running) == []
    assert running.stop() == 0


def test_a_ca_that_fails_at_a_renewal_leaves_the_certificate_in_use(agent: MakeAgent, istiod: FakeIstiod) -> None:
    """Every fault, one after the other, in one agent that is never restarted."""
    running = prepare(agent(), istiod, **ALWAYS).start()
    until_certified(running)
    with sds(running) as client:
        stream = client.stream()
        stream.ask("default")
        stream.next()
        for fault, (kind, words) in FAULTS.items():
            before = failures(running, kind)
            istiod.fault = fault
            eventually(lambda kind=kind, before=before: failures(running, kind) > before, within=15)  # type: ignore[misc]
            kept = described(running)
            assert words in kept["last_error"], fault
            assert gate(running) is None, "there is a certificate"
            assert any(words in note for note in notes(running)), fault
            again = client.fetch("default").tls_certificate.certificate_chain.inline_bytes
            assert again, "a new stream gets it too"
            istiod.fault = None
            until_renewed(running, kept["serial"])
            assert notes(running) == []
        assert stream.error is None, "and the old stream lives"
    assert running.stop() == 0


def test_a_ca_that_hangs_is_given_up_after_a_while(agent: MakeAgent, istiod: FakeIstiod) -> None:
    istiod.fault, istiod.fault_count = "hang", 1
    running = prepare(agent(), istiod).start()
    eventually(lambda: "DEADLINE_EXCEEDED" in str(gate(running)) or serial(running), within=30)
    until_certified(running)
    assert running.metric('istio_agent_num_outgoing_retries{request_type="csr"}') == 1
    assert running.stop() == 0


def test_a_ca_that_is_down_comes_back(agent: MakeAgent, istiod: FakeIstiod) -> None:
    istiod.stop()
    running = prepare(agent(), istiod).start()
    eventually(lambda: socket_of(running).exists())
    with sds(running) as client:
        stream = client.stream()
        stream.ask("default")
        error = stream.end()
        assert error.code() is grpc.StatusCode.UNKNOWN
        assert str(error.details()).startswith("failed to generate secret for default: CA localhost:")
        istiod.start()
        assert client.fetch("default", within=20).tls_certificate.certificate_chain.inline_bytes
    assert running.metric('istio_agent_num_outgoing_retries{request_type="csr"}') >= 4
    assert running.stop() == 0


def test_an_expired_certificate_closes_the_gate_and_ends_the_stream(agent: MakeAgent, istiod: FakeIstiod) -> None:
    istiod.lifetime_s = 3.0
    running = prepare(agent(), istiod).start()
    until_certified(running)
    istiod.fault = "unauthenticated"
    with sds(running) as client:
        stream = client.stream()
        stream.ask("default")
        stream.next()
        eventually(lambda: "expired at" in str(gate(running)), within=15)
        while stream.error is None:
            try:
                stream.next()
            except AssertionError:
                break
        assert "failed to generate secret for default: the certificate expired at" in str(stream.error)
    assert running.fetch("/healthz/ready")[0] == 503
    istiod.fault, istiod.lifetime_s = None, None
    eventually(lambda: gate(running) is None, within=20)
    assert running.stop() == 0


# The token


def test_the_token_is_read_anew_for_every_call(agent: MakeAgent, istiod: FakeIstiod) -> None:
    istiod.requires_token = "the-second-token-of-this-test"
    running = prepare(agent(), istiod).start()
    eventually(lambda: "UNAUTHENTICATED" in str(gate(running)), within=15)
    write_token(running, "the-second-token-of-this-test")
    until_certified(running)
    assert running.stop() == 0


def test_a_token_that_vanishes_is_a_warning_and_the_call_goes_on(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = prepare(agent(), istiod, **ALWAYS)
    path = write_token(running, "a-token-that-will-vanish-soon")
    running.start()
    before = until_certified(running)
    path.unlink()
    eventually(lambda: istiod.requests[-1].token is None, within=15)
    assert "authorization" not in istiod.requests[-1].metadata
    until_renewed(running, before)
    eventually(lambda: any("istio-token can't be read" in note for note in notes(running)))
    assert certs(running)["token"]["problem"].endswith("can't be read: No such file or directory")
    write_token(running, "a-token-that-came-back-again")
    eventually(lambda: not [note for note in notes(running) if "istio-token" in note], within=15)
    assert running.stop() == 0


def test_a_token_of_google_goes_to_the_ca_and_into_the_file(agent: MakeAgent, istiod: FakeIstiod) -> None:
    google = FakeMetadataServer()
    path = "/computeMetadata/v1/instance/service-accounts/default/identity?audience=cluster.local&format=full"
    google.required_headers = {"Metadata-Flavor": "Google"}
    google.faults[path] = "garbage"
    try:
        google_env = {"CREDENTIAL_FETCHER_TYPE": "GoogleComputeEngine", "GCE_METADATA_HOST": google.host}
        running = prepare(agent(), istiod, **google_env, CLOUD_PLATFORM="none").start()
        eventually(lambda: "Google's metadata server" in str(gate(running)), within=15)
        assert istiod.requests == [], "without it the CA is not asked"
        del google.faults[path]
        google.facts[path] = "a-token-from-googles-metadata-server"
        until_certified(running)
        assert istiod.requests[0].token == "a-token-from-googles-metadata-server"
        written_token = running.directory / "var/run/secrets/tokens/istio-token"
        assert written_token.read_text() == istiod.requests[0].token
        assert written_token.stat().st_mode & 0o777 == 0o640
        assert running.stop() == 0
    finally:
        google.close()


# Files


def mounted(running: AgentProcess) -> Mounted:
    prepare(running)
    del running.env["FILE_MOUNTED_CERTS"]
    return Mounted(running.directory / WORKLOAD_CERTS)


def test_mounted_certificates_need_no_ca(agent: MakeAgent) -> None:
    running = agent()
    files = mounted(running)
    pair = files.rotate()
    running.start()
    until_certified(running)
    assert described(running)["source"] == "files"
    with sds(running) as client:
        secret = client.fetch("default").tls_certificate
        assert secret.certificate_chain.inline_bytes.decode() == pair.chain
        assert secret.private_key.inline_bytes.decode() == pair.key
        assert client.fetch("ROOTCA").validation_context.trusted_ca.inline_bytes.decode() == files.authority.pem.strip()
    assert running.metric("istio_agent_cert_files_checked_seconds") < 31
    assert running.stop() == 0


def break_pair(files: Mounted, good: Pair) -> None:
    files.rotate(Pair(files.authority.pair(SPIFFE_ID).chain, good.key))


def expire(files: Mounted, _good: Pair) -> None:
    files.rotate(files.authority.pair(SPIFFE_ID, lifetime_s=60, not_before=1_600_000_000))


def postpone(files: Mounted, _good: Pair) -> None:
    files.rotate(files.authority.pair(SPIFFE_ID, lifetime_s=3600, not_before=4_000_000_000))


def scramble(files: Mounted, good: Pair) -> None:
    files.rotate(Pair("no certificate", good.key))


def empty(files: Mounted, good: Pair) -> None:
    files.rotate(Pair("", good.key))


def vanish(files: Mounted, _good: Pair) -> None:
    (files.directory / "..data").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (break_pair, "does not belong to"),
        (expire, "expired at 2020-09-13"),
        (postpone, "is not valid before 2096"),
        (scramble, "has no certificate in it"),
        (empty, "is missing or empty"),
        (vanish, "is missing or empty"),
    ],
)
def test_spoiled_files_leave_the_last_good_ones_in_use(
    agent: MakeAgent, spoil: Callable[[Mounted, Pair], None], words: str
) -> None:
    running = agent()
    files = mounted(running)
    good = files.rotate()
    running.start()
    before = until_certified(running)
    spoil(files, good)
    running.signal(signal.SIGHUP)  # as the file watcher does, which begins later
    eventually(lambda: words in str(described(running)["last_error"]), within=15)
    assert serial(running) == before
    assert gate(running) is None
    assert any(words in note for note in notes(running))
    with sds(running) as client:
        assert client.fetch("default").tls_certificate.certificate_chain.inline_bytes.decode() == good.chain
    (files.directory / "..data").unlink(missing_ok=True)
    files.rotate()
    until_renewed(running, before)
    assert notes(running) == []
    assert running.stop() == 0


def test_half_of_a_rotation_is_waited_out(agent: MakeAgent) -> None:
    """A certificate replaced before its key: one push, when the key is there."""
    running = agent()
    prepare(running)
    directory, authority = running.directory / "plain", Authority("root")
    directory.mkdir()
    chain, key = directory / "cert.pem", directory / "key.pem"
    first, second = (authority.pair(SPIFFE_ID) for _ in range(2))
    chain.write_text(first.chain)
    key.write_text(first.key)
    running.start()
    eventually(lambda: socket_of(running).exists())
    name = f"file-cert:{chain}~{key}"
    with sds(running) as client:
        stream = client.stream()
        stream.ask(name)
        stream.next()
        chain.write_text(second.chain)
        running.signal(signal.SIGHUP)
        eventually(lambda: failures(running, "key_mismatch") >= 1)
        assert stream.is_silent()
        key.write_text(second.key)
        response = stream.next(within=15)
        assert secrets_in(response)[name].tls_certificate.private_key.inline_bytes.decode() == second.key
        assert stream.is_silent()
    assert running.stop() == 0


def test_missing_files_end_the_stream_with_the_reason(agent: MakeAgent) -> None:
    running = prepare(agent()).start()
    eventually(lambda: socket_of(running).exists())
    with sds(running) as client:
        streams = {name: client.stream() for name in ("file-root:/nowhere/root.pem", "file-cert:/nowhere/a~/nowhere/b")}
        for name, stream in streams.items():
            stream.ask(name)
        for name, stream in streams.items():
            assert "is missing or empty" in str(stream.end(within=30).details()), name
        workload = client.stream()
        workload.ask("default")
        assert "there is no CA to ask, and no certificate in" in str(workload.end().details())
    assert gate(running) is None, "with FILE_MOUNTED_CERTS nobody needs them"
    assert running.stop() == 0


def test_files_that_appear_take_over_from_the_ca_and_give_it_back(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = prepare(agent(), istiod).start()
    before = until_certified(running)
    files = Mounted(running.directory / "etc/certs")
    files.rotate()
    running.signal(signal.SIGHUP)
    eventually(lambda: described(running)["source"] == "files")
    assert serial(running) != before
    assert described(running)["next_renewal"] is None
    (files.directory / "..data").unlink()
    running.signal(signal.SIGHUP)
    eventually(lambda: described(running)["source"] == "ca")
    assert len(istiod.requests) == 2
    assert running.stop() == 0


def test_a_revocation_list_that_changes_is_pushed(agent: MakeAgent) -> None:
    crl = Path("/var/run/secrets/istio/crl/ca-crl.pem")
    running = agent()
    files = mounted(running)
    files.rotate()
    made = [each for each in (*reversed(crl.parents), crl) if not each.exists()]
    try:
        crl.parent.mkdir(parents=True, exist_ok=True)
        crl.write_text(files.authority.crl())
        running.start()
        until_certified(running)
        with sds(running) as client:
            stream = client.stream()
            stream.ask("ROOTCA")
            first = secrets_in(stream.next())["ROOTCA"].validation_context.crl.inline_bytes
            crl.write_text(files.authority.crl(7))
            running.signal(signal.SIGHUP)
            second = secrets_in(stream.next())["ROOTCA"].validation_context.crl.inline_bytes
            assert first and second and first != second
            crl.write_text("no list")
            running.signal(signal.SIGHUP)
            eventually(lambda: any("has no revocation list in it" in note for note in notes(running)))
            assert stream.is_silent()
        assert running.stop() == 0
    finally:
        for path in reversed(made):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)


# OUTPUT_CERTS


def written(directory: Path) -> dict[str, Any]:
    return {path.name: (path.read_bytes(), path.stat().st_mode & 0o777) for path in sorted(directory.iterdir())}


@pytest.mark.parametrize(("env", "mode"), [({}, 0o600), ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 0o644)])
def test_the_certificate_is_written_where_OUTPUT_CERTS_says(
    agent: MakeAgent, istiod: FakeIstiod, env: dict[str, str], mode: int
) -> None:
    running = prepare(agent(), istiod, OUTPUT_CERTS="etc/certs", **env, **ALWAYS).start()
    directory = running.directory / "etc/certs"
    eventually(lambda: len(written(directory)) == 3)
    first = written(directory)
    assert list(first) == ["cert-chain.pem", "key.pem", "root-cert.pem"]
    assert {each[1] for each in first.values()} == {mode}
    eventually(lambda: written(directory)["key.pem"] != first["key.pem"], within=15)
    assert described(running)["source"] == "ca", "it does not take its own output for mounted files"
    assert first["root-cert.pem"] == written(directory)["root-cert.pem"]
    assert running.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_disk_leaves_the_old_set_whole_and_is_tried_again(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = prepare(agent(), istiod, OUTPUT_CERTS="out", **ALWAYS)
    directory = running.directory / "out"
    directory.mkdir()
    script = f'mount -t tmpfs -o size=32k none {directory} && exec "$@"'
    running.start("unshare", "--mount", "sh", "-c", script, "sh")

    def inside() -> Path:
        return Path(f"/proc/{running.pid}/root{directory}")

    eventually(lambda: len(written(inside())) == 3, within=15)
    filler = inside() / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    eventually(lambda: failures(running, "output") >= 1, within=15)
    names = ["cert-chain.pem", "filler", "key.pem", "root-cert.pem"]
    assert sorted(path.name for path in inside().iterdir()) == names, "no draft is left"
    assert any("No space left on device" in note for note in notes(running))
    assert gate(running) is None, "there is a whole set"
    before = (inside() / "key.pem").read_bytes()
    filler.unlink()
    eventually(lambda: (inside() / "key.pem").read_bytes() != before, within=30)
    eventually(lambda: not [note for note in notes(running) if "OUTPUT_CERTS" in note])
    assert running.stop() == 0


# Start, and sockets of others


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"FILE_MOUNTED_CERTS": "true", "PROV_CERT": "x"}, "FILE_MOUNTED_CERTS and PROV_CERT exclude each other"),
        ({"WORKLOAD_RSA_KEY_SIZE": "1024", "ECC_SIGNATURE_ALGORITHM": ""}, "WORKLOAD_RSA_KEY_SIZE: 1024 bits"),
        ({"ECC_SIGNATURE_ALGORITHM": "ED25519"}, "ECC_SIGNATURE_ALGORITHM: 'ED25519' is not known"),
        ({"CA_ADDR": "meshca.googleapis.com:443"}, "is Google's CA"),
        ({"CA_ADDR": "nowhere"}, "CA_ADDR: 'nowhere' is not an address"),
        ({"CA_PROVIDER": "Vault"}, "CA_PROVIDER: 'Vault' is not known"),
        ({"CA_PROVIDER": "GkeWorkloadCertificate"}, "certificates.pem is missing"),
        ({"PILOT_CERT_PROVIDER": "none"}, "set CA_ROOT_CA to a file, or to SYSTEM"),
        ({"CREDENTIAL_FETCHER_TYPE": "Magic"}, "CREDENTIAL_FETCHER_TYPE: 'Magic' is not known"),
        ({"SECRET_GRACE_PERIOD_RATIO": "2"}, "SECRET_GRACE_PERIOD_RATIO: '2' is not a number from 0 to 1"),
        ({"SECRET_TTL": "0s"}, "SECRET_TTL: 0s is no lifetime"),
        ({"WORKLOAD_IDENTITY_SOCKET_FILE": "x" * 100}, "and a Unix socket's can have 107"),
    ],
)
def test_what_can_never_work_ends_the_start_in_one_line(agent: MakeAgent, env: dict[str, str], words: str) -> None:
    running = agent()
    running.is_local = False
    running.env |= env
    assert running.start().wait() == 255
    assert running.errors.count("\n") == 1
    assert words in running.errors
    assert not (running.directory / "var").exists()
    assert not running.config_path.exists()


def test_beside_another_sds_server_only_files_are_served(agent: MakeAgent, istiod: FakeIstiod, tmp_path: Path) -> None:
    running = prepare(agent(), istiod)
    directory = socket_of(running).parent
    directory.mkdir(parents=True)
    spire = Served(tmp_path)
    try:
        (tmp_path / "sds").rename(socket_of(running))
        spire.offer("default", pair())
        running.start()
        files_socket = running.directory / "var/run/secrets/credential-uds/files-socket"
        eventually(files_socket.exists)
        authority = Authority("root")
        (running.directory / "root.pem").write_text(authority.pem)
        with SdsClient(files_socket) as client:
            root = client.fetch(f"file-root:{running.directory}/root.pem")
            assert root.validation_context.trusted_ca.inline_bytes.decode() == authority.pem.strip()
            refused = client.stream()
            refused.ask("default")
            assert "there is no CA to ask" in str(refused.end().details())
        with sds(running) as client:
            assert client.fetch("default").tls_certificate.certificate_chain.inline_bytes, "SPIRE's, untouched"
        assert istiod.requests == []
        assert running.stop() == 0
        assert not files_socket.exists()
        assert socket_of(running).exists()
    finally:
        spire.stop()


def test_the_socket_of_another_agent_is_not_taken_away(agent: MakeAgent, istiod: FakeIstiod) -> None:
    first, second = prepare(agent(), istiod), prepare(agent(), istiod)
    second.directory = first.directory
    second.log_file, second.error_file = (first.directory / f"second.{name}" for name in ("log", "err"))
    first.start()
    until_certified(first)
    second.write_mesh()
    second.mesh_file = second.mesh_file.rename(first.directory / "mesh.yaml")
    assert second.start().wait() == 255
    assert f"SDS: another pilot-agent, pid {first.pid}, serves var/run/secrets/workload-spiffe-uds/" in second.errors
    with sds(first) as client:
        assert client.fetch("default").tls_certificate.certificate_chain.inline_bytes
    assert first.stop() == 0


def test_a_dead_socket_is_replaced(agent: MakeAgent, istiod: FakeIstiod) -> None:
    running = prepare(agent(), istiod)
    socket_of(running).parent.mkdir(parents=True)
    directory = os.open(socket_of(running).parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"/proc/self/fd/{directory}/{socket_of(running).name}")
    os.close(directory)
    running.start()
    until_certified(running)
    assert running.lines("taken for a leftover")
    with sds(running) as client:
        assert client.fetch("default").tls_certificate.certificate_chain.inline_bytes
    assert running.stop() == 0


# Warnings before pain


def test_what_will_hurt_later_is_said_at_once(agent: MakeAgent, istiod: FakeIstiod) -> None:
    istiod.lifetime_s = 200
    running = prepare(agent(), istiod, TRUST_DOMAIN="elsewhere.org").start()
    until_certified(running)
    assert running.lines("certificate issued: it is valid for")
    assert not running.lines("its trust domain is"), "the CA gave what was asked for"
    assert running.stop() == 0


def test_files_of_another_trust_domain_or_root_are_warned_of(agent: MakeAgent) -> None:
    running = agent()
    files = mounted(running)
    files.rotate(Authority("stranger").pair("spiffe://elsewhere.org/ns/a/sa/b"))
    running.start()
    until_certified(running)
    assert running.lines("its trust domain is elsewhere.org, and TRUST_DOMAIN is cluster.local")
    assert running.lines("the root certificate does not verify it (no root certificate we have issued O=stranger)")
    assert running.stop() == 0
