"""The operations on keys and certificates, as one seam: in this process, or in a child of the agent (`crypto_child`).

All of them are pure, PEM in and facts out, so that either can do them. They block, some for tenths of a second. Light
imports: the child begins with this module.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pilot_agent.identity import certificate, keys
from pilot_agent.identity.certificate import CertificateFacts, Issued, Roots
from pilot_agent.identity.keys import KeySpec, SigningRequest

if TYPE_CHECKING:
    from pathlib import Path

LocallySigned = tuple[list[str], tuple[str, ...]]
"""Certificates as PEM, the workload's first, the root last; and warnings about the CA."""


class Crypto(Protocol):
    """Everything that needs the library `cryptography`. All raise IdentityError; see the functions for the kinds.

    Of kind `crypto` it says nothing about what was given: the operation itself could not be done, and may be again.
    """

    def make_request(self, spec: KeySpec, spiffe_id: str) -> SigningRequest: ...
    def first_facts(self, chain: bytes, what: str) -> CertificateFacts: ...
    def check_pair(self, chain: bytes, key: bytes, what: str, now: float) -> CertificateFacts: ...
    def check_roots(self, pem: bytes, what: str) -> Roots: ...
    def check_crl(self, pem: bytes, what: str) -> None: ...
    def check_issued(self, chain: bytes, key: bytes, root: bytes, bundle: Sequence[str], now: float) -> Issued: ...
    def why_unverified(self, chain: bytes, roots: Sequence[str]) -> str | None: ...
    def sign_locally(self, directory: "Path", csr: bytes, ttl_s: float, now: float) -> LocallySigned: ...


class InProcess:
    """Done right here: for commands and tests, and what the child itself calls. Imports `cryptography` when called."""

    make_request = staticmethod(keys.make_request)
    check_pair = staticmethod(certificate.check_pair)
    check_roots = staticmethod(certificate.check_roots)
    check_crl = staticmethod(certificate.check_crl)
    check_issued = staticmethod(certificate.check_issued)
    why_unverified = staticmethod(certificate.why_unverified)

    @staticmethod
    def first_facts(chain: bytes, what: str) -> CertificateFacts:
        return certificate.facts_of(certificate.parse_chain(chain, what)[0])

    @staticmethod
    def sign_locally(directory: "Path", csr: bytes, ttl_s: float, now: float) -> LocallySigned:
        from pathlib import Path

        from pilot_agent.identity.local_ca import read_ca  # it is built on this module

        ca = read_ca(Path(directory), now)
        return ca.sign(csr, ttl_s, now), ca.warnings


IN_PROCESS: Crypto = InProcess()
OPERATIONS = tuple(name for name in vars(InProcess) if not name.startswith("_"))
