"""One file's documents by kind: which kinds there are, and the line of whatever is wrong with one.

Called by documents for each file that changed. A kind that is not known is a warning, since a directory may hold what
other tools read; a known kind of an unknown version is refused.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import NamedTuple, TypeAlias, cast

from pilot_agent.mesh.model import Document, DocumentRefused, FieldWarning, Origin, Resource
from pilot_agent.mesh.reading.fields import Field, FieldRefused, Unused, dotted, shown
from pilot_agent.mesh.reading.source import MAX_DOCUMENTS, MAX_VALUES, Chunk, split

MAX_ITEMS = 10_000

Reader: TypeAlias = "Callable[[Field, Origin], Resource | None]"


class Kind(NamedTuple):
    """The versions of one kind, and its reader, a function of a module of this package: imported when first needed."""

    versions: tuple[str, ...]
    module: str
    function: str


_NETWORKING = ("networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3")
_SECURITY = ("security.istio.io/v1", "security.istio.io/v1beta1")

KINDS = {
    "ServiceEntry": Kind(_NETWORKING, "service_entry", "service_entry"),
    "WorkloadEntry": Kind(_NETWORKING, "workload_entry", "workload_entry"),
    "VirtualService": Kind(_NETWORKING, "virtual_service", "virtual_service"),
    "DestinationRule": Kind(_NETWORKING, "destination_rule", "destination_rule"),
    "PeerAuthentication": Kind(_SECURITY, "peer_authentication", "peer_authentication"),
    "Sidecar": Kind(_NETWORKING, "sidecar", "sidecar"),
    "Service": Kind(("v1",), "kubernetes", "service"),
    "Endpoints": Kind(("v1",), "kubernetes", "endpoints"),
    "EndpointSlice": Kind(("discovery.k8s.io/v1",), "kubernetes", "endpoint_slice"),
}


class FileReader:
    """One file through its versions: only documents whose text changed are read again.

    A resource that stayed what and where it was is the same object as before; one that moved has another origin.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._parts: dict[bytes, _Part] = {}

    def read(self, content: bytes) -> Document:
        """Raises DocumentRefused for the first thing that can't be used: the file counts as a whole."""
        from hashlib import sha256

        chunks = {chunk: sha256(chunk.content).digest() for chunk in split(self.file, content)}
        known = self._parts
        parts: dict[bytes, _Part] = {}
        count = values = 0
        resources: list[Resource] = []
        warnings: list[FieldWarning] = []
        try:
            for chunk, digest in chunks.items():
                part = parts.get(digest) or known.get(digest)
                parts[digest] = part = part.moved(chunk.line, count) if part else _part(chunk, count)
                resources += part.resources
                warnings += part.warnings
                count += part.documents
                values += part.values
                if count > MAX_DOCUMENTS:
                    raise DocumentRefused(self.file, 1, "", f"more than {MAX_DOCUMENTS} documents: split the file")
                if values > MAX_VALUES:
                    reason = f"has aliases that stand for more than {MAX_VALUES} values: write less of them"
                    raise DocumentRefused(self.file, chunk.line, "", reason)
        except DocumentRefused:
            # What is in this version, as far as it is known, is worth keeping for when it is corrected.
            rest = {digest: known[digest] for digest in chunks.values() if digest in known}
            self._parts = rest | parts
            raise
        self._parts = parts
        return Document(tuple(resources), tuple(warnings))


def read(file: str, content: bytes) -> Document:
    """One reading without a past. Raises DocumentRefused."""
    return FileReader(file).read(content)


class _Part(NamedTuple):
    """What a chunk says: so many `documents`, the first of them the `document`th of the file, from `line` on."""

    line: int
    document: int
    documents: int
    values: int
    resources: tuple[Resource, ...]
    warnings: tuple[FieldWarning, ...]

    def moved(self, line: int, document: int) -> "_Part":
        lines, documents = line - self.line, document - self.document
        if not lines and not documents:
            return self
        return self._replace(
            line=line,
            document=document,
            resources=tuple(_moved(resource, lines, documents) for resource in self.resources),
            warnings=tuple(warning._replace(line=warning.line + lines) for warning in self.warnings),
        )


def _moved(resource: Resource, lines: int, documents: int) -> Resource:
    origin = resource.origin
    return resource._replace(origin=origin._replace(line=origin.line + lines, document=origin.document + documents))


def _part(chunk: Chunk, first: int) -> _Part:
    resources: list[Resource] = []
    warnings: list[FieldWarning] = []
    documents = chunk.documents()
    for index, (line, value) in enumerate(documents):
        unused: list[Unused] = []
        try:
            _read(Field(value, (), unused), Origin(chunk.file, line, first + index), index, chunk, resources)
        except FieldRefused as refused:
            at = chunk.line_of(index, refused.path)
            raise DocumentRefused(chunk.file, at, dotted(refused.path), refused.reason) from None
        for path, reason in unused:
            warnings.append(FieldWarning(chunk.file, chunk.line_of(index, path), dotted(path), reason))
    chunk.forget()
    warnings.sort(key=lambda warning: warning.line)
    return _Part(chunk.line, first, len(documents), chunk.values, tuple(resources), tuple(warnings))


def _read(document: Field, origin: Origin, index: int, chunk: Chunk, resources: list[Resource]) -> None:
    if not document.is_set:
        return
    if not isinstance(document.value, dict):
        document.refuse(f"{shown(document.value)} is not a Kubernetes object: start with apiVersion and kind")
    kind = document["kind"]
    if not kind.is_set:
        kind.refuse("is missing: say what the document is, such as ServiceEntry")
    if kind.value == "List" and not origin.path:
        for item in document["items"].items(MAX_ITEMS):
            line = chunk.line_of(index, item.path)
            _read(item, origin._replace(line=line, path=item.path), index, chunk, resources)
    elif (known := _known(document)) is not None:
        document["apiVersion"].choice(known.versions)
        resource = _reader(known)(document, origin)
        if resource is not None:
            resources.append(resource)
    else:
        kind.warn(f"{shown(kind.value)} is not supported here and has no effect; supported: {', '.join(KINDS)}")


def _known(document: Field) -> Kind | None:
    """The kind, unless its name is another project's: a Service of serving.knative.dev is not Kubernetes' own."""
    kind, version = document["kind"].value, document["apiVersion"].value
    known = KINDS.get(kind) if isinstance(kind, str) else None
    if known is None or not isinstance(version, str):
        return known
    return known if _group(version) == _group(known.versions[0]) else None


def _group(version: str) -> str:
    return version.rpartition("/")[0]


@cache
def _reader(kind: Kind) -> Reader:
    return cast("Reader", getattr(import_module(f"pilot_agent.mesh.reading.{kind.module}"), kind.function))
