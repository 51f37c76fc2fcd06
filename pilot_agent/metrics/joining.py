"""Makes one exposition of what several sources sent: a family is declared once, and its samples stand together.

Sees the blocks in the order in which they are sent. Only families known to be shared are held, until the end of the
scrape; which ones those are is learned (docs/decisions: one format). Called by `scrape`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from pilot_agent.log import Scope
from pilot_agent.metrics import openmetrics
from pilot_agent.metrics.account import SourceAccount
from pilot_agent.metrics.exposition import Family, Reader, Sample, headers_of, is_valid_text, series_key

HELD_BYTES = 1024 * 1024
"""The most that one scrape holds of shared families."""

_NAMES = 20_000
_LEARNED = 1_000
_SAMPLE_BYTES = 200


class Origin(NamedTuple):
    """Where a block came from, and in which format. `is_trusted`: its lines need no check."""

    account: SourceAccount
    is_openmetrics: bool
    is_trusted: bool = False


@dataclass(slots=True)
class Learned:
    """What scrapes of one format know of those before: names of shared families, and what was warned about."""

    shared: set[bytes] = field(default_factory=set)
    warned: set[tuple[str, bytes]] = field(default_factory=set)

    def share(self, name: bytes) -> None:
        if len(self.shared) < _LEARNED:
            self.shared.add(name)

    def is_news(self, label: str, what: bytes) -> bool:
        if (label, what) in self.warned or len(self.warned) >= _LEARNED:
            return False
        self.warned.add((label, what))
        return True


class _Fate(Enum):
    """What became of the family a source is in, for the blocks that go on with it."""

    SENT = 1
    HELD = 2
    DROPPED = 3


class _Progress:
    """How far one source is."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.reader = Reader(is_openmetrics=origin.is_openmetrics)
        self.fate = _Fate.SENT
        self.kind = b""
        self.has_samples = False


