"""The CA for development: what it makes and signs, what it refuses, and what keeps it from signing."""

import asyncio
import base64
import datetime
import errno
import fcntl
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.errors import AgentError, IdentityError, SettingsError
from pilot_agent.files.publish import publish_all
from pilot_agent.identity.ca import Signer
from pilot_agent.identity.certificate import check_pair, check_roots, why_unverified
from pilot_agent.identity.crypto import InProcess, LocallySigned
from pilot_agent.identity.keys import KeySpec, make_request
from pilot_agent.identity.local_ca import (
    CA_CERTIFICATE_NAME,
    CA_KEY_NAME,
    LocalCa,
    create,
    issue,
    read_ca,
)
from pilot_agent.identity.profile import BACKDATED_S, ORGANIZATION, is_trust_domain, trust_domain_of
from tests.support.authority import Authority
from tests.support.authority import key_pem as pkcs8_of
from tests.support.clocks import ManualClock
from tests.support.confidential import confide, found_in

NOW = 1_800_000_000.0
LIFETIME_S = 10 * 86400.0
EC = KeySpec("ECDSA")
ID = "spiffe://cluster.local/ns/demo/sa/hello"


def clock(now: float = NOW) -> ManualClock:
    made = ManualClock()
    made.now = now
    return made


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a CA that was made at NOW."""
    made = tmp_path / "ca"
    create(made, "cluster.local", LIFETIME_S, NOW, publish_all)
    confide((made / CA_KEY_NAME).read_bytes())
    return made


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def certificate_in(directory: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / CA_CERTIFICATE_NAME).read_bytes())


def signed(signer: Signer, csr: bytes, ttl_s: int = 3600) -> list[x509.Certificate]:
    """What the signer gives, under an event loop as in the agent."""

    async def sign() -> Sequence[str]:
        return await signer.sign(csr, ttl_s)

    return [x509.load_pem_x509_certificate(each.encode()) for each in asyncio.run(sign())]


def refusal(signer: Signer, csr: bytes, ttl_s: int = 3600) -> IdentityError:
    with pytest.raises(IdentityError) as caught:
        signed(signer, csr, ttl_s)
    assert "\n" not in str(caught.value) and found_in(str(caught.value)) == []
    return caught.value


def request_for(
    *names: str,
    key: "ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | None" = None,
    extra: x509.ExtensionType | None = None,
) -> bytes:
    """A request for these names, URIs and DNS names, and perhaps one more extension."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.OID_COMMON_NAME, "who I say I am")])
    )
    if names:
        general = [x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.PEM)


def usages(certificate: x509.Certificate) -> set[str]:
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    names = "digital_signature key_encipherment content_commitment key_agreement key_cert_sign crl_sign".split()
    return {name for name in names if getattr(usage.value, name)}


# Making it


def test_the_root_is_one_of_a_spiffe_trust_domain_and_says_what_it_is_for(directory: Path) -> None:
    root = certificate_in(directory)
    root.verify_directly_issued_by(root)
    assert root.subject.rfc4514_string() == f"O={ORGANIZATION}" and "not for production" in ORGANIZATION
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert usages(root) == {"key_cert_sign", "crl_sign"}
    names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://cluster.local")]
    public_key = root.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.curve.name == "secp256r1"
    identifier = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier == x509.SubjectKeyIdentifier.from_public_key(public_key)
    assert root.not_valid_before_utc.timestamp() == NOW - BACKDATED_S
    assert root.not_valid_after_utc.timestamp() == NOW + LIFETIME_S
    assert root.serial_number.bit_length() > 64


def test_what_was_made_is_told(tmp_path: Path) -> None:
    facts = create(tmp_path, "demo.example", 60, NOW, publish_all)
    assert (facts.spiffe_id, facts.not_after, facts.key) == ("spiffe://demo.example", NOW + 60, "EC secp256r1")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_key_is_the_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        create(tmp_path / "a" / "ca", "cluster.local", 60, NOW, publish_all)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "a" / "ca").iterdir()}
    assert modes == {CA_KEY_NAME: 0o600, CA_CERTIFICATE_NAME: 0o644}
    assert (tmp_path / "a" / "ca").stat().st_mode & 0o022 == 0, "others can put no other key there"


@pytest.mark.parametrize("name", [CA_KEY_NAME, CA_CERTIFICATE_NAME])
def test_a_ca_or_half_of_one_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(SettingsError, match=f"{name} is there already, and a CA is never overwritten"):
        create(tmp_path, "cluster.local", 60, NOW, publish_all)
    assert contents(tmp_path) == {name: b"precious"}


