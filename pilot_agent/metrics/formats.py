"""What the scrape's two formats are called, which one an answer is in, the scraper's own time limit, and where lines
may be cut. No I/O. Called by `scrape` and `source`.
"""

import math
from typing import NamedTuple


class Format(NamedTuple):
    """`accept`: what sources are asked with."""

    content_type: str
    accept: str
    is_openmetrics: bool


TEXT = Format("text/plain; version=0.0.4; charset=utf-8", "text/plain;version=0.0.4", False)
OPENMETRICS = Format(
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    True,
)
TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"

DEFAULT_TIMEOUT_SECONDS = 10.0
_LONGEST_TIMEOUT_SECONDS = 3600.0
_FAMILY_BYTES = 64 * 1024
OPENMETRICS_FAMILY_BYTES = 1024 * 1024
"""OpenMetrics allows nothing between two samples of a family, so more of it is held than of text."""
LINE_BYTES = 1024 * 1024
"""No exposition has a longer line."""


def parse_timeout(header: str) -> float | None:
    """The scraper's time limit in seconds, at most an hour; None when the text is not a positive number."""
    try:
        seconds = float(header)
    except ValueError:
        return None
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return min(seconds, _LONGEST_TIMEOUT_SECONDS)


def budget(timeout: float) -> float:
    """What the sources may take of `timeout` seconds, so that the answer ends before the scraper gives up."""
    return timeout - min(0.5, timeout / 10)


def negotiate(accept: str, *, has_text_only_source: bool) -> Format:
    """The one format of the whole answer.

    OpenMetrics when the scraper takes nothing else, or prefers it and no source is known to give only text: text made
    into OpenMetrics loses the type of every counter whose name does not end in `_total`, as most of Envoy's do not
    (docs/decisions: one format). Text in every other case, also where neither is asked for.
    """
    ranges = [_range(part) for part in accept.split(",")]
    text = _quality(ranges, "text/plain", ("", "0.0.4"))
    openmetrics = _quality(ranges, "application/openmetrics-text", ("", "1.0.0"))
    if openmetrics > 0 and (text <= 0 or (openmetrics > text and not has_text_only_source)):
        return OPENMETRICS
    return TEXT


class _Range(NamedTuple):
    kind: str
    version: str
    quality: float


def _range(part: str) -> _Range:
    kind, *parameters = (piece.strip() for piece in part.split(";"))
    named = {key.strip().lower(): value.strip().strip('"') for key, _, value in (p.partition("=") for p in parameters)}
    try:
        quality = float(named.get("q", "1"))
    except ValueError:
        quality = 0.0
    return _Range(kind.lower(), named.get("version", ""), quality if 0 <= quality <= 1 else 0.0)


def _quality(ranges: list[_Range], kind: str, versions: tuple[str, ...]) -> float:
    """How much `kind` is wanted: by its own name, else by a wildcard; 0 for not at all."""
    for name in (kind, kind.partition("/")[0] + "/*", "*/*", "*"):
        found = [each.quality for each in ranges if each.kind == name and each.version in versions]
        if found:
            return max(found)
    return 0.0


def is_text(content_type: str | None) -> bool:
    """Whether a source answered text. No type at all is taken for text, as Prometheus does."""
    return content_type is None or _bare(content_type) in ("", "text/plain")


def is_openmetrics(content_type: str | None) -> bool:
    """Whether a source answered OpenMetrics, of whatever version."""
    return content_type is not None and _bare(content_type) == "application/openmetrics-text"


def is_protobuf(content_type: str | None) -> bool:
    """Whether a source answered a stream of MetricFamily messages."""
    return content_type is not None and _bare(content_type) == "application/vnd.google.protobuf"


def _bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


class Cutter:
    """Cuts a stream of arbitrary chunks where another source's may follow: between families, and never within a line.

    A half line must never be sent before its other half is here: `requests 12` of a broken `requests 1234` is not an
    error for the scraper, but a wrong number.
    """

    def __init__(self, family_bytes: int = _FAMILY_BYTES) -> None:
        self._held, self._family_bytes = b"", family_bytes

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent now; the last family is held back, as it may not be whole.

        A family of more than `family_bytes` is cut between lines all the same. Raises ValueError for a line without
        end.
        """
        data = self._held + chunk if self._held else chunk
        end = data.rfind(b"\n") + 1
        if not end and len(data) > LINE_BYTES:
            raise ValueError(f"a line of more than {LINE_BYTES} bytes")
        if end:
            start = _last_family(data)
            end = start if start or len(data) <= self._family_bytes else end
        self._held = data[end:]
        return data[:end]

    def rest(self, *, is_whole: bool) -> bytes:
        """What was held, with the newline its last line may lack; of a stream that broke only its whole lines."""
        held, self._held = self._held, b""
        if not is_whole:
            return held[: held.rfind(b"\n") + 1]
        return held + b"\n" if held and not held.endswith(b"\n") else held


def _last_family(data: bytes) -> int:
    """Where the last family in `data` begins; 0 when none is seen to begin."""
    # HELP, TYPE and UNIT stand in any order, and some are missing: what begins a family is the first line of comments.
    start = data.rfind(b"\n# ") + 1
    while start:
        before = data.rfind(b"\n", 0, start - 1) + 1
        if not data.startswith(b"# ", before):
            break
        start = before
    return start
