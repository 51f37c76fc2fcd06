"""OUTPUT_CERTS: the workload's certificate, key and roots as files, for who reads files (proxyless gRPC, VMs).

A set is written as drafts first and renamed when all of it is on the disk, so a full disk leaves the old set whole. The
roots are the merged ones, always (reference security-xds.md, section 14.5).
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from pilot_agent.errors import IdentityError
from pilot_agent.identity.options import CHAIN_NAME, KEY_NAME, ROOT_NAME
from pilot_agent.identity.slots import Secret

NAMES = (KEY_NAME, CHAIN_NAME, ROOT_NAME)
"""In the order in which they are renamed: whoever sees the new chain finds the new key."""


class Output:
    """Blocking: call `write` in a thread."""

    def __init__(self, directory: Path, mode: int, publish_all: Callable[[Mapping[Path, bytes], int], None]) -> None:
        """`publish_all(contents, mode)` replaces files, none before all of them are written; OSError."""
        self.directory, self._mode, self._publish_all = directory, mode, publish_all

    @property
    def is_complete(self) -> bool:
        """Whether all three files are there, whoever wrote them."""
        return all((self.directory / name).is_file() for name in NAMES)

    def write(self, pair: Secret | None, roots: Secret | None) -> bool:
        """Write what there is and differs; whether anything did. Raises IdentityError of kind `output`."""
        key, chain = (pair.key, pair.chain) if pair is not None else (b"", b"")
        contents = dict(zip(NAMES, (key, chain, roots.roots if roots is not None else b""), strict=True))
        wanted = {self.directory / name: content for name, content in contents.items() if content}
        try:
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            differing = {path: content for path, content in wanted.items() if not self._has(path, content)}
            if differing:
                self._publish_all(differing, self._mode)
        except OSError as error:
            where = error.filename or self.directory
            raise IdentityError("output", f"OUTPUT_CERTS: {where} can't be written: {error.strerror}") from None
        return bool(differing)

    def _has(self, path: Path, content: bytes) -> bool:
        try:
            return path.read_bytes() == content and path.stat().st_mode & 0o777 == self._mode
        except OSError:
            return False