def test_a_link_to_a_key_that_is_elsewhere_for_now_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / CA_KEY_NAME).symlink_to("not mounted yet")
    with pytest.raises(SettingsError, match="is there already"):
        create(tmp_path, "cluster.local", 60, NOW, publish_all)
    assert [path.name for path in tmp_path.iterdir()] == [CA_KEY_NAME]


def test_two_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(SettingsError, match="another process is making a CA in"):
            create(tmp_path, "cluster.local", 60, NOW, publish_all)
        assert contents(tmp_path) == {}
    finally:
        os.close(descriptor)
    create(tmp_path, "cluster.local", 60, NOW, publish_all)


@pytest.mark.parametrize("text", ["", "Cluster.Local", "a b", "a/b", "spiffe://a", "köln", "a\n", "a" * 256, "a:80"])
def test_what_is_no_trust_domain_is_refused_before_anything_is_made(tmp_path: Path, text: str) -> None:
    assert not is_trust_domain(text)
    with pytest.raises(SettingsError, match="is no trust domain: use 1 to 255 lower-case letters") as caught:
        create(tmp_path / "ca", text, 60, NOW, publish_all)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ca").exists()


def test_the_longest_trust_domain_makes_a_ca_that_signs(tmp_path: Path) -> None:
    domain = "d" * 255
    create(tmp_path, domain, 60, NOW, publish_all)
    assert issue(read_ca(tmp_path, NOW), EC, f"spiffe://{domain}/ns/a/sa/b", 5, NOW).facts.not_after == NOW + 5


def test_where_nothing_can_be_written_there_is_one_line_and_no_ca(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for directory in (tmp_path / "file", tmp_path / "file" / "ca"):
        with pytest.raises(AgentError, match=f"no CA can be made in {directory}: .*; give a directory"):
            create(directory, "cluster.local", 60, NOW, publish_all)
    assert contents(tmp_path) == {"file": b""}


def test_a_full_disk_is_one_line_and_no_ca(tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "draft"))

    with pytest.raises(
        AgentError, match=f"^no CA can be made in {tmp_path}: No space left on device; give a directory"
    ):
        create(tmp_path, "cluster.local", 60, NOW, full)
    create(tmp_path, "cluster.local", 60, NOW, publish_all)


# What it signs


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (EC, {"digital_signature"}),
        (KeySpec("ECDSA", curve="P384"), {"digital_signature"}),
        (KeySpec("RSA", 2048), {"digital_signature", "key_encipherment"}),
    ],
    ids=str,
)
def test_a_workload_gets_what_spiffe_and_istio_want(directory: Path, spec: KeySpec, expected: set[str]) -> None:
    request = make_request(spec, ID)
    leaf, root = signed(LocalCa(directory, clock()), request.csr)
    assert root == certificate_in(directory)
    leaf.verify_directly_issued_by(root)
    extensions = leaf.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (names.critical, list(names.value)) == (True, [x509.UniformResourceIdentifier(ID)])
    assert list(leaf.subject) == []
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    assert usages(leaf) == expected
    both = [x509.OID_SERVER_AUTH, x509.OID_CLIENT_AUTH]
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == both
    own = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own
    public_key = load_pem_private_key(request.key, None).public_key()
    assert leaf.public_key() == public_key
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)  # type: ignore[arg-type]
    assert extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value == identifier
    assert leaf.not_valid_before_utc.timestamp() == NOW - BACKDATED_S
    assert leaf.not_valid_after_utc.timestamp() == NOW + 3600


def test_no_two_serial_numbers_are_the_same(directory: Path) -> None:
    csr, ca = make_request(EC, ID).csr, read_ca(directory, NOW)
    serials = {x509.load_pem_x509_certificate(ca.sign(csr, 60, NOW)[0].encode()).serial_number for _ in range(20)}
    assert len(serials) == 20 and min(serial.bit_length() for serial in serials) > 64


def test_nothing_ends_after_the_ca_itself(directory: Path) -> None:
    signer = LocalCa(directory, clock(NOW + LIFETIME_S - 60))
    assert signed(signer, make_request(EC, ID).csr, 3600)[0].not_valid_after_utc.timestamp() == NOW + LIFETIME_S


def test_of_a_request_only_the_key_and_the_one_identity_get_in(directory: Path) -> None:
    csr = request_for(
        "bank.example", ID, "https://bank.example/", extra=x509.BasicConstraints(ca=True, path_length=None)
    )
    leaf, _ = signed(LocalCa(directory, clock()), csr)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(ID)]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(leaf.subject) == []


