"""Keys of every kind, and the request for a certificate as Istio's agent makes it."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pilot_agent.identity.keys import KeySpec, SigningRequest, make_request

SPIFFE_ID = "spiffe://cluster.local/ns/foo/sa/bar"

RSA_2048, P256, P384 = KeySpec(), KeySpec("ECDSA"), KeySpec("ECDSA", curve="P384")
SPECS = [RSA_2048, KeySpec(bits=3072), P256, P384]


def ids(spec: KeySpec) -> str:
    return f"{spec}{' as PKCS#8' if spec.is_pkcs8 else ''}"


@pytest.fixture(
    scope="module", params=[each._replace(is_pkcs8=pkcs8) for each in SPECS for pkcs8 in (False, True)], ids=ids
)
def made(request: pytest.FixtureRequest) -> tuple[KeySpec, SigningRequest]:
    return request.param, make_request(request.param, SPIFFE_ID)


def test_the_key_is_of_its_kind_and_its_pem_of_its_form(made: tuple[KeySpec, SigningRequest]) -> None:
    spec, request = made
    key = load_pem_private_key(request.key, None)
    if spec.algorithm == "RSA":
        assert isinstance(key, rsa.RSAPrivateKey)
        assert key.key_size == spec.bits
        assert key.private_numbers().public_numbers.e == 65537
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == {"P256": "secp256r1", "P384": "secp384r1"}[spec.curve]
    traditional = "RSA PRIVATE KEY" if spec.algorithm == "RSA" else "EC PRIVATE KEY"
    label = "PRIVATE KEY" if spec.is_pkcs8 else traditional
    assert request.key.decode().splitlines()[0] == f"-----BEGIN {label}-----"
    assert request.key.endswith(b"-----\n")


def test_the_request_has_no_subject_and_one_critical_name(made: tuple[KeySpec, SigningRequest]) -> None:
    spec, request = made
    csr = x509.load_pem_x509_csr(request.csr)
    assert request.csr.startswith(b"-----BEGIN CERTIFICATE REQUEST-----\n")
    assert csr.is_signature_valid
    assert csr.subject == x509.Name([])
    (only,) = csr.extensions
    assert only.critical
    assert only.value == x509.SubjectAlternativeName([x509.UniformResourceIdentifier(SPIFFE_ID)])
    assert csr.public_key() == load_pem_private_key(request.key, None).public_key()
    digest = hashes.SHA384 if spec.algorithm == "ECDSA" and spec.curve == "P384" else hashes.SHA256
    assert isinstance(csr.signature_hash_algorithm, digest)


def test_each_request_has_a_key_of_its_own() -> None:
    assert make_request(P256, SPIFFE_ID).key != make_request(P256, SPIFFE_ID).key


def test_neither_text_nor_repr_shows_the_key(made: tuple[KeySpec, SigningRequest]) -> None:
    _, request = made
    for shown in (repr(request), str(request), f"{request}", f"{request!r}", repr([request])):
        assert "PRIVATE" not in shown
        assert request.key.decode().splitlines()[1] not in shown
