"""The certificates of the local CA, root and workload, field by field, and what a signing request asks for.

Pure: keys and times come in, certificates go out; who may have one is decided by `local_ca`.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from pilot_agent.identity.keys import KeySpec, digest_for
from pilot_agent.identity.options import LEAST_RSA_BITS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes as PublicKey
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384
    from cryptography.x509 import Certificate, CertificateBuilder, Extensions, ExtensionType, KeyUsage, Name

    from pilot_agent.identity.keys import PrivateKey

ORGANIZATION = "pilot-agent development CA (not for production)"
BACKDATED_S = 120.0
"""Clocks differ: who gets a new certificate must not find that it is not valid yet."""
SCHEME = "spiffe://"
LONGEST_ID = 2048

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")


class Request(NamedTuple):
    """What a signing request says. `is_signed`: its sender has the key; `spiffe_ids` as they were written."""

    public_key: "PublicKey"
    is_signed: bool
    spiffe_ids: tuple[str, ...]


def is_trust_domain(text: str) -> bool:
    """SPIFFE-ID, section 2.1."""
    return _TRUST_DOMAIN.fullmatch(text) is not None


def trust_domain_of(spiffe_id: str) -> str | None:
    """None for what is no SPIFFE ID of a workload: its path has no empty and no relative segment (section 2.2)."""
    domain, slash, path = spiffe_id.removeprefix(SCHEME).partition("/")
    is_one = (
        spiffe_id.startswith(SCHEME)
        and len(spiffe_id) <= LONGEST_ID
        and is_trust_domain(domain)
        and _PATH.fullmatch(slash + path) is not None
        and not {".", ".."} & set(path.split("/"))
    )
    return domain if is_one else None


def read_request(csr: bytes) -> Request:
    """Raises ValueError with the reason for what can't be read, and for a key that Envoy would not take."""
    from cryptography import x509

    try:
        request = x509.load_pem_x509_csr(csr)
        uris = _uris(request.extensions)
        public_key, is_signed = request.public_key(), request.is_signature_valid
    except unreadable() as error:
        raise ValueError(f"it can't be read: {(str(error).splitlines() or ['it is damaged'])[0][:200]}") from None
    return Request(_usable(public_key), is_signed, tuple(uri for uri in uris if uri.startswith(SCHEME)))


def root_certificate(key: "PrivateKey", trust_domain: str, now: float, until: float) -> "Certificate":
    """Self-signed. It signs workloads only: no other CA below it."""
    from cryptography import x509

    name = x509.Name([x509.NameAttribute(x509.OID_ORGANIZATION_NAME, ORGANIZATION)])
    public_key = key.public_key()
    extensions = (
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage(key_cert_sign=True, crl_sign=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(public_key), False),
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"{SCHEME}{trust_domain}")]), False),
    )
    return _builder(name, name, public_key, now, until, extensions).sign(key, _digest(key))


def workload_certificate(
    issuer: "Certificate", issuer_key: "PrivateKey", public_key: "PublicKey", spiffe_id: str, now: float, until: float
) -> "Certificate":
    """As SPIFFE's X.509-SVID, section 4, and Istio want it: no subject, one URI."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa

    extensions = (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True, key_encipherment=isinstance(public_key, rsa.RSAPublicKey)), True),
        (x509.ExtendedKeyUsage([x509.OID_SERVER_AUTH, x509.OID_CLIENT_AUTH]), False),
        # Critical, since there is no subject (RFC 5280, section 4.2.1.6).
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)]), True),
        (x509.SubjectKeyIdentifier.from_public_key(public_key), False),
        (_authority_key_identifier(issuer, issuer_key), False),
    )
    builder = _builder(x509.Name([]), issuer.subject, public_key, now, until, extensions)
    return builder.sign(issuer_key, _digest(issuer_key))


def is_ca(certificate: "Certificate") -> bool:
    """Whether it says CA:TRUE."""
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except unreadable(x509.ExtensionNotFound):
        return False


def unreadable(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What the library raises for what it can't read, at once or when asked for a part; and `others`, to catch both."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    of_x509 = x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType
    return (ValueError, TypeError, UnsupportedAlgorithm, *of_x509, *others)


def pem_of(certificate: "Certificate") -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _uris(extensions: "Extensions") -> list[str]:
    from cryptography import x509

    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _usable(key: object) -> "PublicKey":
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < LEAST_RSA_BITS:
            raise ValueError(f"an RSA key of {key.key_size} bits is too weak: {LEAST_RSA_BITS} is the least")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
            raise ValueError(f"its key is on the curve {key.curve.name}: use P-256 or P-384")
        return key
    raise ValueError("its key is neither RSA nor ECDSA")


def _builder(
    subject: "Name",
    issuer: "Name",
    key: "PublicKey",
    now: float,
    until: float,
    extensions: "Iterable[tuple[ExtensionType, bool]]",
) -> "CertificateBuilder":
    """`extensions` come each with whether it is critical."""
    from datetime import UTC, datetime

    from cryptography import x509

    builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(datetime.fromtimestamp(now - BACKDATED_S, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(until, UTC))
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder


def _usage(**used: bool) -> "KeyUsage":
    from cryptography.x509 import KeyUsage

    known = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    ).split()
    return KeyUsage(**dict.fromkeys(known, False) | used)


def _authority_key_identifier(issuer: "Certificate", key: "PrivateKey") -> "ExtensionType":
    """The key as the issuer itself names it, for who builds a chain compares the two."""
    from cryptography import x509

    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _digest(key: "PrivateKey") -> "SHA256 | SHA384":
    from cryptography.hazmat.primitives.asymmetric import ec

    is_p384 = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)
    return digest_for(KeySpec("ECDSA", curve="P384" if is_p384 else "P256"))
