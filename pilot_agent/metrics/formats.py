"""What is text on the wire: the one format asked for, the scraper's own time limit, and where text may be cut.

No I/O. Called by `scrape` and `source`.
"""

import math

ACCEPT = "text/plain;version=0.0.4"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"

DEFAULT_TIMEOUT_SECONDS = 10.0
_LONGEST_TIMEOUT_SECONDS = 3600.0
_FAMILY_BYTES = 64 * 1024
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


def is_text(content_type: str | None) -> bool:
    """Whether a source answered what was asked for. No type at all is taken for text, as Prometheus does."""
    return content_type is None or content_type.partition(";")[0].strip().lower() in ("", "text/plain")


class Cutter:
    """Cuts a stream of arbitrary chunks where a scrape stays valid if nothing more comes: between lines.

    A half line must never be sent before its other half is here: `requests 12` of a broken `requests 1234` is not an
    error for the scraper, but a wrong number.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes, *, in_families: bool) -> bytes:
        """What may be sent now. `in_families`: hold the last family back, so that another source may come next.

        A family of more than 64 KiB is cut between lines all the same. Raises ValueError for a line without end.
        """
        data = self._held + chunk if self._held else chunk
        end = data.rfind(b"\n") + 1
        if not end and len(data) > LINE_BYTES:
            raise ValueError(f"a line of more than {LINE_BYTES} bytes")
        if in_families and end:
            start = _last_family(data)
            end = start if start or len(data) <= _FAMILY_BYTES else end
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
    # HELP comes first where there is HELP; Envoy writes only TYPE.
    start = data.rfind(b"\n# HELP ")
    if start < 0 and not data.startswith(b"# HELP "):
        start = data.rfind(b"\n# TYPE ")
    return start + 1
