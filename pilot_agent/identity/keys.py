"""Private keys and certificate signing requests. Takes tenths of a second for RSA: call it in a thread.

The request is Istio's: no subject, one critical URI name (reference security-xds.md, section 3.2).
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384

    PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class KeySpec(NamedTuple):
    """What key to make: `bits` for RSA, `curve` P256 or P384 for ECDSA; `is_pkcs8`: its PEM is PKCS#8."""

    algorithm: str = "RSA"
    bits: int = 2048
    curve: str = "P256"
    is_pkcs8: bool = False

    def __str__(self) -> str:
        return f"RSA {self.bits}" if self.algorithm == "RSA" else f"ECDSA {self.curve}"


class SigningRequest(NamedTuple):
    """A key nobody else has, and the request (PEM) for a certificate of it."""

    key: bytes
    csr: bytes

    def __repr__(self) -> str:
        return "SigningRequest(...)"  # it holds a key, which must reach no log


def make_request(spec: KeySpec, spiffe_id: str) -> SigningRequest:
    """A new key, and a request for a certificate in the name of `spiffe_id`."""
    key = make_key(spec)  # first: what is imported below can come meanwhile, in another thread

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(name, critical=True)
    request = builder.sign(key, digest_for(spec))
    return SigningRequest(key_pem(key, is_pkcs8=spec.is_pkcs8), request.public_bytes(Encoding.PEM))


def make_key(spec: KeySpec) -> "PrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if spec.algorithm == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=spec.bits)
    return ec.generate_private_key(ec.SECP384R1() if spec.curve == "P384" else ec.SECP256R1())


def digest_for(spec: KeySpec) -> "SHA256 | SHA384":
    """SHA-384 goes with P-384, SHA-256 with everything else."""
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA384() if spec.algorithm != "RSA" and spec.curve == "P384" else hashes.SHA256()


def key_pem(key: "PrivateKey", *, is_pkcs8: bool) -> bytes:
    """`RSA PRIVATE KEY` or `EC PRIVATE KEY`, or PKCS#8's `PRIVATE KEY`."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    form = PrivateFormat.PKCS8 if is_pkcs8 else PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(Encoding.PEM, form, NoEncryption())
