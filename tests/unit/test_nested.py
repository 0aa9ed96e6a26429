"""Rows of one parent are as much alike as they were: variances between parents and within them."""

from __future__ import annotations

import numpy as np
import pytest

from safegen.backends.sdv.nested import centred, components, deviations_of_means, spreads

PARENTS = 4_000


def family(between: float, widths: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of 0 to 8 children: the parent's part, and around it normals of its own width."""
    rng = np.random.default_rng(seed)
    counts = rng.choice([0, 1, 2, 3, 8], PARENTS, p=[0.1, 0.3, 0.3, 0.2, 0.1])
    at = np.repeat(np.arange(PARENTS), counts)
    part = np.sqrt(between) * rng.normal(size=PARENTS)
    scores = part[at] + widths[at] * rng.normal(size=len(at))
    return scores[:, None], at


def test_variance_components_are_those_that_were_planted() -> None:
    scores, at = family(0.3, np.full(PARENTS, 0.8))
    between, within = components(scores, at, PARENTS)[:, 0]
    assert between == pytest.approx(0.3, abs=0.03)
    assert within == pytest.approx(0.64, abs=0.03)


def test_unrelated_rows_have_no_variance_between_parents() -> None:
    scores, at = family(0.0, np.ones(PARENTS))
    assert components(scores, at, PARENTS)[0, 0] == pytest.approx(0.0, abs=0.04)


def test_rows_that_avoid_each_other_have_a_negative_one_and_means_still_vary() -> None:
    at = np.repeat(np.arange(PARENTS), 2)
    scores = np.tile([-1.0, 1.0], PARENTS)[:, None]
    variances = components(scores, at, PARENTS)
    assert variances[0, 0] < -0.5
    assert (deviations_of_means(variances, np.array([0, 1, 2, 50])) > 0).all()


def test_means_of_fewer_rows_vary_more() -> None:
    scores, at = family(0.3, np.full(PARENTS, 0.8))
    variances = components(scores, at, PARENTS)
    counts = np.bincount(at, minlength=PARENTS)
    means = np.bincount(at, scores[:, 0], PARENTS) / np.maximum(counts, 1)
    expected = deviations_of_means(variances, counts)[:, 0]
    for n in (1, 2, 8):
        assert means[counts == n].std() == pytest.approx(expected[counts == n][0], rel=0.08)


def test_equal_widths_stay_equal_though_few_rows_say_otherwise() -> None:
    scores, at = family(0.3, np.full(PARENTS, 0.8))
    found = spreads(scores, at, PARENTS)[:, 0]
    assert found.mean() == pytest.approx(0.8, abs=0.03)
    assert found.std() < 0.1  # the raw ones: about .3


def test_widths_that_differ_keep_differing_as_much() -> None:
    widths = np.random.default_rng(1).choice([0.4, 1.6], PARENTS)
    scores, at = family(0.3, widths)
    found = spreads(scores, at, PARENTS)[:, 0]
    many = np.bincount(at, minlength=PARENTS) >= 3
    assert (found[many] ** 2).std() == pytest.approx((widths**2).std(), rel=0.25)
    assert np.corrcoef(found[many], widths[many])[0, 1] > 0.6


@pytest.mark.parametrize("at", [[], [0], [0, 1, 2], [1, 1, 1]])
def test_few_or_no_rows_give_finite_numbers(at: list[int]) -> None:
    parents, rows = np.array(at, dtype=int), np.arange(2.0 * len(at)).reshape(-1, 2)
    variances = components(rows, parents, 4)
    assert np.isfinite(variances).all()
    assert np.isfinite(deviations_of_means(variances, np.bincount(parents, minlength=4))).all()
    assert np.isfinite(spreads(rows, parents, 4)).all()
    assert np.isfinite(centred(rows, parents, 4)).all()