def test_what_it_gives_passes_the_agents_own_checks(directory: Path) -> None:
    issued = issue(read_ca(directory, NOW), EC, ID, 60, NOW)
    confide(issued.key)
    assert check_pair(issued.chain, issued.key, "it", NOW) == issued.facts
    assert issued.facts.spiffe_id == ID
    roots = check_roots(issued.root, "the root")
    assert (why_unverified(issued.chain, roots.blocks), roots.dropped) == (None, ())
    assert issued.root == (directory / CA_CERTIFICATE_NAME).read_bytes()
    assert issued.chain.count(b"BEGIN CERTIFICATE") == 1
    assert found_in(repr(issued)) == found_in(repr(read_ca(directory, NOW))) == []


@pytest.mark.parametrize(
    "spiffe_id", ["", "hello", "spiffe://cluster.local/ns/a b/sa/c", "spiffe://cluster.local/ns/köln/sa/c"]
)
def test_no_key_is_made_for_what_is_no_identity(directory: Path, spiffe_id: str) -> None:
    with pytest.raises(IdentityError, match="is no SPIFFE ID of a workload") as caught:
        issue(read_ca(directory, NOW), EC, spiffe_id, 60, NOW)
    assert caught.value.kind == "ca_answer"


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        (ID, "cluster.local"),
        ("spiffe://a/b", "a"),
        ("spiffe://a", None),
        ("spiffe://a/", None),
        ("spiffe://a/b/", None),
        ("spiffe://a//b", None),
        ("spiffe://a/../b", None),
        ("spiffe://a/./b", None),
        ("spiffe:///b", None),
        ("spiffe://A/b", None),
        ("spiffe://a:80/b", None),
        ("spiffe://u@a/b", None),
        ("spiffe://a/b?c", None),
        ("spiffe://a/b#c", None),
        ("spiffe://a/b\n", None),
        ("https://a/b", None),
        ("a/b", None),
        (f"spiffe://a/{'b' * 2038}", None),
        (f"spiffe://a/{'b' * 2037}", "a"),
    ],
)
def test_what_is_a_spiffe_id(text: str, domain: str | None) -> None:
    assert trust_domain_of(text) == domain


# What it refuses


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "it names 0 SPIFFE IDs, and a workload has exactly one"),
        (("bank.example",), "it names 0 SPIFFE IDs"),
        (("https://bank.example/",), "it names 0 SPIFFE IDs"),
        ((ID, "spiffe://cluster.local/ns/demo/sa/other"), "it names 2 SPIFFE IDs"),
        ((ID, "spiffe://elsewhere/ns/demo/sa/hello"), "it names 2 SPIFFE IDs"),
        (("spiffe://elsewhere/ns/demo/sa/hello",), "and the trust domain of this CA is cluster.local"),
        (("spiffe://cluster.local.example/ns/a/sa/b",), "and the trust domain of this CA is cluster.local"),
        (("spiffe://cluster.local",), "'spiffe://cluster.local' is no SPIFFE ID of a workload"),
        (("spiffe://cluster.local/../x",), "is no SPIFFE ID of a workload"),
        (("spiffe://cluster.local/a b\n",), r"'spiffe://cluster.local/a b\n' is no SPIFFE ID of a workload"),
    ],
)
def test_a_request_needs_exactly_one_identity_of_the_trust_domain(
    directory: Path, names: tuple[str, ...], reason: str
) -> None:
    error = refusal(LocalCa(directory, clock()), request_for(*names))
    assert error.kind == "ca_answer"
    assert str(error).startswith(f"the CA in {directory} refuses the signing request: ")
    assert reason in str(error)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (rsa.generate_private_key(65537, 1024), "an RSA key of 1024 bits is too weak: 2048 is the least"),
        (ec.generate_private_key(ec.SECP256K1()), "its key is on the curve secp256k1: use P-256 or P-384"),
        (ed25519.Ed25519PrivateKey.generate(), "its key is neither RSA nor ECDSA"),
    ],
    ids=["weak", "curve", "kind"],
)
def test_a_key_that_envoy_would_not_take_is_refused(
    directory: Path, key: "ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey", reason: str
) -> None:
    error = refusal(LocalCa(directory, clock()), request_for(ID, key=key))
    assert (error.kind, reason in str(error)) == ("ca_answer", True)


