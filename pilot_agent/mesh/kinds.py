"""One file's documents by kind: which kinds there are, and the line of whatever is wrong with one.

Called by documents for each file that changed. A kind that is not known is a warning, since a directory may hold what
other tools read; a known kind of an unknown version is refused.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import NamedTuple, TypeAlias, cast

from pilot_agent.mesh.fields import Field, FieldRefused, Unused, dotted, shown
from pilot_agent.mesh.model import Document, DocumentRefused, FieldWarning, Origin, Resource
from pilot_agent.mesh.source import Source

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
    return cast("Reader", getattr(import_module(f"pilot_agent.mesh.{kind.module}"), kind.function))
