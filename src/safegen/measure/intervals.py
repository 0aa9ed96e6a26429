"""Confidence intervals for shares. Small, exact, without SciPy (the base install has none)."""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = [
    "ABLE",
    "ABLE_AT",
    "difference_interval",
    "share_interval",
    "surely_above",
    "zero_upper",
]

ABLE = 1.96 + NormalDist().inv_cdf(0.99)
"""Half a 95 % interval, and how far chance moves its middle in all but one of a hundred releases
without a leak, in standard errors. Where so wide an interval about nothing found would reach the
margin, it is chance that decides whether a release without a leak is met: no verdict is due."""
ABLE_AT = 2 * (1 - NormalDist().cdf(ABLE))


def share_interval(hits: float, n: float, alpha: float = 0.05) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); (0, 1) for n = 0.

    Neither need be whole: an effective number of rows is not.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1 - alpha / 2)
    p = hits / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def difference_interval(
    hits_a: float, n_a: float, hits_b: float, n_b: float, alpha: float = 0.05, times: float = 1.0
) -> tuple[float, float]:
    """Newcombe's hybrid score interval of p_a − times · p_b (Newcombe 1998, method 10)."""
    p_a = hits_a / n_a if n_a else 0.0
    p_b = hits_b / n_b if n_b else 0.0
    low_a, high_a = share_interval(hits_a, n_a, alpha)
    low_b, high_b = share_interval(hits_b, n_b, alpha)
    return (
        p_a - times * p_b - math.hypot(p_a - low_a, times * (high_b - p_b)),
        p_a - times * p_b + math.hypot(high_a - p_a, times * (p_b - low_b)),
    )


def zero_upper(n: int, alpha: float = 0.05) -> float:
    """The exact one-sided upper bound of a share of which n rows showed none."""
    return 1.0 if n == 0 else 1.0 - math.exp(math.log(alpha) / n)


def surely_above(
    hits_a: float, n_a: float, hits_b: float, n_b: float, *, times: float, alpha: float
) -> bool:
    """Whether the share of a is above `times` that of b; said in error with a chance of alpha.

    Given their sum, counts of rare events are binomial, with a chance that only the ratio of their
    rates decides (Przyborowski and Wilenski 1940, Biometrika 31): an exact test. Counts that are
    not whole are rounded against saying so; shares that are not small have less spread than is
    reckoned with here.
    """
    a, b = math.floor(hits_a + 1e-9), math.ceil(hits_b - 1e-9)
    chance = times * n_a / (times * n_a + n_b)
    if a <= chance * (a + b):
        return False
    logs = math.lgamma(a + b + 1), math.log(chance), math.log1p(-chance)
    tail = 0.0
    for k in range(a, a + b + 1):
        coefficient = logs[0] - math.lgamma(k + 1) - math.lgamma(a + b - k + 1)
        term = math.exp(coefficient + k * logs[1] + (a + b - k) * logs[2])
        tail += term
        if tail > alpha:
            return False
        if term < 1e-18:  # the terms only get smaller from here on
            break
    return True
