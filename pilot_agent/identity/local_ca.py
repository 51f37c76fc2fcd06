"""A CA for development, in a directory: makes it, signs with it, and issues a workload's key and certificate.

`ca init` and `ca issue` call it, and with --caDir the agent, to which `LocalCa` is the CA. It writes through a
function it is given. The CA's key is read anew for each use, never kept, never shown.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pilot_agent.clock import Clock, SystemClock
from pilot_agent.errors import AgentError, IdentityError, SettingsError
from pilot_agent.identity.certificate import CertificateFacts, check_pair, facts_of, parse_chain
from pilot_agent.identity.channel import read_file
from pilot_agent.identity.crypto import IN_PROCESS, Crypto
from pilot_agent.identity.keys import KeySpec, key_pem, make_key, make_request
from pilot_agent.identity.profile import (
    SCHEME,
    is_ca,
    is_trust_domain,
    pem_of,
    read_request,
    root_certificate,
    trust_domain_of,
    unreadable,
    workload_certificate,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes as PublicKey
    from cryptography.x509 import Certificate

    from pilot_agent.identity.keys import PrivateKey

Publish = Callable[[Mapping[Path, bytes], Mapping[Path, int]], None]
"""`publish_all(contents, modes)`: all files or none. Raises OSError."""

CA_KEY_NAME, CA_CERTIFICATE_NAME = "ca-key.pem", "ca-cert.pem"
KEY_MODE, CERTIFICATE_MODE = 0o600, 0o644


@dataclass(frozen=True, slots=True, repr=False)
class Issued:
    """A workload's key and certificate as PEM; `chain` is without the root, as TLS wants it."""

    chain: bytes
    key: bytes
    root: bytes
    facts: CertificateFacts

    def __repr__(self) -> str:
        return f"Issued({self.facts.spiffe_id})"  # it holds a key, which must reach no log


@dataclass(frozen=True, slots=True, repr=False)
class Ca:
    """A CA that was read and is good now: its own certificate first in `certificates`, the root last."""

    directory: Path
    key: "PrivateKey"
    certificates: "tuple[Certificate, ...]"
    facts: CertificateFacts
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Ca({self.directory})"  # it holds a key, which must reach no log

    @property
    def trust_domain(self) -> str:
        return self.facts.spiffe_id.removeprefix(SCHEME)

    def sign(self, csr: bytes, ttl_s: float, now: float) -> list[str]:
        """Certificates as PEM, the workload's first, the root last; it ends with the CA at the latest.

        Of the request only the key and the one SPIFFE ID get in. Raises IdentityError of kind `ca_answer`.
        """
        public_key, spiffe_id = self._checked(csr)
        if ttl_s < 1:
            raise self._refusal(f"a lifetime of {ttl_s} s is none: a second is the least")
        until = min(now + ttl_s, self.facts.not_after)
        leaf = workload_certificate(self.certificates[0], self.key, public_key, spiffe_id, now, until)
        return [pem_of(each) for each in (leaf, *self.certificates)]

    def _checked(self, csr: bytes) -> "tuple[PublicKey, str]":
        """Key and SPIFFE ID of a request."""
        try:
            request = read_request(csr)
        except ValueError as error:
            raise self._refusal(str(error)) from None
        if not request.is_signed:
            raise self._refusal("its signature is wrong, so its sender has not shown to have the key")
        if len(request.spiffe_ids) != 1:
            raise self._refusal(f"it names {len(request.spiffe_ids)} SPIFFE IDs, and a workload has exactly one")
        spiffe_id = request.spiffe_ids[0]
        domain = trust_domain_of(spiffe_id)
        if domain is None:
            raise self._refusal(_no_id(spiffe_id))
        if domain != self.trust_domain:
            raise self._refusal(
                f"it is for {spiffe_id}, and the trust domain of this CA is {self.trust_domain}: use that one, or make "
                "a CA for the other one in another directory"
            )
        return request.public_key, spiffe_id

    def _refusal(self, why: str) -> IdentityError:
        return IdentityError("ca_answer", f"the CA in {self.directory} refuses the signing request: {why}")


class LocalCa:
    """The CA in `directory` as a `Signer`. `warn` hears what may hurt later, once as long as it stays the same."""

    def __init__(
        self,
        directory: Path,
        clock: Clock | None = None,
        warn: Callable[[str], None] = lambda _: None,
        executor: "Executor | None" = None,
        crypto: Crypto = IN_PROCESS,
    ) -> None:
        self._directory, self._clock, self._warn, self._executor = directory, clock or SystemClock(), warn, executor
        self._crypto = crypto
        self._said: tuple[str, ...] = ()

    async def sign(self, csr: bytes, ttl_s: int) -> Sequence[str]:
        """As `Ca.sign`, with the CA as its files are now. Raises IdentityError, as `read_ca` does too."""
        import asyncio  # late, since the child that signs for the agent has no use for it

        loop = asyncio.get_running_loop()
        now, sign = self._clock.wall(), self._crypto.sign_locally
        chain, warnings = await loop.run_in_executor(self._executor, sign, self._directory, csr, ttl_s, now)
        if warnings != self._said:
            for warning in warnings:
                self._warn(warning)
            self._said = warnings
        return chain


