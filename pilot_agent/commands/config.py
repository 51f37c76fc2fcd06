"""`pilot-agent config`: the effective settings, each with its source, as `proxy` with the same flags would have them.

Owns how they are printed; `effective` finds them.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from pilot_agent.commands.effective import Row, Sections, sections
from pilot_agent.commands.parsing import Parsed
from pilot_agent.commands.preview import preview
from pilot_agent.errors import EXIT_OK, SettingsError

TITLES = {
    "proxyConfig": "PROXY CONFIG",
    "flags": "FLAGS",
    "environment": "ENVIRONMENT",
    "mesh": "MESH CONFIG (local mode)",
    "node": "NODE",
    "envoy": "ENVOY",
}
HEADINGS = Row("FIELD", "VALUE", "SOURCE")
WIDEST_VALUE = 60
"""A longer value does not push the sources of all others away."""


def run(parsed: Parsed) -> int:
    """Raises SettingsError as `proxy` does, and with --strict for any warning, after everything was printed."""
    desired = preview(parsed)
    found = sections(parsed, desired, is_whole=parsed.values["all"])
    if parsed.values["output"] == "json":
        text = json.dumps(as_json(found, desired.warnings), indent=2)
    else:
        text = "\n".join(as_table(found, desired.warnings, _terminal_width()))
    print(text, flush=True)  # before an error, where both go to one place
    if desired.warnings and parsed.values["strict"]:
        count = len(desired.warnings)
        raise SettingsError(f"{count} warning{'s' if count > 1 else ''}, which --strict takes for errors")
    return EXIT_OK


def as_json(found: Sections, warnings: Sequence[str]) -> dict[str, Any]:
    """Each row as `name: {"value", "source"}`, by section; then the warnings."""
    shown: dict[str, Any] = {
        section: {row.name: {"value": row.value, "source": row.source} for row in rows}
        for section, rows in found.items()
    }
    return shown | {"warnings": list(warnings)}


def as_table(found: Sections, warnings: Sequence[str], width: int | None) -> Iterator[str]:
    """Lines in columns, one block a section; cut to `width`, unless that is None."""
    rows = [Row(row.name, text_of(row.value), row.source) for block in found.values() for row in (HEADINGS, *block)]
    names = max(len(row.name) for row in rows)
    values = min(WIDEST_VALUE, max(len(row.value) for row in rows))
    for section, block in found.items():
        yield TITLES[section]
        for row in (HEADINGS, *block) if block else ():
            yield _cut(f"  {row.name:{names}}  {text_of(row.value):{values}}  {row.source}".rstrip(), width)
        if not block:
            yield "  nothing is set"
        yield ""
    yield "WARNINGS"
    yield from (f"  {warning}" for warning in warnings or ("none",))


def text_of(value: object) -> str:
    """In one line, and distinguishable: nothing is `-`, an empty text is `""`."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in value) or '""'
    return json.dumps(value)


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: max(0, width - 3)]}..."


def _terminal_width() -> int | None:
    """None when standard output is no terminal: then whatever reads it gets everything."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None
