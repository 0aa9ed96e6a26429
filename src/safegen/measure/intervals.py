"""Confidence intervals for shares. Small, exact, without SciPy (the base install has none)."""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["difference_interval", "share_interval", "zero_upper"]


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
    hits_a: float, n_a: float, hits_b: float, n_b: float, alpha: float = 0.05
) -> tuple[float, float]:
    """Newcombe's hybrid score interval of p_a − p_b (Newcombe 1998, method 10)."""
    p_a = hits_a / n_a if n_a else 0.0
    p_b = hits_b / n_b if n_b else 0.0
    low_a, high_a = share_interval(hits_a, n_a, alpha)
    low_b, high_b = share_interval(hits_b, n_b, alpha)
    return (
        p_a - p_b - math.hypot(p_a - low_a, high_b - p_b),
        p_a - p_b + math.hypot(high_a - p_a, p_b - low_b),
    )


def zero_upper(n: int, alpha: float = 0.05) -> float:
    """The exact one-sided upper bound of a share of which n rows showed none."""
    return 1.0 if n == 0 else 1.0 - math.exp(math.log(alpha) / n)
