"""What the copula's dependence rests on: correlations of scores, and of the normals behind them."""

from __future__ import annotations

import numpy as np
import pytest

from safegen.backends.sdv.dependence import TERMS, correlation, hermite, latent, overlap
from safegen.backends.sdv.marginals import Quantiles

ROWS = 200_000


def test_a_constant_column_correlates_with_nothing() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=1000)
    columns = [x, 0.5 * x + rng.normal(size=1000), np.full(1000, 3.0)]
    found = correlation(columns)
    assert found[:2, :2] == pytest.approx(np.corrcoef(columns[:2]))
    assert found[2].tolist() == [0.0, 0.0, 1.0]
    coefficients = np.eye(1, TERMS).repeat(3, axis=0)
    same = Quantiles.empirical(columns[2])
    coefficients[2] = hermite(same.cuts, same.means)
    normals = latent(found, coefficients, np.ones((3, 3)))
    assert normals[:2, :2] == pytest.approx(found[:2, :2], abs=1e-6)
    assert normals[2].tolist() == [0.0, 0.0, 1.0]


def test_a_point_mass_does_not_shrink_the_dependence() -> None:
    rng = np.random.default_rng(2)
    normals = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], ROWS)
    numbers = np.maximum(normals[:, 0] - np.quantile(normals[:, 0], 0.99), 0)
    quantiles = Quantiles.empirical(numbers)
    coefficients = np.zeros((2, TERMS))
    coefficients[0], coefficients[1, 0] = hermite(quantiles.cuts, quantiles.means), 1.0
    fitted = correlation([Quantiles.scores(numbers), normals[:, 1]])
    assert fitted[0, 1] < 0.2  # of the scores
    assert latent(fitted, coefficients, np.ones((2, 2)))[0, 1] == pytest.approx(0.6, abs=0.01)


def test_columns_with_gaps_share_the_rows_that_both_have() -> None:
    rng = np.random.default_rng(3)
    masks = rng.random((2, 500)) < [[0.7], [0.2]]
    whole = np.stack([np.ones(500, bool), masks[0], np.ones(500, bool), masks[1]]).astype(float)
    assert overlap({1: masks[0], 3: masks[1]}, 4) == pytest.approx(whole @ whole.T / 500)
    assert (overlap({}, 3) == 1).all()
