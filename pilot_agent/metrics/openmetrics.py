"""Families from one text format to the other, without a sample changing its name or its value.

Owns what either format can't say of the other's families; `joining` calls it. prometheus_client is imported late.
"""

import math
import re

from pilot_agent.metrics.exposition import SUFFIXES, Family, Sample, series_key

_BOUND = re.compile(rb'\b(le|quantile)="([^"]*)"')
_TO_TEXT = {b"unknown": b"untyped", b"info": b"gauge", b"stateset": b"gauge"}


def as_text(family: Family) -> Family:
    """An OpenMetrics family for text 0.0.4. `_created`, exemplars and units have no place there and are left out."""
    samples = [
        each._replace(time=_milliseconds(each.time), exemplar=b"")
        for each in family.samples
        if b"_created" not in SUFFIXES.get(family.kind, ()) or each.name != family.name + b"_created"
    ]
    name = family.name + {b"counter": b"_total", b"info": b"_info"}.get(family.kind, b"")
    text = Family(name, _TO_TEXT.get(family.kind, family.kind), _unquoted(family.help), samples=samples)
    text.is_declared, text.is_continued = family.is_declared, family.is_continued
    if family.kind == b"gaugehistogram":  # its samples go without a header: text knows no such kind
        text.kind, text.help, text.is_declared = b"", b"", False
    return text


def as_openmetrics(family: Family) -> Family:
    """A text family for OpenMetrics.

    There a counter's samples must end in `_total`. Renaming the others would break every dashboard, so they are
    declared `unknown` (docs/decisions: one format).
    """
    samples = [each._replace(time=_seconds(each.time), labels=_canonical(each.labels)) for each in family.samples]
    name, kind = family.name, family.kind
    if kind == b"counter":
        name, kind = (name[:-6], kind) if name.endswith(b"_total") and len(name) > 6 else (name, b"unknown")
    elif kind in (b"", b"untyped"):
        kind = b"unknown"
    return Family(name, kind, _quoted(family.help), b"", samples, True, family.is_continued)


def sound(family: Family) -> list[Family]:
    """`family` itself when OpenMetrics' rules hold for its samples, else the same samples as `unknown` families."""
    if family.unit and (family.kind in (b"info", b"stateset") or not family.name.endswith(b"_" + family.unit)):
        family.unit = b""
    family.kind = family.kind or b"unknown"
    return [family] if _is_sound(family) else untyped(family)


def untyped(family: Family) -> list[Family]:
    """One `unknown` family for each name that the samples have, each series once."""
    found: dict[bytes, dict[object, Sample]] = {}
    for sample in family.samples:
        found.setdefault(sample.name, {}).setdefault(series_key(sample), sample._replace(exemplar=b""))
    return [Family(name, b"unknown", b"", b"", list(series.values()), True) for name, series in found.items()]


def claimed(family: Family) -> list[bytes]:
    """The names that no other OpenMetrics family may have or make."""
    return [family.name, *(family.name + suffix for suffix in SUFFIXES.get(family.kind, ()) if suffix)]


def written(family: Family, *, has_header: bool) -> bytes:
    """The lines of a family, in either format."""
    lines: list[bytes] = []
    if has_header and family.is_declared:
        if family.help:
            lines.append(b"# HELP %b %b\n" % (family.name, family.help))
        if family.kind:
            lines.append(b"# TYPE %b %b\n" % (family.name, family.kind))
        if family.unit:
            lines.append(b"# UNIT %b %b\n" % (family.name, family.unit))
    for name, labels, value, time, exemplar in family.samples:
        end = (b" " + time if time else b"") + (b" # " + exemplar if exemplar else b"")
        lines.append(b"%b%b %b%b\n" % (name, labels, value, end))
    return b"".join(lines)


def _is_sound(family: Family) -> bool:
    if family.kind not in (b"counter", b"gauge", b"unknown") or any(each.time for each in family.samples):
        return _parses(family)
    if any(each.name.endswith(b"_created") or each.exemplar for each in family.samples):
        return _parses(family)
    if len({series_key(each) for each in family.samples}) < len(family.samples):
        return False
    return family.kind != b"counter" or all(float(each.value) >= 0 for each in family.samples)


def _parses(family: Family) -> bool:
    """By the parser of the official library: its rules for histograms alone fill pages. 25 us a sample."""
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    text = written(family, has_header=True) + b"# EOF\n"
    try:
        families = list(text_string_to_metric_families(text.decode()))  # type: ignore[no-untyped-call]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return False
    return len(families) == 1 and len(families[0].samples) == len(family.samples)


def _canonical(labels: bytes) -> bytes:
    return _BOUND.sub(_go_float, labels) if b"le=" in labels or b"quantile=" in labels else labels


def _go_float(match: re.Match[bytes]) -> bytes:
    from prometheus_client.utils import floatToGoString

    try:
        number = float(match[2])
    except ValueError:
        return match[0]
    if math.isnan(number):
        return match[0]
    text: str = floatToGoString(number)  # type: ignore[no-untyped-call]
    return b'%b="%b"' % (match[1], text.encode())


def _seconds(time: bytes) -> bytes:
    if not time:
        return b""
    milliseconds = int(time)
    sign = b"-" if milliseconds < 0 else b""
    return sign + b"%d.%03d" % divmod(abs(milliseconds), 1000)


def _milliseconds(time: bytes) -> bytes:
    seconds = float(time) if time else math.nan
    return b"%d" % round(seconds * 1000) if math.isfinite(seconds) else b""


def _quoted(help_: bytes) -> bytes:
    """OpenMetrics escapes quotes in HELP, text does not."""
    return re.sub(rb'\\\\|\\n|"|\\', lambda found: {b'"': b'\\"', b"\\": b"\\\\"}.get(found[0], found[0]), help_)


def _unquoted(help_: bytes) -> bytes:
    return re.sub(rb'\\\\|\\"', lambda found: b'"' if found[0] == b'\\"' else found[0], help_)
