"""One file's documents by kind: which kinds there are, and the line of whatever is wrong with one.

Called by documents for each file that changed. A kind that is not known is a warning, since a directory may hold what
other tools read; a known kind of an unknown version is refused.
"""

from pilot_agent.mesh.fields import Field, FieldRefused, Unused, dotted, shown
from pilot_agent.mesh.model import Document, DocumentRefused, FieldWarning, Origin, Resource
from pilot_agent.mesh.service_entry import API_VERSIONS, service_entry
from pilot_agent.mesh.source import Source

MAX_ITEMS = 10_000


def read(file: str, content: bytes) -> Document:
    """Raises DocumentRefused for the first thing that can't be used: the file counts as a whole."""
    source = Source(file, content)
    resources: list[Resource] = []
    warnings: list[FieldWarning] = []
    for index, (line, value) in enumerate(source.documents()):
        unused: list[Unused] = []
        try:
            _read(Field(value, (), unused), Origin(file, line, index), source, resources)
        except FieldRefused as refused:
            at = source.line(index, refused.path)
            raise DocumentRefused(file, at, dotted(refused.path), refused.reason) from None
        warnings += [FieldWarning(file, source.line(index, path), dotted(path), text) for path, text in unused]
    return Document(tuple(resources), tuple(warnings))


def _read(document: Field, origin: Origin, source: Source, resources: list[Resource]) -> None:
    if not document.is_set:
        return
    if not isinstance(document.value, dict):
        document.refuse(f"{shown(document.value)} is not a Kubernetes object: start with apiVersion and kind")
    kind = document["kind"]
    if not kind.is_set:
        kind.refuse("is missing: say what the document is, such as ServiceEntry")
    if kind.value == "List" and not origin.path:
        for item in document["items"].items(MAX_ITEMS):
            line = source.line(origin.document, item.path)
            _read(item, origin._replace(line=line, path=item.path), source, resources)
    elif kind.value == "ServiceEntry":
        document["apiVersion"].choice(API_VERSIONS)
        resources.append(service_entry(document, origin))
    else:
        kind.warn(f"{shown(kind.value)} is not supported here and has no effect; supported: ServiceEntry")
