"""Secrets by name, and who waits for them: the seam between what makes them and what serves them.

A slot holds what a name stands for now. Whoever serves it listens, and compares versions, so that many changes in a row
are one push and a change to the same content is none. Everything here belongs to the event loop.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from pilot_agent.identity.certificate import CertificateFacts


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A key pair (`chain`, `key`, `facts` of its first certificate) or `roots` with an optional `crl`; all PEM."""

    version: str
    chain: bytes = b""
    key: bytes = b""
    roots: bytes = b""
    crl: bytes = b""
    facts: CertificateFacts | None = None

    def __repr__(self) -> str:
        return f"Secret({self.version})"  # it may hold a key, which must reach no log

    @property
    def is_key_pair(self) -> bool:
        return self.facts is not None


def key_pair(chain: bytes, key: bytes, facts: CertificateFacts) -> Secret:
    return Secret(_version(chain, key), chain=chain, key=key, facts=facts)


def validation(roots: bytes, crl: bytes = b"") -> Secret:
    return Secret(_version(roots, crl), roots=roots, crl=crl)


def _version(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


class Slot:
    """One name. `problem`: why there is nothing, or why what is there does not get newer; None when all is well.

    `failures` counts the attempts that ended without a secret to serve: who waits for the first one gives up when it
    grows.
    """

    def __init__(self, name: str, wanted: Callable[["Slot"], None] = lambda _: None) -> None:
        """`wanted` is called with this slot when somebody asks for a secret that is not there."""
        self.name = name
        self.secret: Secret | None = None
        self.problem: str | None = None
        self.failures = 0
        self._wanted = wanted
        self._listeners: set[Callable[[], None]] = set()

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def listen(self, changed: Callable[[], None]) -> None:
        """`changed` is called after every change of the secret, and every failure to have one."""
        self._listeners.add(changed)
        if self.secret is None:
            self._wanted(self)

    def forget(self, changed: Callable[[], None]) -> None:
        self._listeners.discard(changed)

    def offer(self, secret: Secret) -> bool:
        """Serve `secret` from now on; whether it differs from what was served."""
        self.problem = None
        if self.secret is not None and self.secret.version == secret.version:
            return False
        self.secret = secret
        self._tell()
        return True

    def note(self, problem: str | None) -> None:
        """What is wrong, while what is served stays."""
        self.problem = problem

    def fail(self, problem: str) -> None:
        """An attempt to have a secret has ended without one."""
        self.problem = problem
        if self.secret is None:
            self.failures += 1
            self._tell()

    def withdraw(self, problem: str) -> None:
        """What was served can't be served any longer."""
        self.secret = None
        self.fail(problem)

    def _tell(self) -> None:
        for changed in tuple(self._listeners):
            changed()
