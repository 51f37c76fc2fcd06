"""What certificates say, and whether they can be used: pairs that match, roots that parse, chains that verify.

Everything is PEM in, facts or an IdentityError out; nothing is read, fetched or kept. Parsing is some tenths of a
millisecond, proving that a key fits is one or two: call it in a thread.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from pilot_agent.errors import IdentityError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers
    from cryptography.x509 import Certificate

SKEW_S = 60.0
"""How far in the future the beginning of a certificate may lie: clocks differ, and a CA need not date back."""

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----[^-]*?-----END \1-----")
_PROOF = b"does this key fit this certificate?"


class CertificateFacts(NamedTuple):
    """Of one certificate: times in seconds since 1970, `serial` and `fingerprint` (SHA-256) in hexadecimal."""

    subject: str
    issuer: str
    spiffe_id: str
    serial: str
    not_before: float
    not_after: float
    key: str
    fingerprint: str

    @property
    def lifetime_s(self) -> float:
        return self.not_after - self.not_before


class Roots(NamedTuple):
    """Root certificates, each a PEM block without a newline at its end; and what was left out, with the reason."""

    blocks: tuple[str, ...]
    dropped: tuple[str, ...] = ()


class Issued(NamedTuple):
    """What a CA gave, judged: the workload's certificate, the root, and why that does not verify it (None: it does)."""

    facts: CertificateFacts
    roots: Roots
    unverified: str | None


def pem_blocks(pem: bytes, label: str = "CERTIFICATE") -> list[bytes]:
    """The blocks with that label, without what stands around them."""
    return [found[0] for found in _BLOCK.finditer(pem) if found[1].decode() == label]


def parse_chain(pem: bytes, what: str) -> "list[Certificate]":
    """Raises IdentityError naming `what` when there is no certificate in it, or one can't be read."""
    from cryptography import x509

    blocks = pem_blocks(pem)
    if not blocks:
        raise IdentityError("pem", f"{what} has no certificate in it ({len(pem)} bytes)")
    try:
        with _without_deprecations():
            found = [x509.load_pem_x509_certificate(each) for each in blocks]
            for each in found:
                each.subject, each.issuer  # noqa: B018 - cryptography reads names late, and then raises
            return found
    except (ValueError, x509.InvalidVersion) as error:
        raise IdentityError("pem", f"{what} has a certificate that can't be read: {_first_line(error)}") from None


def facts_of(certificate: "Certificate") -> CertificateFacts:
    from cryptography.hazmat.primitives import hashes

    with _without_deprecations():
        return CertificateFacts(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            spiffe_id=_spiffe_id(certificate),
            serial=f"{certificate.serial_number:x}",
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            key=_kind_of_key(certificate),
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        )


def check_pair(chain: bytes, key: bytes, what: str, now: float) -> CertificateFacts:
    """The facts of the first certificate of `chain`, once it is shown that `key` is its key and that it is valid now.

    Raises IdentityError naming `what`. A beginning up to SKEW_S in the future passes.
    """
    leaf = parse_chain(chain, what)[0]
    _prove(leaf, key, what)
    facts = facts_of(leaf)
    if facts.not_after <= now:
        raise IdentityError("expired", f"{what} expired at {stamp(facts.not_after)}")
    if facts.not_before > now + SKEW_S:
        raise IdentityError(
            "not_yet_valid", f"{what} is not valid before {stamp(facts.not_before)}: is this machine's clock right?"
        )
    return facts


