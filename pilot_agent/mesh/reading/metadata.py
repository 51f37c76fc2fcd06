"""What every object shares: its envelope and metadata, labels and the selectors of them, exportTo.

Used by the readers of all kinds; raises FieldRefused for what can't be used and leaves warnings for what has no effect.
"""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from pilot_agent.mesh.model import Origin
from pilot_agent.mesh.reading.fields import Field, shown

MAX_LABELS = 256
MAX_NAMESPACES = 256
EXPORT_TO = "networking.istio.io/exportTo"
"""The annotation that says of a Kubernetes Service what `exportTo` says of the other kinds."""

LABEL = r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(LABEL)
_ENVELOPE = ("apiVersion", "kind", "metadata")
_METADATA = ("name", "namespace", "labels", "annotations")
_METADATA_QUIET = frozenset(
    "creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName generation managedFields "
    "ownerReferences resourceVersion selfLink uid".split()
)


class Metadata(NamedTuple):
    """`annotations` holds only those that were asked for, and that are there."""

    origin: Origin
    name: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, Field]


def metadata(
    document: Field, origin: Origin, content: Collection[str] = ("spec",), annotations: Collection[str] = ()
) -> Metadata:
    """Read the envelope of a Kubernetes object whose own keys are `content`.

    An annotation of Istio's that is not one of `annotations` is a warning; those of others are nobody's concern.
    """
    document.mapping((*_ENVELOPE, *content), ignored=("status",))
    fields = document["metadata"].mapping(_METADATA, ignored=_METADATA_QUIET)
    found = {}
    for annotation in fields["annotations"].entries(MAX_LABELS):
        if annotation.name in annotations:
            found[annotation.name] = annotation
        elif "istio.io/" in annotation.name:
            annotation.warn("is not supported here and has no effect")
    return Metadata(origin, fields["name"].text(), namespace(fields["namespace"]), labels(fields["labels"]), found)


def namespace(field: Field) -> str:
    return label(field, "a namespace") if field.is_set else "default"


def label(field: Field, what: str) -> str:
    """A name of one DNS label, such as a namespace's or a subset's."""
    if not _LABEL.fullmatch(field.text()):
        field.refuse(f"{shown(field.value)} is not {what}: use letters, digits and dashes, at most 63")
    return field.text()


def labels(field: Field) -> dict[str, str]:
    return {entry.name: entry.optional_text() for entry in field.entries(MAX_LABELS)}


def selector(field: Field, key: str) -> dict[str, str] | None:
    """The labels below `key` (`labels` or `matchLabels`) of a selector, None where there is no selector or no label."""
    field.mapping((key,))
    wanted = labels(field[key])
    for entry in field[key].entries(MAX_LABELS):
        if not entry.name or "*" in entry.name or "*" in wanted[entry.name]:
            entry.refuse("has a wildcard or no name: a selector compares whole labels")
    if field.is_set and not wanted:
        field.warn(f"selects by no label, so it counts for every workload: give {key}, or remove it")
    return wanted or None


def export_to(field: Field) -> tuple[str, ...]:
    """`exportTo` of a spec: "*", ".", "~" (nobody) or namespaces; empty where it is not given."""
    return _exported(field, [(item, item.text()) for item in field.items(MAX_NAMESPACES)])


def annotated_export_to(meta: Metadata) -> tuple[str, ...]:
    """The same from a Kubernetes Service's annotation, whose values are separated by commas."""
    field = meta.annotations.get(EXPORT_TO)
    return () if field is None else _exported(field, [(field, part.strip()) for part in field.text().split(",")])


def _exported(field: Field, items: list[tuple[Field, str]]) -> tuple[str, ...]:
    for item, name in items:
        if name not in ("*", ".", "~") and not _LABEL.fullmatch(name):
            item.refuse(f"{shown(name)} is not a namespace: use names of namespaces, `.` or `*`")
    names = tuple(dict.fromkeys(name for _, name in items))
    if len(names) > 1 and ("*" in names or "~" in names):
        field.refuse("has `*` (everybody) or `~` (nobody) beside others: give that one alone, or namespaces")
    return names
