"""Roots of several origins as one set: a union of texts, sorted, a newline between two and none at the end."""

from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.identity.trust import merged_roots

A, B, C = (f"-----BEGIN CERTIFICATE-----\n{each}\n-----END CERTIFICATE-----" for each in "ABC")


def test_the_union_is_sorted_and_has_no_newline_at_its_end() -> None:
    assert merged_roots([B, A], [C]) == f"{A}\n{B}\n{C}".encode()


def test_the_same_block_of_two_origins_is_there_once() -> None:
    assert merged_roots([A, B], [B, A]) == merged_roots([A, B])


def test_newlines_around_a_block_make_no_other_one() -> None:
    assert merged_roots([f"{A}\n"], [f"\n{A}"], [f"\r\n{A}\r\n"]) == A.encode()


def test_the_same_certificate_in_another_wrapping_stays_another_one() -> None:
    wrapped = A.replace("\nA\n", "\nA\n\n")
    assert merged_roots([A], [wrapped]).count(b"BEGIN CERTIFICATE") == 2


def test_nothing_is_nothing() -> None:
    assert merged_roots() == b""
    assert merged_roots([], ["", "\n"]) == b""


@given(st.lists(st.sampled_from([A, B, C])), st.lists(st.sampled_from([A, B, C])))
def test_neither_order_nor_repetition_changes_it(one: list[str], other: list[str]) -> None:
    assert merged_roots(one, other) == merged_roots(other, one) == merged_roots([*other, *one, *one])
