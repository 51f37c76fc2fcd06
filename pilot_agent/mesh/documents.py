"""A directory of Istio YAML as the model: which files count, what each says, and which version of each serves.

A file that can't be used is refused as a whole and its last good version goes on serving. Called by local, which
decides when to read; it keeps no time, watches nothing and writes nothing.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pilot_agent.mesh.claims import Claims, Conflict
from pilot_agent.mesh.model import Document, DocumentRefused, FieldWarning, Options, Origin, Resource
from pilot_agent.mesh.model import Path as FieldPath

if TYPE_CHECKING:
    from pilot_agent.mesh.reading.kinds import FileReader
    from pilot_agent.mesh.reading.source import Source

SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILE = 10 * 2**20
MAX_FILES = 10_000


class Reading(NamedTuple):
    """The mesh as it now serves, and what is wrong with the files. `errors` is by file name, sorted."""

    resources: tuple[Resource, ...]
    errors: dict[str, DocumentRefused]
    warnings: tuple[FieldWarning, ...]


class _File:
    """One file through its versions: what it says now, or why it can't be used, and what of it serves."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._reader: FileReader | None = None
        self.digest: bytes | None = None
        self.current: Document | DocumentRefused | None = None
        self.served: Document | None = None

    def parse(self, content: bytes) -> None:
        if self._reader is None:
            # Late: this is what loads PyYAML, and an empty directory never gets here.
            from pilot_agent.mesh.reading.kinds import FileReader

            self._reader = FileReader(self._name)
        try:
            self.current = self._reader.read(content)
        except DocumentRefused as refusal:
            self.current = refusal


class _Places:
    """The lines of fields in one version of a file, looked up when they are asked for."""

    def __init__(self, directory: Path, name: str, digest: bytes | None) -> None:
        self._path, self._name, self.digest = directory, name, digest
        self._known: dict[tuple[Origin, FieldPath, str], FieldWarning] = {}
        self._source: Source | None = None

    def warning(self, origin: Origin, path: FieldPath, reason: str) -> FieldWarning:
        """Where the file is another one by now, or gone, the line the document began at has to do."""
        key = (origin, path, reason)
        if key not in self._known:
            from pilot_agent.mesh.reading.fields import dotted

            source, whole = self._text(), (*origin.path, *path)
            line = source.line(origin.document, whole) if source is not None else origin.line
            self._known[key] = FieldWarning(origin.file, line, dotted(whole), reason)
        return self._known[key]

    def _text(self) -> "Source | None":
        from pilot_agent.mesh.reading.source import Source

        if self._source is None:
            try:
                content = _content(self._path, self._name)
            except OSError:
                return None
            if isinstance(content, bytes) and _digest(content) == self.digest:
                self._source = Source(self._name, content)
        return self._source

    def forget_text(self) -> None:
        self._source = None