class Joiner:
    """For one scrape."""

    def __init__(self, learned: Learned, log: Scope, *, is_openmetrics: bool) -> None:
        self._learned, self._log, self._is_openmetrics = learned, log, is_openmetrics
        self._shared = frozenset(learned.shared)
        self._seen: dict[bytes, bytes] = {}
        self._held: dict[bytes, list[tuple[_Progress, Family]]] = {}
        self._held_bytes = 0
        self._progress: dict[int, _Progress] = {}
        self._last: tuple[_Progress, bytes] | None = None

    def join(self, origin: Origin, block: bytes) -> bytes:
        """What of `block`, which is whole lines, may be sent now."""
        progress = self._progress.get(id(origin.account))
        if progress is None:
            progress = self._progress[id(origin.account)] = _Progress(origin)
        if self._passes(progress, block):
            return block
        families = [own for read in progress.reader.read(block) for own in self._own(read, origin)]
        return b"".join([self._place(progress, family) for family in families])

    def rest(self) -> bytes:
        """The families that were held, each together; call it once, at the end."""
        blocks = [self._joined(name, parts) for name, parts in self._held.items()]
        self._held = {}
        for progress in self._progress.values():
            self._settle(progress)
        return b"".join(blocks)

    def _passes(self, progress: _Progress, block: bytes) -> bool:
        """The way of nearly every block: valid, and no family in it is anybody else's."""
        origin = progress.origin
        if self._is_openmetrics or origin.is_openmetrics:
            return False
        goes_on = progress.fate is _Fate.SENT and progress.reader.is_in_a_family
        if not (goes_on or block.startswith((b"# TYPE ", b"# HELP "))):
            return False
        if not origin.is_trusted and not is_valid_text(block):
            return False
        headers = headers_of(block)
        names = {name for name, _ in headers}
        if len(names) < len(headers) or not names.isdisjoint(self._seen) or not names.isdisjoint(self._shared):
            return False
        if headers:
            for name, kind in headers:
                self._claim(name, kind)
            progress.reader.goes_on_with(*headers[-1])
            progress.fate = _Fate.SENT
        progress.has_samples = True
        return True

    def _own(self, family: Family, origin: Origin) -> Iterable[Family]:
        """`family` in the format of the answer."""
        if not self._is_openmetrics:
            return [openmetrics.as_text(family) if origin.is_openmetrics else family]
        given = family if origin.is_openmetrics else openmetrics.as_openmetrics(family)
        return [given] if given.is_continued else openmetrics.sound(given)

    def _place(self, progress: _Progress, family: Family) -> bytes:
        progress.has_samples = progress.has_samples or bool(family.samples)
        if family.is_continued and family.is_declared:
            return self._continue(progress, family)
        family.is_declared = family.is_declared or self._is_openmetrics
        if family.name in self._shared and self._held_bytes < HELD_BYTES:
            self._hold(progress, family)
            return b""
        return self._send(progress, family)

    def _continue(self, progress: _Progress, family: Family) -> bytes:
        if progress.fate is _Fate.HELD:
            self._hold(progress, family)
        elif progress.fate is _Fate.SENT:
            if not self._is_openmetrics or self._last == (progress, family.name):
                return openmetrics.written(family, has_header=False)
            self._drop(progress, family, "another source came in between")
        return b""

    def _hold(self, progress: _Progress, family: Family) -> None:
        progress.fate = _Fate.HELD
        self._held.setdefault(family.name, []).append((progress, family))
        self._held_bytes += _SAMPLE_BYTES * (1 + len(family.samples))

    def _send(self, progress: _Progress, family: Family) -> bytes:
        clash = self._clash(family)
        if clash is not None and self._is_openmetrics and family.kind == b"counter":
            # `x` and `x_total` are two families in text, but one name in OpenMetrics.
            lower = [each for each in openmetrics.untyped(family) if self._clash(each) is None]
            if lower and sum(len(each.samples) for each in lower) == len(family.samples) and clash != b"counter":
                return b"".join(self._send(progress, each) for each in lower)
        if clash is not None:
            self._learned.share(family.name)
            if family.is_declared and clash != family.kind and b"" not in (clash, family.kind):
                self._drop(progress, family, f"it is a {family.kind.decode()} here and a {clash.decode()} before")
                return b""
            if self._is_openmetrics:
                self._drop(progress, family, "another source has it too; from the next scrape on they are joined")
                return b""
        elif family.is_declared:
            for name in openmetrics.claimed(family) if self._is_openmetrics else [family.name]:
                self._claim(name, family.kind)
        progress.fate, self._last = _Fate.SENT, (progress, family.name)
        return openmetrics.written(family, has_header=clash is None)

    def _clash(self, family: Family) -> bytes | None:
        """The kind of the family that has one of these names already; None when nobody has."""
        names = openmetrics.claimed(family) if self._is_openmetrics else [family.name]
        return next((self._seen[name] for name in names if name in self._seen), None)

    def _claim(self, name: bytes, kind: bytes) -> None:
        if len(self._seen) < _NAMES:
            self._seen[name] = kind

    def _drop(self, progress: _Progress, family: Family, reason: str) -> None:
        account = progress.origin.account
        progress.fate = _Fate.DROPPED
        account.dropped_families += 1
        if self._learned.is_news(account.label, family.name):
            self._log.warn(f"metrics of {account.name}: {family.name.decode()[:200]} is left out: {reason}")

    def _joined(self, name: bytes, parts: list[tuple[_Progress, Family]]) -> bytes:
        if self._is_openmetrics and len({family.kind for _, family in parts}) > 1:
            parts, apart = _without_counters(parts)
        else:
            apart = []
        sent = [self._send(progress, family) for progress, family in apart]
        return b"".join([self._join_parts(name, parts), *sent]) if parts else b"".join(sent)

    def _join_parts(self, name: bytes, parts: list[tuple[_Progress, Family]]) -> bytes:
        kind = next((family.kind for _, family in parts if family.kind), b"")
        whole = Family(name, kind, is_declared=any(family.is_declared for _, family in parts))
        whole.help = next((family.help for _, family in parts if family.help), b"")
        whole.unit = next((family.unit for _, family in parts if family.unit), b"")
        keys: set[object] = set()
        for progress, family in parts:
            if family.kind not in (kind, b""):
                self._drop(progress, family, f"it is a {family.kind.decode()} here and a {kind.decode()} before")
                continue
            kept = list(_new(family.samples, keys))
            progress.origin.account.dropped_samples += len(family.samples) - len(kept)
            whole.samples += kept
        families = openmetrics.sound(whole) if self._is_openmetrics else [whole]
        last = parts[-1][0]
        return b"".join(self._send(last, family) for family in families)

    def _settle(self, progress: _Progress) -> None:
        account, bad = progress.origin.account, progress.reader.bad_lines
        account.dropped_lines += bad
        account.is_garbled = bool(bad) and not progress.has_samples
        if account.is_garbled:
            account.failures += 1
            account.last_error = "no line of the answer is a sample"
        if bad and self._learned.is_news(account.label, b""):
            self._log.warn(f"metrics of {account.name}: {bad} lines that are no samples are left out")


def _without_counters(
    parts: list[tuple[_Progress, Family]],
) -> tuple[list[tuple[_Progress, Family]], list[tuple[_Progress, Family]]]:
    """The parts that are no counters, and the counters under their samples' names, where `x_total` is not `x`."""
    counters = [(progress, family) for progress, family in parts if family.kind == b"counter"]
    others = [(progress, family) for progress, family in parts if family.kind != b"counter"]
    whole = Family(b"", samples=list(_new((each for _, family in counters for each in family.samples), set())))
    return others, [(counters[0][0], family) for family in openmetrics.untyped(whole)]


def _new(samples: Iterable[Sample], keys: set[object]) -> Iterator[Sample]:
    for sample in samples:
        key = (series_key(sample), sample.time)
        if key not in keys:
            keys.add(key)
            yield sample
