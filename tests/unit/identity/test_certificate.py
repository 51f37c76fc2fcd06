"""What certificates say, and which pairs, roots, lists and chains can be used."""

import base64
import datetime
import random
import time
import warnings
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pilot_agent.errors import IdentityError
from pilot_agent.identity.certificate import (
    SKEW_S,
    check_crl,
    check_pair,
    check_roots,
    facts_of,
    parse_chain,
    pem_blocks,
    stamp,
    why_unverified,
)
from tests.support.authority import Authority, Pair

SPIFFE_ID = "spiffe://cluster.local/ns/foo/sa/bar"
JUNK = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority("root")


@pytest.fixture(scope="module")
def pair(root: Authority) -> Pair:
    return root.pair(SPIFFE_ID)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def error_of(check: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(IdentityError) as caught:
        check()
    assert len(str(caught.value).splitlines()) == 1
    assert "PRIVATE" not in str(caught.value)
    return caught.value.kind, str(caught.value)


def judged(pair: Pair, now: float | None = None) -> tuple[str, str]:
    return error_of(lambda: check_pair(pair.chain.encode(), pair.key.encode(), "the pair", now or time.time()))


def der(pem: str, begin: str = "CERTIFICATE") -> bytearray:
    (block,) = pem_blocks(pem.encode(), begin)
    return bytearray(base64.b64decode(b"".join(block.splitlines()[1:-1])))


def pem(content: bytes, label: str = "CERTIFICATE") -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(content).decode()}-----END {label}-----\n".encode()


def with_negative_serial(certificate: str) -> bytes:
    """The highest bit of its serial number is set, and so it is below zero. (The signature is broken by that.)"""
    content = der(certificate)
    serial = content.index(b"\xa0\x03\x02\x01\x02") + 5  # after the version
    assert content[serial] == 2
    content[serial + 2] |= 0x80
    return pem(bytes(content))


# Facts


def test_facts_of_a_certificate(root: Authority, pair: Pair) -> None:
    (certificate,) = parse_chain(pair.chain.encode(), "it")
    facts = facts_of(certificate)
    assert (facts.subject, facts.issuer, facts.spiffe_id, facts.key) == ("", "O=root", SPIFFE_ID, "EC secp256r1")
    assert facts.serial == f"{certificate.serial_number:x}"
    assert facts.fingerprint == certificate.fingerprint(hashes.SHA256()).hex()
    assert facts.lifetime_s == 3600 + 120
    assert facts.not_before < time.time() - 100 < time.time() + 3500 < facts.not_after


def test_facts_without_a_name_and_of_other_keys(root: Authority, rsa_key: rsa.RSAPrivateKey) -> None:
    facts = facts_of(parse_chain(root.sign(rsa_key.public_key(), None).encode(), "it")[0])
    assert (facts.spiffe_id, facts.key) == ("", "RSA 2048")
    facts = facts_of(parse_chain(root.sign(ed25519.Ed25519PrivateKey.generate().public_key(), None).encode(), "it")[0])
    assert "ed25519" in facts.key.lower()


def test_the_first_uri_is_the_identity(root: Authority) -> None:
    pair = root.pair("a.example", "spiffe://td/first", "spiffe://td/second")
    assert facts_of(parse_chain(pair.chain.encode(), "it")[0]).spiffe_id == "spiffe://td/first"


def test_times_are_written_in_utc_to_the_second() -> None:
    assert stamp(0) == "1970-01-01T00:00:00Z"
    assert stamp(1_800_000_000.9) == "2027-01-15T08:00:00Z"


# PEM


def test_blocks_are_found_between_other_text(pair: Pair, root: Authority) -> None:
    text = f"# the leaf\n{pair.chain}\n\n  and its key {pair.key}\ntrailing {root.pem} rubbish\n"
    assert [each.decode() for each in pem_blocks(text.encode())] == [pair.chain.strip(), root.pem.strip()]
    assert [each.decode() for each in pem_blocks(text.encode(), "PRIVATE KEY")] == [pair.key.strip()]


def test_windows_newlines_are_no_obstacle(pair: Pair) -> None:
    chain = pair.chain.replace("\n", "\r\n").encode()
    assert check_pair(chain, pair.key.encode(), "it", time.time()).spiffe_id == SPIFFE_ID


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no certificate in it (0 bytes)"),
        (b"no PEM at all", "no certificate in it"),
        (b"\xff" * 100_000, "no certificate in it"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "no certificate in it"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END X509 CRL-----\n", "no certificate in it"),
        (b"-----BEGIN CERTIFICATE-----" * 10_000, "no certificate in it"),
        (JUNK, "can't be read"),
        (b"-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n", "can't be read"),
        (b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "can't be read"),
    ],
)
def test_what_holds_no_certificate_is_refused_by_name(text: bytes, why: str) -> None:
    kind, said = error_of(lambda: parse_chain(text, "the chain /x"))
    assert kind == "pem"
    assert said.startswith("the chain /x") and why in said


