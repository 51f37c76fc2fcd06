"""Tables as istioctl lays them out: each column as wide as its widest cell and a gap, the last one as it comes."""

import re
from collections.abc import Iterable, Sequence

NARROW = 1
"""The gap of the listeners and of the summary of the bootstrap."""
WIDE = 5
"""The gap of all other tables."""

# What would break a row, or speak to the terminal instead of the reader; names in a dump are anybody's.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def table(rows: Iterable[Sequence[object]], gap: int = WIDE) -> str:
    """`rows`, the head first, all of the same number of cells. Every line ends with a newline, and keeps its spaces."""
    cells = [[_printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) + gap for column in zip(*cells, strict=True)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1] + "\n"
        for row in cells
    )


def _printable(cell: str) -> str:
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), cell)
