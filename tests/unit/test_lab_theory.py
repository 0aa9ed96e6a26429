"""The closed forms of the Gaussian loops: against their limits, and against each other."""

from __future__ import annotations

import math

import pytest

from safegen.lab import theory


def test_a_replace_loop_loses_all_and_its_mean_walks_away() -> None:
    found = theory.replace(100, 5_000)
    assert found[0].variance == pytest.approx(0.99)
    assert found[-1].variance < 1e-20
    assert all(m.variance + m.of_mean == pytest.approx(1.0) for m in found)
    assert theory.spread(100, 11) == pytest.approx(math.sqrt((101 / 99) ** 11 - 1))


def test_an_accumulating_loop_stays_above_its_limit() -> None:
    """∏ (1 − 1/(n i²)) = sin(π/√n)/(π/√n), Euler's product."""
    n = 50
    limit = math.sin(math.pi / math.sqrt(n)) / (math.pi / math.sqrt(n))
    found = theory.accumulate(n, 2_000)
    assert found[0].variance == pytest.approx(1 - 1 / n)
    assert found[-1].variance == pytest.approx(limit, rel=1e-4)
    assert all(m.variance >= limit for m in found)


@pytest.mark.parametrize("rho", [0.5, 1.0, 4.0, 9.0])
@pytest.mark.parametrize("n", [50, 500])
def test_keeping_all_real_rows_costs_less_than_half_more_variance(n: int, rho: float) -> None:
    found = theory.anchored(n, rho, 3_000)
    ratio = found[-1].of_mean * n
    assert ratio == pytest.approx(1 + rho / (1 + 2 * rho), rel=0.06 if n == 50 else 0.006)
    assert all(m.of_mean * n < 1.5 for m in found)
    assert found[0] == theory.real_only(n, 1)[0]


def test_fresh_rows_only_is_the_control_and_none_is_replace() -> None:
    control, replaced = theory.fresh(100, 1.0, 30), theory.fresh(100, 0.0, 30)
    for a, b in zip(control, theory.real_only(100, 30), strict=True):
        assert (a.variance, a.of_mean) == pytest.approx((b.variance, b.of_mean))
    for a, b in zip(replaced, theory.replace(100, 30), strict=True):
        assert (a.variance, a.of_mean) == pytest.approx((b.variance, b.of_mean))


@pytest.mark.parametrize(("n", "share"), [(100, 0.1), (500, 0.5)])
def test_fresh_rows_settle_where_nothing_moves_any_more(n: int, share: float) -> None:
    """The fixed point: E = 1 − 1/D, v = 1/D with D = 1 − a + a n (2 − a)."""
    found = theory.fresh(n, share, 3_000)[-1]
    d = 1 - share + share * n * (2 - share)
    assert found.variance == pytest.approx(1 - 1 / d, rel=1e-3)
    assert found.of_mean == pytest.approx(1 / d, rel=1e-3)


def test_survival_of_few_copies_is_a_branching_process() -> None:
    f = [0.0]
    for _ in range(10):
        f.append(math.exp(f[-1] - 1))
    for k in (1, 5, 20):
        exact = theory.survival(2_000, 0.0, 11, copies=k)
        assert exact == pytest.approx([1 - x**k for x in f], abs=0.004)
    assert theory.survival(500, 0.01, 1)[0] == pytest.approx(1 - 0.99**500)