def test_one_bad_certificate_spoils_a_chain(pair: Pair) -> None:
    assert error_of(lambda: parse_chain(pair.chain.encode() + JUNK, "the chain"))[0] == "pem"


# A pair


def test_a_good_pair_gives_its_facts(pair: Pair, root: Authority) -> None:
    facts = check_pair(f"{pair.chain}{root.pem}".encode(), pair.key.encode(), "it", time.time())
    assert facts.spiffe_id == SPIFFE_ID


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_every_form_of_a_key_is_read(root: Authority, rsa_key: rsa.RSAPrivateKey, form: PrivateFormat) -> None:
    keys: list[rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = [rsa_key, ec.generate_private_key(ec.SECP384R1())]
    for key in keys:
        chain = root.sign(key.public_key(), None).encode()
        check_pair(chain, key.private_bytes(Encoding.PEM, form, NoEncryption()), "it", time.time())


def test_the_key_of_another_certificate_is_refused(root: Authority, pair: Pair, rsa_key: rsa.RSAPrivateKey) -> None:
    expected = ("key_mismatch", "the private key does not belong to the pair")
    assert judged(Pair(pair.chain, root.pair(SPIFFE_ID).key)) == expected, "same kind"
    p384 = ec.generate_private_key(ec.SECP384R1())
    ed = ed25519.Ed25519PrivateKey.generate()
    for key in (p384, rsa_key, ed):
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        assert judged(Pair(pair.chain, text)) == expected, "another kind"
    assert judged(Pair(root.sign(rsa_key.public_key(), None), pair.key)) == expected
    assert judged(Pair(root.sign(ed.public_key(), None), pair.key)) == expected


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.63, 0.75, 0.85, 0.97])
def test_a_damaged_rsa_key_is_found(root: Authority, rsa_key: rsa.RSAPrivateKey, place: float) -> None:
    chain = root.sign(rsa_key.public_key(), None)
    content = der(
        rsa_key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode(),
        "RSA PRIVATE KEY",
    )
    content[int(len(content) * place)] ^= 0x10
    kind, said = judged(Pair(chain, pem(bytes(content), "RSA PRIVATE KEY").decode()))
    assert (kind, "the pair" in said) == ("pem", True)


