"""Certificate files as one set: read together, judged together, and judged again only when their bytes differ.

Blocking: run it in a thread. Who calls it when is `keeper`'s.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from pilot_agent.errors import IdentityError
from pilot_agent.identity.channel import read_file
from pilot_agent.identity.crypto import IN_PROCESS, Crypto
from pilot_agent.identity.options import Files
from pilot_agent.identity.slots import Secret, key_pair

_TIMELY = ("expired", "not_yet_valid", "crypto")
"""Errors that may be over though the bytes are the same."""


class Reading(NamedTuple):
    """What a set of files holds: each part good, wrong (an error), or None for not there (absent or empty)."""

    pair: Secret | IdentityError | None = None
    roots: tuple[str, ...] | IdentityError | None = None
    crl: bytes | IdentityError | None = None
    warnings: tuple[str, ...] = ()

    @property
    def errors(self) -> list[IdentityError]:
        return [each for each in (self.pair, self.roots, self.crl) if isinstance(each, IdentityError)]


class Mounted:
    """One set of files, and what its last reading was."""

    def __init__(self, files: Files, crl: Path | None = None, crypto: Crypto = IN_PROCESS) -> None:
        self.files, self.crl, self._crypto = files, crl, crypto
        self._seen = b""
        self._reading = Reading()

    @property
    def paths(self) -> list[Path]:
        return [*self.files.all, *([self.crl] if self.crl is not None else [])]

    def read(self, now: float) -> tuple[Reading, bool]:
        """What is there now, and whether it is news. Raises nothing: what is wrong is in the reading."""
        seen, contents = self._contents()
        if seen == self._seen and not self._changes_with_time(now):
            return self._reading, False
        reading = self._judge(contents, now)
        if reading.errors:
            # Read half before and half after a swap of the directory? Then it is another set by now.
            again, contents = self._contents()
            if again != seen:
                seen, reading = again, self._judge(contents, now)
        is_news = seen != self._seen or _words(reading) != _words(self._reading)
        self._seen, self._reading = seen, reading
        return reading, is_news

    def _changes_with_time(self, now: float) -> bool:
        """Whether the same bytes are to be judged again: a pair expires, or becomes valid, by itself."""
        pair = self._reading.pair
        if isinstance(pair, Secret) and pair.facts is not None and pair.facts.not_after <= now:
            return True
        return any(error.kind in _TIMELY for error in self._reading.errors)

    def _contents(self) -> tuple[bytes, "list[bytes | IdentityError | None]"]:
        contents = [_content(path) for path in (*self.files, self.crl)]
        return hashlib.sha256(repr(contents).encode()).digest(), contents

    def _judge(self, contents: list[bytes | IdentityError | None], now: float) -> Reading:
        chain, key, root, crl = contents
        warnings: list[str] = []
        return Reading(self._pair(chain, key, now), self._roots(root, warnings), self._crl(crl), tuple(warnings))

    def _pair(
        self, chain: bytes | IdentityError | None, key: bytes | IdentityError | None, now: float
    ) -> Secret | IdentityError | None:
        if chain is None and key is None:
            return None
        for content, path in ((chain, self.files.chain), (key, self.files.key)):
            if isinstance(content, IdentityError):
                return content
            if content is None:
                return IdentityError("file_missing", f"{path} is missing or empty, and the other of the pair is there")
        assert isinstance(chain, bytes) and isinstance(key, bytes)
        try:
            return key_pair(chain, key, self._crypto.check_pair(chain, key, f"the certificate {self.files.chain}", now))
        except IdentityError as error:
            return error

    def _roots(self, root: bytes | IdentityError | None, warnings: list[str]) -> tuple[str, ...] | IdentityError | None:
        if not isinstance(root, bytes):
            return root
        try:
            roots = self._crypto.check_roots(root, f"the root file {self.files.root}")
        except IdentityError as error:
            return error
        warnings += roots.dropped
        return roots.blocks

    def _crl(self, crl: bytes | IdentityError | None) -> bytes | IdentityError | None:
        if not isinstance(crl, bytes):
            return crl
        try:
            self._crypto.check_crl(crl, f"the revocation list {self.crl}")
        except IdentityError as error:
            return error
        return crl


def _words(reading: Reading) -> list[str]:
    return [str(each) for each in reading.errors]


def _content(path: Path | None) -> bytes | IdentityError | None:
    """The bytes; None for a file that is not there or empty, as Istio sees it."""
    if path is None:
        return None
    try:
        return read_file(path) or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return IdentityError("file_unreadable", f"{path} can't be read: {error.strerror}")
