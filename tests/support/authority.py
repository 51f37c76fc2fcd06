"""A certificate authority for tests: EC P-256 keys, so that a certificate takes a fraction of a millisecond."""

import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.confidential import confide

BACK_S = 120.0
"""How far the beginning of a certificate lies back, for clocks that differ."""


class Pair(NamedTuple):
    """A certificate (or a chain) and its key, as PEM."""

    chain: str
    key: str


class Authority:
    """A root, or with `parent` an intermediate. Times are seconds since 1970; None is now."""

    def __init__(
        self, name: str = "test root", parent: "Authority | None" = None, lifetime_s: float = 10 * 86400
    ) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
        signer = parent or self
        builder = signer._builder(self.name, self._key.public_key(), lifetime_s, None)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = _usage(key_cert_sign=True, crl_sign=True, digital_signature=True)
        self.certificate = builder.add_extension(usage, critical=True).sign(signer._key, hashes.SHA256())
        self.pem = pem_of(self.certificate)

    def sign(
        self,
        public_key: CertificateIssuerPublicKeyTypes,
        names: x509.SubjectAlternativeName | None,
        lifetime_s: float = 3600.0,
        not_before: float | None = None,
        serial: int | None = None,
    ) -> str:
        """A leaf with these names (critical); its lifetime counts from now, or from `not_before` where given."""
        builder = self._builder(x509.Name([]), public_key, lifetime_s, not_before, serial)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(digital_signature=True, key_encipherment=True), critical=True)
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=True)
        return pem_of(builder.sign(self._key, hashes.SHA256()))

    def pair(
        self,
        *names: str,
        lifetime_s: float = 3600.0,
        not_before: float | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Pair:
        """A new key and its certificate for these DNS names and URIs; no root in the chain."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        general = [x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name) for name in names]
        san = x509.SubjectAlternativeName(general) if general else None
        return Pair(self.sign(key.public_key(), san, lifetime_s, not_before), key_pem(key))

    def crl(self, *serials: int) -> str:
        """A revocation list; an empty one is one too."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name).last_update(now)
        builder = builder.next_update(now + datetime.timedelta(days=1))
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def _builder(
        self,
        name: x509.Name,
        public_key: CertificateIssuerPublicKeyTypes,
        lifetime_s: float,
        not_before: float | None,
        serial: int | None = None,
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        start = now if not_before is None else datetime.datetime.fromtimestamp(not_before, datetime.UTC)
        back = BACK_S if not_before is None else 0.0
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(start - datetime.timedelta(seconds=back))
            .not_valid_after(start + datetime.timedelta(seconds=lifetime_s))
        )


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    none, pkcs8 = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, pkcs8, none).decode()
    confide(pem)
    return pem


def pem_of(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _usage(**used: bool) -> x509.KeyUsage:
    all_of_them = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    ).split()
    return x509.KeyUsage(**{name: used.get(name, False) for name in all_of_them})
