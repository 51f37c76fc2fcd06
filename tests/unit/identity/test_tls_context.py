"""The TLS of a connection of our own: by whom the server is checked, and who we are to it."""

import ssl
from pathlib import Path

import pytest

from pilot_agent.identity.channel import Credentials, tls_context
from tests.support.authority import Authority, Pair

NAME = "istiod.istio-system.svc"
WHO = "spiffe://cluster.local/ns/a/sa/b"


def server(directory: Path, pair: Pair, root: Authority) -> ssl.SSLContext:
    """One that requires a certificate."""
    file = directory / "server.pem"
    file.write_text(pair.key + pair.chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=root.pem)
    return context


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends in memory. Raises ssl.SSLError."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=NAME)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    left = {ours, theirs}
    while left:
        for each in [*left]:
            try:
                each.do_handshake()
                left.discard(each)
            except ssl.SSLWantReadError:
                pass
    return ours, theirs


def credentials(root: str, pair: Pair | None = None) -> Credentials:
    key, chain = (pair.key.encode(), pair.chain.encode()) if pair is not None else (None, None)
    return Credentials(root.encode(), key, chain)


def test_our_pair_is_shown_and_the_servers_name_is_checked(tmp_path: Path) -> None:
    root = Authority()
    context = tls_context(credentials(root.pem, root.pair(WHO)))
    _, theirs = shake_hands(context, server(tmp_path, root.pair(NAME), root))
    certificate = theirs.getpeercert()
    assert certificate is not None and ("URI", WHO) in certificate["subjectAltName"]
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(context, server(tmp_path, root.pair("other.svc"), root))


def test_no_other_authority_counts(tmp_path: Path) -> None:
    root, other = Authority(), Authority("other")
    context = tls_context(credentials(root.pem, root.pair(WHO)))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(context, server(tmp_path, other.pair(NAME), root))


def test_an_intermediate_may_be_the_root_as_for_grpc(tmp_path: Path) -> None:
    root = Authority()
    intermediate = Authority("intermediate", root)
    context = tls_context(credentials(intermediate.pem, root.pair(WHO)))
    shake_hands(context, server(tmp_path, intermediate.pair(NAME), root))


def test_ciphers_are_those_that_are_allowed() -> None:
    context = tls_context(credentials(Authority().pem), "ECDHE-ECDSA-AES128-GCM-SHA256")
    older = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    assert older == ["ECDHE-ECDSA-AES128-GCM-SHA256"]
    with pytest.raises(ssl.SSLError):
        tls_context(credentials(Authority().pem), "none such")


def test_a_pair_that_is_none_is_an_error_of_ssl() -> None:
    root = Authority()
    mixed = Pair(root.pair(WHO).chain, root.pair(WHO).key)
    with pytest.raises(ssl.SSLError):
        tls_context(credentials(root.pem, mixed))