@pytest.mark.parametrize("key", ["", "no PEM", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_told_without_quoting_it(pair: Pair, key: str) -> None:
    assert judged(Pair(pair.chain, key)) == (
        "pem",
        "the private key of the pair can't be read: it must be PEM without a password",
    )


def test_a_key_with_a_password_is_refused(root: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        text = key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"password")).decode()
        assert judged(Pair(root.sign(key.public_key(), None), text))[0] == "pem"


def test_a_certificate_counts_until_the_second_it_ends(root: Authority) -> None:
    now = float(int(time.time()))
    pair = root.pair(SPIFFE_ID, not_before=now, lifetime_s=600)
    check_pair(pair.chain.encode(), pair.key.encode(), "it", now + 599)
    assert judged(pair, now + 600) == ("expired", f"the pair expired at {stamp(now + 600)}")


def test_a_certificate_may_begin_a_little_in_the_future(root: Authority) -> None:
    now = float(int(time.time()))
    pair = root.pair(SPIFFE_ID, not_before=now + SKEW_S)
    check_pair(pair.chain.encode(), pair.key.encode(), "it", now)
    kind, said = judged(pair, now - 1)
    assert kind == "not_yet_valid"
    assert stamp(now + SKEW_S) in said and "clock" in said


def test_the_first_certificate_is_the_one_that_counts(root: Authority, pair: Pair) -> None:
    assert judged(Pair(root.pem + pair.chain, pair.key))[0] == "key_mismatch", "in the wrong order"


# Roots


def test_three_of_five_blocks_can_be_used(root: Authority) -> None:
    one, two = Authority("one"), Authority("two")
    blocks = [one.pem.encode(), JUNK, root.pem.encode(), with_negative_serial(two.pem), two.pem.encode()]
    roots = check_roots(b"\n".join(blocks), "the roots /r")
    assert roots.blocks == (one.pem.strip(), root.pem.strip(), two.pem.strip())
    first, second = roots.dropped
    assert first.startswith("certificate 2 of the roots /r is left out: ")
    assert second.startswith("certificate 4 of the roots /r is left out: ")
    assert "serial number is negative" in second
    assert all(len(each.splitlines()) == 1 for each in roots.dropped)


def test_without_a_usable_block_there_are_no_roots(root: Authority) -> None:
    for text in (b"", b"x", JUNK, with_negative_serial(root.pem), root.crl().encode()):
        kind, said = error_of(lambda text=text: check_roots(text, "the roots"))  # type: ignore[misc]
        assert (kind, said) == ("pem", f"the roots has no usable certificate in it ({len(text)} bytes)")


def test_the_same_root_twice_stays_twice(root: Authority) -> None:
    assert len(check_roots(root.pem.encode() * 2, "it").blocks) == 2, "trust makes them one"


# Revocation lists


def test_a_revocation_list_of_several_authorities(root: Authority) -> None:
    check_crl(f"{root.crl()}\n{Authority('other').crl(1, 2)}".encode(), "the list")


def test_what_is_no_revocation_list(root: Authority) -> None:
    bad = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
    for text in (b"", root.pem.encode(), bad, root.crl().encode() + bad):
        assert error_of(lambda text=text: check_crl(text, "the list"))[0] == "pem"  # type: ignore[misc]


# Chains


def test_a_chain_leads_to_a_root(root: Authority, pair: Pair) -> None:
    assert why_unverified(pair.chain.encode(), [root.pem]) is None
    assert why_unverified(f"{pair.chain}{root.pem}".encode(), [root.pem]) is None
    assert why_unverified(pair.chain.encode(), [Authority("other").pem, root.pem]) is None


def test_intermediates_are_followed_in_any_order(root: Authority) -> None:
    upper = Authority("upper", root)
    lower = Authority("lower", upper)
    leaf = lower.pair(SPIFFE_ID).chain
    for order in (f"{leaf}{lower.pem}{upper.pem}", f"{leaf}{upper.pem}{lower.pem}"):
        assert why_unverified(order.encode(), [root.pem]) is None
        assert why_unverified(order.encode(), [upper.pem]) is None, "an intermediate may be what is trusted"
    assert why_unverified(f"{leaf}{upper.pem}".encode(), [root.pem]) == "no root certificate we have issued O=lower"
    assert why_unverified(f"{leaf}{lower.pem}".encode(), [root.pem]) == "no root certificate we have issued O=upper"


def test_another_root_of_the_same_name_has_not_issued_it(pair: Pair) -> None:
    assert why_unverified(pair.chain.encode(), [Authority("root").pem]) == "no root certificate we have issued O=root"
    assert why_unverified(pair.chain.encode(), []) == "no root certificate we have issued O=root"


def test_a_certificate_can_be_its_own_root() -> None:
    own = Authority("own")
    assert why_unverified(own.pem.encode(), [own.pem]) is None
    assert why_unverified((own.pem * 3).encode(), [Authority("other").pem]) is not None, "and this ends"


# Whatever bytes there are


@pytest.mark.parametrize("seed", range(4))
def test_no_byte_of_a_certificate_can_do_more_than_be_refused(root: Authority, pair: Pair, seed: int) -> None:
    chance = random.Random(seed)
    leaf, authority, crl = der(pair.chain), der(root.pem), der(root.crl(5), "X509 CRL")
    key = pair.key.encode()
    for position in range(max(len(leaf), len(authority))):
        for original in (leaf, authority):
            content = bytearray(original)
            content[position % len(content)] = chance.randrange(256)
            text = pem(bytes(content))
            harmless(lambda: check_pair(text, key, "it", time.time()))  # noqa: B023
            harmless(lambda: why_unverified(text, [root.pem]))  # noqa: B023
            harmless(lambda: why_unverified(pair.chain.encode(), check_roots(text, "it").blocks))  # noqa: B023
        content = bytearray(crl)
        content[position % len(content)] = chance.randrange(256)
        harmless(lambda: check_crl(pem(bytes(content), "X509 CRL"), "it"))  # noqa: B023


def harmless(check: Callable[[], object]) -> None:
    try:
        check()
    except IdentityError:
        pass


def test_a_strange_certificate_is_judged_without_a_warning(rsa_key: rsa.RSAPrivateKey) -> None:
    """What cryptography only warns of must not reach the log as a warning of ours."""
    key = ec.generate_private_key(ec.SECP256R1())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "LONG", _validate=False)])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(5).not_valid_before(now).not_valid_after(now + datetime.timedelta(hours=1))
        text = with_negative_serial(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert check_pair(text, secret, "it", time.time()).subject == "C=LONG"
