"""What certificate files hold, told for a person: each certificate, whether its key fits and its root verifies it.

`pilot-agent ca show` calls it; nothing is judged as good or bad enough to be used, and nothing of a key is kept.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pilot_agent.errors import IdentityError
from pilot_agent.identity.certificate import (
    CertificateFacts,
    check_pair,
    check_roots,
    facts_of,
    parse_chain,
    why_unverified,
)
from pilot_agent.identity.channel import read_file
from pilot_agent.identity.local_ca import CA_CERTIFICATE_NAME, CA_KEY_NAME, warnings_about_key
from pilot_agent.identity.options import CHAIN_NAME, KEY_NAME, ROOT_NAME
from pilot_agent.identity.profile import is_ca, unreadable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

NAMES = (CA_CERTIFICATE_NAME, CHAIN_NAME, ROOT_NAME)
"""Of a directory, in the order in which they are shown."""

_PROBLEMS = {"key_mismatch": "does not fit", "pem": "can't be read: it must be PEM without a password"}


class Beside(NamedTuple):
    """A file beside a certificate, and what is wrong with the two together (None: nothing)."""

    path: Path
    problem: str | None = None
    warnings: tuple[str, ...] = ()


class Shown(NamedTuple):
    """Certificate `number` (from 1) `of` so many in the file; `key` and `root` None where there is no such file."""

    path: Path
    number: int
    of: int
    facts: CertificateFacts
    is_ca: bool
    is_own_root: bool
    key: Beside | None
    root: Beside | None


def certificates_at(path: Path) -> list[Shown]:
    """Those of a PEM file, or of the files of a directory whose names the agent knows. Raises IdentityError."""
    try:
        files = [path / name for name in NAMES if (path / name).exists()] if path.is_dir() else [path]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a later version of the library will refuse can be shown today
            shown = [each for file in files for each in _of_file(file)]
    except OSError as error:
        raise IdentityError("file_unreadable", f"{error.filename or path} can't be read: {error.strerror}") from None
    if not shown:
        raise IdentityError(
            "file_missing",
            f"{path} has none of {', '.join(NAMES)}: give a directory that has, or a PEM file; "
            "`pilot-agent ca init` makes a CA",
        )
    return shown


def _of_file(path: Path) -> list[Shown]:
    pem = _content(path)
    try:
        certificates = parse_chain(pem, str(path))
        facts = [facts_of(each) for each in certificates]
        own = [_is_own_root(each) for each in certificates]
    except unreadable():
        raise IdentityError("pem", f"{path} has a certificate of a kind that is not known here") from None
    shown = [
        Shown(path, number, len(certificates), told, is_ca(each), is_own, None, None)
        for number, (each, told, is_own) in enumerate(zip(certificates, facts, own, strict=True), 1)
    ]
    # A file's key is its first certificate's, and the others of a chain lead where the first one does.
    root = None if own[0] else _root_beside(path, pem)
    return [shown[0]._replace(key=_key_beside(path, pem, facts[0]), root=root), *shown[1:]]


def _key_beside(path: Path, pem: bytes, facts: CertificateFacts) -> Beside | None:
    known = {CA_CERTIFICATE_NAME: CA_KEY_NAME, CHAIN_NAME: KEY_NAME}.get(path.name)
    names = [known] if known is not None else [f"{path.stem}.key", f"{path.stem}-key.pem"]
    key = next((path.with_name(name) for name in names if path.with_name(name).exists()), None)
    if key is None:
        return Beside(path.with_name(known), "is missing") if known is not None else None
    try:
        # At its beginning, for the question is not whether it has expired.
        check_pair(pem, _content(key), str(path), facts.not_before)
    except IdentityError as error:
        return Beside(key, _PROBLEMS.get(error.kind, "can't be read"), warnings_about_key(key))
    return Beside(key, None, warnings_about_key(key))


def _root_beside(path: Path, pem: bytes) -> Beside | None:
    root = path.with_name(ROOT_NAME)
    if root == path or not root.exists():
        return None
    try:
        roots = check_roots(_content(root), str(root))
        why = why_unverified(pem, roots.blocks)
    except unreadable(IdentityError):
        return Beside(root, "can't be read")
    return Beside(root, None if why is None else f"does not verify it: {why}")


def _is_own_root(certificate: "Certificate") -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(certificate)
    except unreadable(InvalidSignature):
        return False
    return True


def _content(path: Path) -> bytes:
    try:
        return read_file(path)
    except FileNotFoundError:
        raise IdentityError("file_missing", f"{path} is not there: give a PEM file, or a directory") from None
    except OSError as error:
        raise IdentityError("file_unreadable", f"{path} can't be read: {error.strerror}") from None
