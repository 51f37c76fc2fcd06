"""The secrets' view: what the certificates say that Envoy got over SDS, and whether they are valid now.

Public parts only: private keys are never looked at. cryptography is imported when there is a certificate to read.
"""

import base64
import binascii
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pilot_agent.inspect.columns import table
from pilot_agent.inspect.fields import Message, message, messages, text

if TYPE_CHECKING:
    from cryptography import x509

NONE = "No active or warming secrets found.\n"
_HEAD = ("RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE")


class Certificate(NamedTuple):
    """The first one of a PEM text; one that can't be read is all empty, and not valid."""

    kind: str = ""
    is_valid: bool = False
    serial: str = ""
    not_after: str = ""
    not_before: str = ""
    trust_domain: str = ""


def view(section: Message, now: datetime, *, with_names: bool = False) -> str:
    """The table of a SecretsConfigDump; `with_names` is its form in the view of everything.

    Trust domains are told only where Envoy's SPIFFE validator tells the roots of several apart.
    """
    states = [(each, "WARMING") for each in messages(section, "dynamic_warming_secrets")]
    states += [(each, _status(each)) for each in messages(section, "dynamic_active_secrets")]
    if not states:
        return NONE
    has_domains = any(_domains(each) for each, _ in states)
    rows: list[list[object]] = [[*_HEAD, *["TRUST DOMAIN"] * has_domains]]
    for each, status in states:
        name = ("secret/" if with_names else "") + text(each, "name")
        for read in _certificates(each, now):
            about = [name, read.kind, status, str(read.is_valid).lower(), read.serial, read.not_after, read.not_before]
            rows.append([*about, *[read.trust_domain] * has_domains])
    return table(rows)


def _status(state: Message) -> str:
    return "UNINITIALIZED" if text(state, "version_info") == "uninitialized" else "ACTIVE"


def _certificates(state: Message, now: datetime) -> Iterator[Certificate]:
    """One, or one per trust domain of a SPIFFE validator."""
    domains = _domains(state)
    for each in domains:
        yield _read(_bytes(message(each, "trust_bundle")), now)._replace(trust_domain=text(each, "name"))
    if not domains:
        chain = message(state, "secret", "tls_certificate", "certificate_chain")
        roots = message(state, "secret", "validation_context", "trusted_ca")
        yield _read(_bytes(chain) or _bytes(roots), now)


def _domains(state: Message) -> list[Message]:
    context = message(state, "secret", "validation_context")
    return messages(context, "custom_validator_config", "typed_config", "trust_domains")


def _bytes(source: Message | None) -> bytes:
    """What a DataSource holds itself; nothing for a file or a variable, which the dump does not have."""
    try:
        return base64.b64decode(text(source, "inline_bytes")) or text(source, "inline_string").encode()
    except (binascii.Error, ValueError):
        return b""


def _read(pem: bytes, now: datetime) -> Certificate:
    if b"-----BEGIN" not in pem:
        return Certificate()
    from cryptography import x509

    unreadable = (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType)
    # Warnings about odd serial numbers are for whoever issued it.
    with warnings.catch_warnings(action="ignore"):
        try:
            return _facts(x509.load_pem_x509_certificate(pem), now)
        except unreadable:
            return Certificate()


def _facts(certificate: "x509.Certificate", now: datetime) -> Certificate:
    not_after, not_before = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    return Certificate(
        "CA" if _is_ca(certificate) else "Cert Chain",
        not_before < now < not_after,
        f"{certificate.serial_number:x}",
        _rfc3339(not_after),
        _rfc3339(not_before),
        _trust_domain(certificate),
    )


def _is_ca(certificate: "x509.Certificate") -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _trust_domain(certificate: "x509.Certificate") -> str:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return next((uri[len("spiffe://") :].partition("/")[0] for uri in uris if uri.startswith("spiffe://")), "")


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
