"""When a certificate is renewed: Istio's formula, its clamps, and the floor."""

from hypothesis import given
from hypothesis import strategies as st

from pilot_agent.identity.options import Renewal
from pilot_agent.identity.renewal import LEAST_S, renewal_delay

HOUR, DAY = 3600.0, 86400.0
NOW = 1_800_000_000.0

shares = st.floats(0, 1)


def delay(renewal: Renewal, lifetime_s: float = DAY, age_s: float = 0.0, chance: float = 0.5) -> float:
    created = NOW - age_s
    return renewal_delay(renewal, created, created + lifetime_s, NOW, chance)


def test_half_of_the_lifetime_by_default_and_a_hundredth_of_jitter() -> None:
    renewal = Renewal()
    assert delay(renewal) == DAY / 2
    assert delay(renewal, chance=0.0) == DAY * 0.51
    assert delay(renewal, chance=1.0) == DAY * 0.49


def test_the_grace_is_a_share_before_the_end() -> None:
    assert delay(Renewal(ratio=0.1, jitter=0)) == DAY * 0.9
    assert delay(Renewal(ratio=0.9, jitter=0), HOUR) == renewal_delay(Renewal(ratio=0.9, jitter=0), 0, HOUR, 0, 0.3)


def test_what_has_passed_of_the_lifetime_counts() -> None:
    assert delay(Renewal(jitter=0), age_s=HOUR) == DAY / 2 - HOUR
    assert delay(Renewal(jitter=0), age_s=DAY / 2) == LEAST_S
    assert delay(Renewal(jitter=0), age_s=2 * DAY) == LEAST_S, "expired long ago"


def test_a_ratio_of_one_and_no_lifetime_at_all_keep_a_floor() -> None:
    assert delay(Renewal(ratio=1, jitter=0)) == LEAST_S
    assert delay(Renewal(), lifetime_s=0) == LEAST_S
    assert delay(Renewal(), lifetime_s=-DAY) == LEAST_S


def test_the_jitter_never_leads_outside_of_the_lifetime() -> None:
    assert delay(Renewal(ratio=0, jitter=1), chance=0.0) == DAY, "a grace below nothing is nothing"
    assert delay(Renewal(ratio=1, jitter=1), chance=1.0) == LEAST_S, "a grace above all is all"


@given(shares, shares, st.floats(1, 10 * 365 * DAY), st.floats(-HOUR, 400 * DAY), shares)
def test_it_is_between_the_floor_and_the_end_and_as_the_formula_says(
    ratio: float, jitter: float, lifetime_s: float, age_s: float, chance: float
) -> None:
    created = NOW - age_s
    found = renewal_delay(Renewal(86400, ratio, jitter), created, created + lifetime_s, NOW, chance)
    left = created + lifetime_s - NOW
    assert LEAST_S <= found <= max(LEAST_S, left)
    latest = left - max(0.0, ratio - jitter) * lifetime_s
    soonest = left - min(1.0, ratio + jitter) * lifetime_s
    slack = 1e-5  # of floats this large
    assert soonest - slack <= found <= max(LEAST_S, latest + slack)


@given(shares, shares, shares)
def test_a_larger_chance_is_never_later(ratio: float, one: float, other: float) -> None:
    renewal = Renewal(86400, ratio, 0.3)
    assert delay(renewal, chance=max(one, other)) <= delay(renewal, chance=min(one, other))