def create(directory: Path, trust_domain: str, lifetime_s: float, now: float, publish_all: Publish) -> CertificateFacts:
    """A new CA for `trust_domain` in `directory`, which is made where it is missing.

    Raises SettingsError for a name that is no trust domain and where there is a CA already, AgentError where nothing
    can be written.
    """
    if not is_trust_domain(trust_domain):
        raise SettingsError(
            f"{trust_domain!r} is no trust domain: use 1 to 255 lower-case letters, digits, dots, dashes, underscores"
        )
    key = make_key(KeySpec("ECDSA"))
    certificate = root_certificate(key, trust_domain, now, now + lifetime_s)
    paths = directory / CA_KEY_NAME, directory / CA_CERTIFICATE_NAME
    contents = dict(zip(paths, (key_pem(key, is_pkcs8=True), pem_of(certificate).encode()), strict=True))
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _alone_in(directory):
            _refuse_to_overwrite(paths)
            publish_all(contents, dict(zip(paths, (KEY_MODE, CERTIFICATE_MODE), strict=True)))
    except OSError as error:
        raise AgentError(
            f"no CA can be made in {directory}: {error.strerror}; give a directory that can be written"
        ) from None
    return facts_of(certificate)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Two that make a CA at the same time could leave the key of one and the certificate of the other."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"another process is making a CA in {directory} at this moment: use that one") from None
        yield
    finally:
        os.close(descriptor)


def _refuse_to_overwrite(paths: Sequence[Path]) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise SettingsError(
                f"{path} is there already, and a CA is never overwritten, since nobody would trust what it has signed: "
                "use it, move it away, or give another directory"
            )


def read_ca(directory: Path, now: float) -> Ca:
    """The CA as its files are now. Raises IdentityError.

    Kind `ca_root`: files that are missing, can't be read, or are no CA's; `key_mismatch`, `expired`, `not_yet_valid`.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    what = f"the CA in {directory}"
    chain, key = _content(directory / CA_CERTIFICATE_NAME), _content(directory / CA_KEY_NAME)
    try:
        facts = check_pair(chain, key, what, now)
        certificates = tuple(parse_chain(chain, what))
        # `check_pair` had it make a signature, which is all the check it needs.
        private = load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)
    except IdentityError as error:
        raise _of_ca(error) from None
    except unreadable():
        raise IdentityError("ca_root", f"{what} has a certificate of a kind that is not known here") from None
    if not (is_ca(certificates[0]) and is_trust_domain(facts.spiffe_id.removeprefix(SCHEME))):
        raise IdentityError(
            "ca_root",
            f"{directory / CA_CERTIFICATE_NAME} is no certificate of a SPIFFE CA: it must say CA:TRUE and name its "
            f"trust domain, as in {SCHEME}cluster.local; `pilot-agent ca init` makes one",
        )
    assert isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)  # `check_pair` takes no other
    return Ca(directory, private, certificates, facts, warnings_about_key(directory / CA_KEY_NAME))


def issue(ca: Ca, spec: KeySpec, spiffe_id: str, ttl_s: float, now: float) -> Issued:
    """A new key and its certificate in the name of `spiffe_id`. Raises IdentityError of kind `ca_answer`."""
    if trust_domain_of(spiffe_id) is None:
        raise IdentityError("ca_answer", _no_id(spiffe_id))
    request = make_request(spec, spiffe_id)
    *chain, root = ca.sign(request.csr, ttl_s, now)
    joined = "".join(chain).encode()
    return Issued(joined, request.key, root.encode(), facts_of(parse_chain(joined, "the new certificate")[0]))


def warnings_about_key(path: Path) -> tuple[str, ...]:
    """That others than its owner can read it, which is no reason not to use it. Raises nothing."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return ()
    return (f"{path} can be read by others (mode {mode:04o}): make it 0600",) if mode & 0o077 else ()


def _no_id(text: str) -> str:
    return (
        f"{text!r} is no SPIFFE ID of a workload: a trust domain in lower case and a path follow {SCHEME}, both of "
        "letters, digits, dots, dashes and underscores"
    )


def _content(path: Path) -> bytes:
    try:
        return read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise IdentityError(
            "ca_root", f"there is no CA in {path.parent}: {path.name} is missing; make one with `pilot-agent ca init`"
        ) from None
    except OSError as error:
        raise IdentityError("ca_root", f"{path}, of the local CA, can't be read: {error.strerror}") from None


def _of_ca(error: IdentityError) -> IdentityError:
    """What is wrong with a pair, said of a CA."""
    advice = ": move it away, and make another one with `pilot-agent ca init`" if error.kind == "expired" else ""
    return IdentityError("ca_root" if error.kind == "pem" else error.kind, f"{error}{advice}")