def test_who_has_not_the_key_gets_nothing(directory: Path) -> None:
    der = bytearray(x509.load_pem_x509_csr(request_for(ID)).public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    error = refusal(LocalCa(directory, clock()), forged)
    assert (error.kind, "its signature is wrong" in str(error)) == ("ca_answer", True)


@pytest.mark.parametrize("ttl_s", [0, -1])
def test_no_lifetime_is_refused(directory: Path, ttl_s: int) -> None:
    error = refusal(LocalCa(directory, clock()), request_for(ID), ttl_s)
    assert (error.kind, f"a lifetime of {ttl_s} s is none" in str(error)) == ("ca_answer", True)


@pytest.mark.parametrize("cut", [0, 1, 40, 200, -30])
def test_half_a_request_is_refused(directory: Path, cut: int) -> None:
    error = refusal(LocalCa(directory, clock()), request_for(ID)[:cut])
    assert (error.kind, "it can't be read" in str(error)) == ("ca_answer", True)


def test_a_certificate_is_no_request(directory: Path) -> None:
    assert refusal(LocalCa(directory, clock()), contents(directory)[CA_CERTIFICATE_NAME]).kind == "ca_answer"


def test_any_damage_to_a_request_is_a_refusal_or_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("ca")
    create(directory, "cluster.local", LIFETIME_S, NOW, publish_all)
    ca, whole = read_ca(directory, NOW), x509.load_pem_x509_csr(request_for(ID)).public_bytes(Encoding.DER)

    @given(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=3))
    def damaged(at: int, other: bytes) -> None:
        body = base64.encodebytes(whole[:at] + other + whole[at + len(other) :])
        csr = b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"
        try:
            leaf = x509.load_pem_x509_certificate(ca.sign(csr, 60, NOW)[0].encode())
        except IdentityError as error:
            assert error.kind == "ca_answer" and "\n" not in str(error)
        else:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert list(names) == [x509.UniformResourceIdentifier(ID)]

    damaged()


# What keeps it from signing


def test_an_expired_ca_says_since_when_and_what_to_do(directory: Path) -> None:
    error = refusal(LocalCa(directory, clock(NOW + LIFETIME_S)), request_for(ID))
    assert error.kind == "expired"
    assert str(error) == (
        f"the CA in {directory} expired at 2027-01-25T08:00:00Z: move it away, and make another one with "
        "`pilot-agent ca init`"
    )


def test_a_ca_of_the_future_is_told_from_an_expired_one(directory: Path) -> None:
    error = refusal(LocalCa(directory, clock(NOW - 86400)), request_for(ID))
    assert (error.kind, "is this machine's clock right?" in str(error)) == ("not_yet_valid", True)


def _encrypted(directory: Path) -> bytes:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

    key = load_pem_private_key((directory / CA_KEY_NAME).read_bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    ("name", "content", "kind", "reason"),
    [
        (CA_KEY_NAME, None, "ca_root", f"there is no CA in {{}}: {CA_KEY_NAME} is missing; make one with"),
        (CA_CERTIFICATE_NAME, None, "ca_root", f"there is no CA in {{}}: {CA_CERTIFICATE_NAME} is missing"),
        (CA_KEY_NAME, b"", "ca_root", "the private key of the CA in {} can't be read: it must be PEM without"),
        (CA_KEY_NAME, b"garbage", "ca_root", "the private key of the CA in {} can't be read"),
        (CA_KEY_NAME, _encrypted, "ca_root", "the private key of the CA in {} can't be read"),
        (CA_CERTIFICATE_NAME, b"", "ca_root", "the CA in {} has no certificate in it (0 bytes)"),
        (CA_CERTIFICATE_NAME, b"garbage", "ca_root", "the CA in {} has no certificate in it (7 bytes)"),
        (
            CA_CERTIFICATE_NAME,
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "ca_root",
            "the CA in {} has a certificate that can't be read",
        ),
        (
            CA_KEY_NAME,
            lambda _: pkcs8_of(ec.generate_private_key(ec.SECP256R1())).encode(),
            "key_mismatch",
            "the private key does not belong to the CA in {}",
        ),
        (CA_CERTIFICATE_NAME, lambda _: b"x" * (1024 * 1024 + 1), "ca_root", f"{{}}/{CA_CERTIFICATE_NAME}, of the"),
    ],
)
def test_broken_files_are_one_line_with_the_place(
    directory: Path, name: str, content: object, kind: str, reason: str
) -> None:
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(content(directory) if callable(content) else content)  # type: ignore[arg-type]
    error = refusal(LocalCa(directory, clock()), request_for(ID))
    assert (error.kind, str(error)[: len(reason.format(directory))]) == (kind, reason.format(directory))


def test_a_directory_that_is_not_there_and_one_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for directory in (tmp_path / "nowhere", tmp_path / "file"):
        error = refusal(LocalCa(directory, clock()), request_for(ID))
        assert error.kind == "ca_root"
        assert str(error).startswith(f"there is no CA in {directory}: ")


