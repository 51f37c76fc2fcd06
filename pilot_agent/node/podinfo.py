"""The pod's labels and annotations, as the downward API writes them into files."""

import json
from pathlib import Path
from typing import NamedTuple

LABELS_FILE = "./etc/istio/pod/labels"
ANNOTATIONS_FILE = "./etc/istio/pod/annotations"

# Differs between the pods of one Deployment's revisions and says nothing about the workload.
HIDDEN_LABELS = ("pod-template-hash",)


class PodInfo(NamedTuple):
    """`None` where the file is not there (a VM, a laptop)."""

    labels: dict[str, str] | None
    annotations: dict[str, str] | None
    warnings: tuple[str, ...] = ()


def read_pod_info(labels_file: str = LABELS_FILE, annotations_file: str = ANNOTATIONS_FILE) -> PodInfo:
    """Read both files; a missing one is silent, one that can't be used is a warning and counts as missing."""
    warnings: list[str] = []
    labels = _read(labels_file, warnings)
    if labels is not None:
        labels = {key: value for key, value in labels.items() if key not in HIDDEN_LABELS}
    return PodInfo(labels, _read(annotations_file, warnings), tuple(warnings))


def _read(path: str, warnings: list[str]) -> dict[str, str] | None:
    try:
        return parse_downward_api(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        warnings.append(f"{path} is ignored: {error}")
        return None


def parse_downward_api(text: str) -> dict[str, str]:
    """Lines `key="quoted value"`; lines without `=` are skipped. Raises ValueError for a bad quote."""
    values = {}
    for number, line in enumerate(text.splitlines(), start=1):
        key, separator, quoted = line.partition("=")
        if separator:
            values[key.strip()] = _unquote(quoted.strip(), number)
    return values


def _unquote(quoted: str, number: int) -> str:
    if not quoted.startswith('"'):
        return quoted
    try:
        value = json.loads(quoted)
    except ValueError:
        try:
            # Go quotes some characters in ways JSON does not know (\x00, \a): Python's own literals do.
            import ast

            value = ast.literal_eval(quoted)
        except (ValueError, SyntaxError):
            raise ValueError(f"line {number}: {quoted!r} is not a quoted text") from None
    return str(value)
