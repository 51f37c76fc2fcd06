"""The order in which istioctl lists rows that its comparison leaves open.

Its sort is unstable (Go's `sort.Slice`, a pattern-defeating quicksort): rows that compare equal come out in an order
that only the same sequence of comparisons and swaps gives. Up to twelve rows that is an insertion sort, and stable; a
sidecar with four ports has more filter chains, any mesh more routes. The comparison of routes isn't even an order. So
this follows the published algorithm (Peters, "Pattern-defeating Quicksort") with Go's constants, step by step;
`tests/golden/views/order.json` holds what Go did.
"""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

_SMALL = 12
"""Up to here an insertion sort is the whole work."""
_NINTHER_FROM = 50
"""From here on the pivot is a median of medians, and a nearly sorted range may be repaired."""
_REPAIRS = 5
_MOST_EXCHANGES = 12
"""As many while choosing a pivot mean that the range is in descending order."""


def ordered(rows: Iterable[T], precedes: Callable[[T, T], bool]) -> list[T]:
    """`rows` as Go's sort.Slice leaves them, when `precedes(a, b)` is what it is given as less."""
    sorting = _Sorting(list(rows), precedes)
    sorting.sort(0, len(sorting.rows), len(sorting.rows).bit_length())
    return sorting.rows


class _Sorting(Generic[T]):
    """All positions are of `rows`; ranges are half open."""

    def __init__(self, rows: list[T], precedes: Callable[[T, T], bool]) -> None:
        self.rows, self._precedes = rows, precedes

    def less(self, one: int, other: int) -> bool:
        return self._precedes(self.rows[one], self.rows[other])

    def swap(self, one: int, other: int) -> None:
        rows = self.rows
        rows[one], rows[other] = rows[other], rows[one]

    def sort(self, start: int, end: int, patience: int) -> None:
        """`patience`: how many unbalanced partitions there may be before a heap sort takes over."""
        is_balanced = was_partitioned = True
        while end - start > _SMALL:
            if patience == 0:
                return self._heap_sort(start, end)
            if not is_balanced:
                self._shuffle(start, end)
                patience -= 1
            pivot, exchanges = self._choose_pivot(start, end)
            if exchanges == _MOST_EXCHANGES:
                self.rows[start:end] = self.rows[start:end][::-1]
                pivot, exchanges = start + end - 1 - pivot, 0
            if is_balanced and was_partitioned and exchanges == 0 and self._repair(start, end):
                return None
            if start > 0 and not self.less(start - 1, pivot):
                # Nothing in here is below the row before it: those equal to the pivot are in their place.
                start = self._gather_equal(start, end, pivot)
                continue
            middle, was_partitioned = self._partition(start, end, pivot)
            left, right = middle - start, end - middle
            is_balanced = min(left, right) >= (end - start) // 8
            if left < right:
                self.sort(start, middle, patience)
                start = middle + 1
            else:
                self.sort(middle + 1, end, patience)
                end = middle
        return self._insertion_sort(start, end)

    def _insertion_sort(self, start: int, end: int) -> None:
        for position in range(start + 1, end):
            self._sink(position, start)

    def _sink(self, position: int, lowest: int) -> None:
        """Move a row towards the front while it precedes its neighbour."""
        while position > lowest and self.less(position, position - 1):
            self.swap(position, position - 1)
            position -= 1

    def _heap_sort(self, start: int, end: int) -> None:
        size = end - start
        for root in range((size - 1) // 2, -1, -1):
            self._sift(start, root, size)
        for last in range(size - 1, -1, -1):
            self.swap(start, start + last)
            self._sift(start, 0, last)

    def _sift(self, start: int, root: int, size: int) -> None:
        while (child := 2 * root + 1) < size:
            if child + 1 < size and self.less(start + child, start + child + 1):
                child += 1
            if not self.less(start + root, start + child):
                return
            self.swap(start + root, start + child)
            root = child

    def _shuffle(self, start: int, end: int) -> None:
        """Exchange three rows around the middle with ones that a generator of fixed seed picks."""
        size = end - start
        state, mask = size, (1 << size.bit_length()) - 1
        around = start + size // 4 * 2 - 1
        for position in range(around, around + 3):
            state ^= state << 13 & 0xFFFF_FFFF_FFFF_FFFF
            state ^= state >> 7
            state ^= state << 17 & 0xFFFF_FFFF_FFFF_FFFF
            picked = state & mask
            self.swap(position, start + (picked - size if picked >= size else picked))

    def _choose_pivot(self, start: int, end: int) -> tuple[int, int]:
        """The pivot's position, and how many exchanges the comparison of the candidates would take."""
        size = end - start
        candidates = [start + size // 4 * quarter for quarter in (1, 2, 3)]
        exchanges = 0
        if size >= _NINTHER_FROM:
            for index, candidate in enumerate(candidates):
                candidates[index], more = self._median(candidate - 1, candidate, candidate + 1)
                exchanges += more
        pivot, more = self._median(*candidates)
        return pivot, exchanges + more

    def _median(self, low: int, middle: int, high: int) -> tuple[int, int]:
        exchanges = 0
        if self.less(middle, low):
            low, middle = middle, low
            exchanges += 1
        if self.less(high, middle):
            middle = high
            exchanges += 1
        if self.less(middle, low):
            middle = low
            exchanges += 1
        return middle, exchanges

    def _repair(self, start: int, end: int) -> bool:
        """Sort a range that is sorted but for a few rows; False, with some of the work done, where it is not."""
        position = start + 1
        for _ in range(_REPAIRS):
            while position < end and not self.less(position, position - 1):
                position += 1
            if position == end:
                return True
            if end - start < _NINTHER_FROM:
                return False
            self.swap(position, position - 1)
            if position - start >= 2:
                self._sink(position - 1, 0)
            for later in range(position + 1, end):
                if not self.less(later, later - 1):
                    break
                self.swap(later, later - 1)
        return False

    def _gather_equal(self, start: int, end: int, pivot: int) -> int:
        """Bring what equals the pivot to the front; where the rest begins."""
        self.swap(start, pivot)
        low, high = start + 1, end - 1
        while True:
            while low <= high and not self.less(start, low):
                low += 1
            while low <= high and self.less(start, high):
                high -= 1
            if low > high:
                return low
            self.swap(low, high)
            low, high = low + 1, high - 1

    def _partition(self, start: int, end: int, pivot: int) -> tuple[int, bool]:
        """Put what precedes the pivot before it; where the pivot is then, and whether nothing had to move."""
        self.swap(start, pivot)
        low, high, has_moved = start + 1, end - 1, False
        while True:
            while low <= high and self.less(low, start):
                low += 1
            while low <= high and not self.less(high, start):
                high -= 1
            if low > high:
                self.swap(high, start)
                return high, not has_moved
            self.swap(low, high)
            low, high, has_moved = low + 1, high - 1, True
