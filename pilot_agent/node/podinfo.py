"""The pod's labels and annotations, as the downward API writes them into files.

Owns reading and unquoting them; which of them count for what is `labels`' and `settings`' business. Read again whenever
kubelet changes the files.
"""

import re
from pathlib import Path
from typing import NamedTuple

from pilot_agent.settings.paths import ANNOTATIONS_FILE, LABELS_FILE

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
    """Lines `key="quoted by Go"`; lines without `=` are skipped. Raises ValueError for a bad quote, and for none.

    kubelet quotes every value, so one without quotes is a damaged file, as it is for Istio.
    """
    values = {}
    # Not splitlines: Go's quoting leaves no newline in a value, but keeps others of what Python takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        key, separator, quoted = line.partition("=")
        if separator:
            try:
                values[key.strip()] = unquote(quoted.strip())
            except ValueError:
                # Not the value: the proxy's configuration, with a tracer's token in it, may be an annotation.
                raise ValueError(f"line {number}: the value of {key.strip()!r} is not a quoted text") from None
    return values


def unquote(quoted: str) -> str:
    r"""The text that Go's %q wrote. \x and octal escapes are bytes; those that make no UTF-8 become U+FFFD.

    Raises ValueError for what Go does not take: no quotes, an unknown escape, half a surrogate pair.
    """
    if not _QUOTED.fullmatch(quoted):
        raise ValueError("not a quoted text")
    body = quoted[1:-1]
    if "\\" not in body:
        return body
    return _ESCAPE.sub(_escaped, body).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_ESCAPE = re.compile(r'\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|([0-7]{3})|(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})))')
_QUOTED = re.compile(rf'"(?:[^"\\\n]|{_ESCAPE.pattern})*"')


def _escaped(match: re.Match[str]) -> str:
    letter, byte, octal, short, long = match.groups()
    if letter:
        return _LETTERS[letter]
    if byte or octal:
        code = int(byte, 16) if byte else int(octal, 8)
        if code > 0xFF:
            raise ValueError(f"{match[0]} is more than a byte")
        return chr(code) if code < 0x80 else chr(0xDC00 + code)  # as surrogateescape writes a byte
    code = int(short or long, 16)
    if 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        raise ValueError(f"{match[0]} is no character")
    return chr(code)
