"""The rules against recordings of Istio's own tool: what iptables is given, what it says then, and nft's script."""

import pytest

from pilot_agent.interception.build import build, of_family
from pilot_agent.interception.canonical import canonical
from pilot_agent.interception.nftables import script
from pilot_agent.interception.rules import Family
from pilot_agent.interception.ruleset import chains_of, restore_text, saved_lines
from tests.unit.interception.recordings import Recording, recordings

EACH = pytest.mark.parametrize("case", recordings(), ids=lambda case: case.name)
FAMILIES: tuple[Family, ...] = (4, 6)


@EACH
def test_what_iptables_is_given_is_istios(case: Recording) -> None:
    capture = case.options().capture
    rules = build(capture)
    texts = [restore_text(of_family(rules, family)).splitlines() for family in FAMILIES[: 1 + capture.has_ipv6]]
    assert texts == case.restore_input


@EACH
def test_what_iptables_save_says_is_foretold(case: Recording) -> None:
    capture = case.options().capture
    rules = canonical(build(capture))
    foretold = {
        family: {
            table: saved_lines(chains, family)
            for table, chains in (chains_of(of_family(rules, family)).items() if family in capture.families else ())
        }
        for family in FAMILIES
    }
    recorded = {
        family: {table: lines for table, lines in tables.items() if lines} for family, tables in case.saved.items()
    }
    assert foretold == recorded


@EACH
def test_the_native_script_is_istios(case: Recording) -> None:
    assert script(build(case.options().capture)) == case.nft