def test_a_directory_where_the_key_should_be(directory: Path) -> None:
    (directory / CA_KEY_NAME).unlink()
    (directory / CA_KEY_NAME).mkdir()
    error = refusal(LocalCa(directory, clock()), request_for(ID))
    assert str(error) == f"{directory / CA_KEY_NAME}, of the local CA, can't be read: Is a directory"


def pair_of(authority: Authority, directory: Path, chain: str) -> Path:
    """A CA that somebody brought along."""
    directory.mkdir()
    (directory / CA_KEY_NAME).write_text(pkcs8_of(authority._key))
    (directory / CA_KEY_NAME).chmod(0o600)
    (directory / CA_CERTIFICATE_NAME).write_text(chain)
    return directory


def test_a_certificate_that_is_no_ca_or_of_no_trust_domain_signs_nothing(tmp_path: Path) -> None:
    authority, key = Authority(), ec.generate_private_key(ec.SECP256R1())
    leaf = authority.pair("spiffe://cluster.local", key=key)
    (tmp_path / "leaf").mkdir()
    (tmp_path / "leaf" / CA_KEY_NAME).write_text(leaf.key)
    (tmp_path / "leaf" / CA_CERTIFICATE_NAME).write_text(leaf.chain)
    for directory in (tmp_path / "leaf", pair_of(authority, tmp_path / "nameless", authority.pem)):
        error = refusal(LocalCa(directory), request_for(ID))
        assert error.kind == "ca_root"
        assert "is no certificate of a SPIFFE CA: it must say CA:TRUE and name its trust domain" in str(error)


def test_a_ca_that_was_brought_along_may_be_rsa_and_have_a_root_above(tmp_path: Path) -> None:
    above = Authority("the root above")
    key = rsa.generate_private_key(65537, 2048)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.OID_ORGANIZATION_NAME, "brought along")]))
        .issuer_name(above.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://demo")]), critical=False)
    )
    own = builder.sign(above._key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    confide(pem)
    (tmp_path / CA_KEY_NAME).write_bytes(pem)
    (tmp_path / CA_CERTIFICATE_NAME).write_text(own.public_bytes(Encoding.PEM).decode() + above.pem)
    issued = issue(read_ca(tmp_path, now.timestamp()), EC, "spiffe://demo/ns/a/sa/b", 60, now.timestamp())
    assert (issued.chain.count(b"BEGIN CERTIFICATE"), issued.root.decode()) == (2, above.pem)
    assert why_unverified(issued.chain, [above.pem]) is None


# How it is used


def test_a_key_that_others_can_read_is_a_warning_once_and_no_error(directory: Path) -> None:
    said: list[str] = []
    signer, csr = LocalCa(directory, clock(), said.append), request_for(ID)
    signed(signer, csr)
    assert said == []
    (directory / CA_KEY_NAME).chmod(0o644)
    for _ in range(2):
        signed(signer, csr)
    warning = f"{directory / CA_KEY_NAME} can be read by others (mode 0644): make it 0600"
    assert said == [warning]
    (directory / CA_KEY_NAME).chmod(0o600)
    signed(signer, csr)
    (directory / CA_KEY_NAME).chmod(0o644)
    signed(signer, csr)
    assert said == [warning, warning]


def test_the_files_are_read_anew_for_each_request(directory: Path, tmp_path: Path) -> None:
    signer, csr = LocalCa(directory, clock()), request_for(ID)
    before = signed(signer, csr)[-1]
    create(tmp_path / "other", "cluster.local", LIFETIME_S, NOW, publish_all)
    for name, content in contents(tmp_path / "other").items():
        (directory / name).write_bytes(content)
    after = signed(signer, csr)[-1]
    assert (before == after, after) == (False, certificate_in(tmp_path / "other"))


def test_it_signs_in_the_thread_it_is_given(directory: Path) -> None:
    threads: list[str] = []

    class Noted(InProcess):
        @staticmethod
        def sign_locally(directory: Path, csr: bytes, ttl_s: float, now: float) -> LocallySigned:
            threads.append(threading.current_thread().name)
            return InProcess.sign_locally(directory, csr, ttl_s, now)

    with ThreadPoolExecutor(1, thread_name_prefix="certificates") as executor:
        signed(LocalCa(directory, clock(), executor=executor, crypto=Noted()), request_for(ID))
    assert threads == ["certificates_0"]


def test_the_signer_without_a_clock_goes_by_the_time_of_day(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    create(tmp_path, "cluster.local", 3600, now.timestamp(), publish_all)
    leaf, _ = signed(LocalCa(tmp_path), request_for(ID), 60)
    assert leaf.not_valid_before_utc < now < leaf.not_valid_after_utc
