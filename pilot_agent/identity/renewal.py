"""When a certificate is renewed: Istio's formula (reference security-xds.md, section 3.4) with a floor. Pure."""

from pilot_agent.identity.options import Renewal

LEAST_S = 1.0
"""Whatever the CA says: an expired certificate, or a ratio of 1, must not make a loop without a pause."""


def renewal_delay(renewal: Renewal, created: float, not_after: float, now: float, chance: float) -> float:
    """Seconds from `now` until a certificate that came at `created` is renewed; LEAST_S at least.

    `chance` is from 0 to 1: where in the jitter's range this one lies, so that a fleet does not renew in step.
    """
    grace = min(1.0, max(0.0, renewal.ratio + renewal.jitter * (2 * chance - 1)))
    return max(LEAST_S, not_after - grace * (not_after - created) - now)
