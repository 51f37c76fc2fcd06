"""A CA inside the test, and the options of a workload that asks it."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pilot_agent.errors import IdentityError
from pilot_agent.identity.keys import KeySpec
from pilot_agent.identity.options import CaOptions, Files, IdentityOptions, Renewal
from pilot_agent.values import HostPort
from tests.support.authority import Authority
from tests.support.clocks import ManualClock

SPIFFE_ID = "spiffe://cluster.local/ns/foo/sa/bar"
HOUR, DAY = 3600.0, 86400.0

CA = CaOptions(HostPort("ca.example", 15012), False, "ca.example", None, None, "", "", ())


def identity_options(directory: Path, **changes: object) -> IdentityOptions:
    """Certificates for a day, renewed after half of it to the second; keys that are made quickly."""
    options = IdentityOptions(
        spiffe_id=SPIFFE_ID,
        trust_domain="cluster.local",
        key=KeySpec("ECDSA"),
        renewal=Renewal(int(DAY), 0.5, 0.0),
        certs=Files.of_directory(directory / "certs"),
        crl=directory / "crl.pem",
        ca=CA,
        local_ca=None,
        token=directory / "token",
        fetcher="JWT",
        output=None,
        output_mode=0o600,
        debounce_s=0.01,
        is_files_only=False,
        is_mounted=False,
        provider=None,
        warnings=(),
    )
    return options._replace(**changes)  # type: ignore[arg-type]


class FakeSigner:
    """Signs what it is asked by `authority` at the time of `clock`, or fails with `error`; waits while it is held."""

    def __init__(self, clock: ManualClock, authority: Authority) -> None:
        self.clock, self.authority = clock, authority
        self.error: Exception | None = None
        self.requests: list[tuple[bytes, int]] = []
        self.lifetime_s: float | None = None
        self.not_before: Callable[[], float] = clock.wall
        self.answer: Callable[[list[str]], Sequence[str]] = lambda chain: chain
        self.name = SPIFFE_ID
        self.has_wrong_key = False
        self._may_answer: asyncio.Event | None = None

    @property
    def calls(self) -> int:
        return len(self.requests)

    def hold(self) -> None:
        """The next answers wait for `release`."""
        self._may_answer = asyncio.Event()

    def release(self) -> None:
        assert self._may_answer is not None
        self._may_answer.set()
        self._may_answer = None

    def fail(self, kind: str = "ca_unavailable", text: str = "the CA is down") -> None:
        self.error = IdentityError(kind, text)

    async def sign(self, csr: bytes, ttl_s: int) -> Sequence[str]:
        self.requests.append((csr, ttl_s))
        if self._may_answer is not None:
            await self._may_answer.wait()
        if self.error is not None:
            raise self.error
        request = x509.load_pem_x509_csr(csr)
        key = ec.generate_private_key(ec.SECP256R1()).public_key() if self.has_wrong_key else request.public_key()
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(self.name)])
        lifetime_s = self.lifetime_s if self.lifetime_s is not None else ttl_s
        assert isinstance(key, ec.EllipticCurvePublicKey)
        leaf = self.authority.sign(key, names, lifetime_s, self.not_before())
        return self.answer([leaf, self.authority.pem])