class MeshReader:
    """Reads the directory again and again. A change parses the changed files only."""

    def __init__(self, directory: Path, options: Options) -> None:
        self._directory, self._options = directory, options
        self._files: dict[str, _File] = {}
        self._places: dict[str, _Places] = {}

    def read(self) -> Reading:
        """Raises OSError when the directory can't be listed; trouble with a file is in `errors`."""
        names = _names(self._directory)
        for gone in self._files.keys() - set(names):
            del self._files[gone]
        for name in names[:MAX_FILES]:
            self._refresh(name)
        self._files = {name: self._files[name] for name in names if name in self._files}
        errors = self._assemble()
        if len(names) > MAX_FILES:
            directory = self._directory.name
            errors[directory] = DocumentRefused(
                directory, 0, "", f"has more than {MAX_FILES} files: the rest is unused"
            )
        served = [file.served for file in self._files.values() if file.served]
        return Reading(
            tuple(each for document in served for each in document.resources),
            dict(sorted(errors.items())),
            tuple(warning for document in served for warning in document.warnings),
        )

    def _refresh(self, name: str) -> None:
        file = self._files.get(name) or _File(name)
        try:
            content = _content(self._directory, name)
        except FileNotFoundError:
            if not (self._directory / name).is_symlink():  # deleted since the listing
                self._files.pop(name, None)
                return
            content = DocumentRefused(name, 0, "", "points to a file that does not exist: correct the link")
        except OSError as error:
            content = DocumentRefused(name, 0, "", f"can't be read: {error.strerror}")
        self._files[name] = file
        if isinstance(content, DocumentRefused):
            file.digest, file.current = None, content
            return
        digest = _digest(content)
        if digest != file.digest:
            file.digest = digest
            file.parse(content)

    def _assemble(self) -> dict[str, DocumentRefused]:
        """Decide which version of each file serves; the result says why one is not its current version.

        What serves already goes first, so that a new or changed file never takes something from one that works. A
        changed file that gets into a conflict falls back to its last good version, which may put it in the way of
        another changed file: then everything is decided again, with that version as given. At the first reading the
        order of names decides.
        """
        errors = {name: file.current for name, file in self._files.items() if isinstance(file.current, DocumentRefused)}
        while True:
            served, conflict = self._attempt(errors)
            if conflict is None:
                break
            errors[conflict.file] = conflict
        for name, file in self._files.items():
            file.served = served.get(name)
        return errors

    def _attempt(self, errors: dict[str, DocumentRefused]) -> tuple[dict[str, Document], DocumentRefused | None]:
        """One try at it: the versions that serve, or the conflict that pins a file to its last good version."""
        claims = Claims(self._options)
        served: dict[str, Document] = {}
        for name, file in sorted(self._files.items(), key=lambda item: (self._rank(item[0], item[1], errors), item[0])):
            document = file.served if name in errors else file.current
            if not isinstance(document, Document):
                continue
            conflict = claims.add(document.resources)
            if conflict is None:
                served[name] = document
            elif name not in errors and file.served is not None:
                return served, self._refusal(conflict)
            else:
                errors[name] = self._refusal(conflict)  # nothing of it serves, so nobody else is affected
        return served, None

    def place(self, problems: Iterable[tuple[Origin, FieldPath, str]]) -> tuple[FieldWarning, ...]:
        """What is wrong with served documents though only the others show it, each with its line.

        A file is read once more for that: its text was not kept, and such things are rare. What was found stays known
        while the file is the same.
        """
        found: list[FieldWarning] = []
        placed: dict[str, _Places] = {}
        for origin, path, reason in problems:
            name = origin.file
            if name not in placed:
                file, before = self._files.get(name), self._places.get(name)
                digest = file.digest if file is not None else None
                is_same = before is not None and before.digest == digest
                placed[name] = before if before is not None and is_same else _Places(self._directory, name, digest)
            found.append(placed[name].warning(origin, path, reason))
        self._places = placed
        for places in placed.values():
            places.forget_text()
        return tuple(found)

    def _refusal(self, conflict: Conflict) -> DocumentRefused:
        name = conflict.origin.file
        return DocumentRefused(*_Places(self._directory, name, self._files[name].digest).warning(*conflict))

    @staticmethod
    def _rank(name: str, file: _File, errors: dict[str, DocumentRefused]) -> int:
        if file.served is None:
            return 3
        if name in errors:
            return 0
        return 1 if file.served is file.current else 2


def read_directory(directory: Path, options: Options | None = None) -> Reading:
    """One reading without a past. Raises OSError when the directory can't be listed."""
    return MeshReader(directory, options or Options()).read()


def _names(directory: Path) -> list[str]:
    """The files that count, sorted. Hidden ones do not: Kubernetes has its `..data`, editors their drafts."""
    with os.scandir(directory) as listing:
        return sorted(
            entry.name
            for entry in listing
            if entry.name.endswith(SUFFIXES) and not entry.name.startswith(".") and not _is_directory(entry)
        )


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle: reading it says why
        return False


def _content(directory: Path, name: str) -> bytes | DocumentRefused:
    import stat

    # Not blocking: a named pipe in the directory must not hold the agent up.
    descriptor = os.open(directory / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return DocumentRefused(name, 0, "", "is not a regular file: remove it")
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        return DocumentRefused(name, 0, "", f"is larger than {MAX_FILE // 2**20} MiB: split it")
    return content


def _digest(content: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(content).digest()
