"""Intervals: published values, and coverage by simulation (seed stated)."""

import numpy as np
import pytest

from safegen.measure.intervals import difference_interval, share_interval, zero_upper


def test_wilson_matches_the_published_example() -> None:
    """81 of 263: 0.2553 to 0.3662 (Newcombe 1998, table I, method 3)."""
    low, high = share_interval(81, 263)
    assert low == pytest.approx(0.2553, abs=1e-4)
    assert high == pytest.approx(0.3662, abs=1e-4)


def test_newcombe_matches_the_published_example() -> None:
    """56/70 − 48/80: 0.0524 to 0.3339 (Newcombe 1998, table II, method 10)."""
    low, high = difference_interval(56, 70, 48, 80)
    assert low == pytest.approx(0.0524, abs=1e-4)
    assert high == pytest.approx(0.3339, abs=1e-4)


@pytest.mark.parametrize(("p", "q", "n"), [(0.02, 0.02, 500), (0.3, 0.25, 200), (0.5, 0.9, 80)])
def test_the_difference_is_covered_in_95_of_100_samples(p: float, q: float, n: int) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.binomial(n, p, 2000), rng.binomial(2 * n, q, 2000)
    covered = 0
    for x, y in zip(a, b, strict=True):
        low, high = difference_interval(int(x), n, int(y), 2 * n)
        covered += low <= p - q <= high
    assert covered / 2000 > 0.93


def test_none_of_n_bounds_the_share_by_three_over_n() -> None:
    assert zero_upper(1000) == pytest.approx(3.0 / 1000, rel=0.01)
    assert zero_upper(0) == 1.0
    assert share_interval(0, 0) == (0.0, 1.0)