def _prove(leaf: "Certificate", key: bytes, what: str) -> None:
    """Sign with the key and verify with the certificate: this also finds a key that is damaged."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        # cryptography's own check of an RSA key takes 28 ms for 2048 bits; _is_consistent does what Envoy's does.
        private = load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError(
            "pem", f"the private key of {what} can't be read: it must be PEM without a password"
        ) from None
    try:
        public = leaf.public_key()
        if isinstance(private, rsa.RSAPrivateKey) and isinstance(public, rsa.RSAPublicKey):
            if not _is_consistent(private.private_numbers()):
                raise IdentityError("pem", f"the private key of {what} is damaged: its numbers contradict each other")
            signature = private.sign(_PROOF, padding.PKCS1v15(), hashes.SHA256())
            public.verify(signature, _PROOF, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(private.sign(_PROOF, ec.ECDSA(hashes.SHA256())), _PROOF, ec.ECDSA(hashes.SHA256()))
        else:
            raise ValueError("another kind of key")
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        raise IdentityError("key_mismatch", f"the private key does not belong to {what}") from None


def _is_consistent(key: "RSAPrivateNumbers") -> bool:
    """Whether each number of an RSA key fits the others. A signature does not tell: OpenSSL has two ways to make one,
    and takes the other when the first fails; BoringSSL, in Envoy, refuses such a key."""
    p, q, e = key.p, key.q, key.public_numbers.e
    return (
        min(p, q) > 1
        and p * q == key.public_numbers.n
        and key.d * e % (p - 1) == 1
        and key.d * e % (q - 1) == 1
        and key.dmp1 == key.d % (p - 1)
        and key.dmq1 == key.d % (q - 1)
        and key.iqmp * q % p == 1
    )


def check_roots(pem: bytes, what: str) -> Roots:
    """The certificates of `pem` that can be read; Istio drops the others, and those with a negative serial number.

    Raises IdentityError naming `what` when none is left.
    """
    from cryptography import x509

    kept: list[str] = []
    dropped: list[str] = []
    for index, block in enumerate(pem_blocks(pem), 1):
        try:
            with _without_deprecations():
                certificate = x509.load_pem_x509_certificate(block)
                if certificate.serial_number < 0:
                    raise ValueError("its serial number is negative")
        except (ValueError, x509.InvalidVersion) as error:
            dropped.append(f"certificate {index} of {what} is left out: {_first_line(error)}")
        else:
            kept.append(block.decode())
    if not kept:
        raise IdentityError("pem", f"{what} has no usable certificate in it ({len(pem)} bytes)")
    return Roots(tuple(kept), tuple(dropped))


def check_crl(pem: bytes, what: str) -> None:
    """Raises IdentityError when Envoy could not load it: with such a list it would refuse the roots as well."""
    from cryptography import x509

    blocks = pem_blocks(pem, "X509 CRL")
    if not blocks:
        raise IdentityError("pem", f"{what} has no revocation list in it ({len(pem)} bytes)")
    try:
        for block in blocks:
            x509.load_pem_x509_crl(block)
    except (ValueError, x509.InvalidVersion) as error:
        raise IdentityError("pem", f"{what} has a revocation list that can't be read: {_first_line(error)}") from None


def why_unverified(chain: bytes, roots: Sequence[str]) -> str | None:
    """None when the chain leads to one of the roots; else where it breaks off."""
    from cryptography import x509

    with _without_deprecations():
        certificates = parse_chain(chain, "the chain")
        trusted = [x509.load_pem_x509_certificate(each.encode()) for each in roots]
        current, rest = certificates[0], certificates[1:]
        while True:
            if any(current == each or _is_issued_by(current, each) for each in trusted):
                return None
            issuer = next((each for each in rest if _is_issued_by(current, each)), None)
            if issuer is None:
                return f"no root certificate we have issued {current.issuer.rfc4514_string() or 'the unnamed issuer'}"
            rest = [each for each in rest if each is not issuer]
            current = issuer


def check_issued(chain: bytes, key: bytes, root: bytes, bundle: Sequence[str], now: float) -> Issued:
    """All that is to be asked of a CA's answer, in one call. Raises IdentityError as `check_pair` and `check_roots`."""
    facts = check_pair(chain, key, "the certificate of the CA", now)
    roots = check_roots(root, "the root certificate of the CA")
    return Issued(facts, roots, why_unverified(chain, [*roots.blocks, *bundle]))


def _is_issued_by(certificate: "Certificate", issuer: "Certificate") -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _spiffe_id(certificate: "Certificate") -> str:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return ""
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), "")


def _kind_of_key(certificate: "Certificate") -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "unknown"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return f"EC {key.curve.name}" if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__


def stamp(wall: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC, to the second."""
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """cryptography warns of certificates a future version will refuse; they are judged here, not there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
