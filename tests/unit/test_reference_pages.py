"""docs/reference is what `pilot-agent collateral` writes today: no page is missing, stale or left over."""

from pathlib import Path

import pytest

from pilot_agent.commands.collateral import pages

DIRECTORY = Path(__file__).resolve().parent.parent.parent / "docs" / "reference"
CURE = "run: python -m pilot_agent.commands.main collateral"


@pytest.mark.parametrize("name", pages())
def test_the_page_is_what_the_tables_say(name: str) -> None:
    path = DIRECTORY / name
    assert path.is_file(), f"{name} is missing; {CURE}"
    assert path.read_text(encoding="utf-8") == pages()[name], f"{name} is stale; {CURE}"


def test_there_are_no_other_pages() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == set(pages())
