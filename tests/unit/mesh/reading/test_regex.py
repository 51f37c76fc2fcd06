"""Regular expressions: what Envoy's RE2 takes and what it does not, each verdict checked with RE2 itself once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.mesh.reading.regex import complaint

TAKEN = [
    r"^/a(b|c)+$", r"\d+\z", "(?i)abc", "a(?i)b", "[[:alpha:]]+", r"\pL\p{Greek}", "(a{100}){10}", "a*?", r"\Qa(b\E",
    "(?P<n>a)", "(?<n>a)", "a{,2}", r"\-", r"\x{41}", r"\101", r"\0", "^*", "$+", r"[\w-a]", r"[\d-z]", "a||b", "()",
    "[[]", "[]a]", "[^]]", "a{2,}", "(?s-i:a)", "(?U)a+", "é+", "(a*)*", "a{", "a{1", "{", "[--a]", "[a&&b]", r"[\\Q]",
    "", "(?:a{30}){30}" * 9, ".{1000}" * 9, r"[\x{41}]",
]  # fmt: skip
REFUSED = [
    "(?=a)", "(?!a)", "(?<=a)", r"(a)\1", "(?P<n>a)(?P=n)", "(?#c)", "(?>a)", "a{1001}", "(a{100}){11}",
    "((a{10}){10}){11}", "a**", "a*+", "a{2}{3}", r"\Z", r"\k", r"\8", r"\u0041", "x{2,1}", "*a", "[a", "(", ")",
    "[z-a]", r"[a-\d]", r"[\b]", r"[\1]", "(?", "(?P<", "\\", "(?i)*", "((",
    r"\x{100}", r"[\x{100}]", ".{1000}" * 40,
]  # fmt: skip


@pytest.mark.parametrize("pattern", TAKEN)
def test_what_envoy_takes(pattern: str) -> None:
    assert complaint(pattern) == ""


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_envoy_refuses(pattern: str) -> None:
    assert complaint(pattern).isprintable() and complaint(pattern)


def test_depth_is_no_crash() -> None:
    assert complaint("(" * 1000 + ")" * 1000) in ("", "it is nested too deep")


@given(st.text() | st.lists(st.sampled_from([*r"()[]{}|^$*+?.\-:PQEpz1a,", "(?", "(?P<", r"\Q", "[:"])).map("".join))
def test_any_text_has_a_verdict(pattern: str) -> None:
    assert complaint(pattern).isprintable()
