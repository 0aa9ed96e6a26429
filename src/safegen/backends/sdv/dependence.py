"""From the correlation that SDV fits to scores, to that of the normals behind the rows.

A level, a mass or a gap hides its normal; a score only stands in for it, and correlations of
scores are too small. Drawing rows from them would shrink the dependence a second time (for two
balanced binary columns, to 40 %). Mehler's formula says by how much, so it can be undone:
E[f(X) g(Y)] = Σ ρᵏ fₖ gₖ for the Hermite coefficients of f and g (Lancaster 1957, "Some
properties of the bivariate normal distribution considered in the form of a contingency table",
Biometrika 44). For numbers it is the polyserial, for levels the polychoric correlation (Olsson
1979, Psychometrika 44), by moments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from safegen.tables.streams import stream

__all__ = [
    "TERMS",
    "correlation",
    "hermite",
    "latent",
    "nearest_correlation",
    "order_levels",
    "overlap",
]

TERMS = 60  # of the series: at |ρ| = 0.98 what is left out is below 0.3 % for two medians
LARGEST = 0.98
SWEEPS = 3
ORDER_ROWS = 20_000
PROJECTIONS = 100
FLOOR = 1e-6  # the smallest eigenvalue that is left


def hermite(cuts: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Hermite coefficients 1 … TERMS of the step function that is `means[i]` on (cuts[i],
    cuts[i+1]), scaled to unit variance under the standard normal; all 0 for a constant. `cuts`
    runs from −∞ to ∞."""
    inner = cuts[1:-1]
    density = np.exp(-0.5 * inner**2) / np.sqrt(2 * np.pi)
    jumps = np.diff(means) * density  # ∫ f heₖ φ = Σ jump · heₖ₋₁(cut) φ(cut) / √k
    coefficients = np.empty(TERMS)
    before, now = np.zeros_like(inner), np.ones_like(inner)
    for k in range(1, TERMS + 1):
        coefficients[k - 1] = jumps @ now / np.sqrt(k)
        before, now = now, (inner * now - np.sqrt(k - 1) * before) / np.sqrt(k)
    variance = _variance(cuts, means)
    return coefficients / np.sqrt(variance) if variance > 0 else np.zeros(TERMS)


def _variance(cuts: np.ndarray, means: np.ndarray) -> float:
    from scipy.special import ndtr

    shares = np.diff(ndtr(cuts))
    return float(shares @ means**2 - (shares @ means) ** 2)


def correlation(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Pearson's correlation of complete columns, (d, d); 0 with a column that never varies."""
    scores = np.stack(columns)
    scores -= scores.mean(axis=1, keepdims=True)
    scores /= np.maximum(np.sqrt((scores**2).sum(axis=1, keepdims=True)), 1e-300)
    found: np.ndarray = scores @ scores.T
    np.fill_diagonal(found, 1.0)
    return found


def overlap(partly: Mapping[int, np.ndarray], size: int) -> np.ndarray:
    """The share of rows that two columns have in common, (size, size), from the masks of those
    columns that are there for some rows only."""
    found = np.ones((size, size))
    if partly:
        some = list(partly)
        masks = np.stack(list(partly.values())).astype(float)
        found[some, :] = masks.mean(axis=1)[:, None]
        found[:, some] = masks.mean(axis=1)
        found[np.ix_(some, some)] = masks @ masks.T / masks.shape[1]
    return found


def latent(fitted: np.ndarray, coefficients: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The correlation of the normals, (d, d), from that of the scores.

    coefficients: (d, TERMS), from `hermite`; 1, 0, 0, … for a number without ties. seen: (d, d),
    what is left of a correlation when a number is there for some rows only (1 where all are). The
    series rises with ρ, so bisection inverts it.
    """
    first, second = np.triu_indices(len(fitted), 1)
    products = coefficients[first] * coefficients[second]
    target = fitted[first, second] / np.maximum(seen[first, second], 1e-6)
    low, high = np.full(len(first), -LARGEST), np.full(len(first), LARGEST)
    for _ in range(40):
        middle = (low + high) / 2
        value = np.zeros_like(middle)
        for k in range(products.shape[1] - 1, -1, -1):  # Horner
            value = (value + products[:, k]) * middle
        above = value > target
        high, low = np.where(above, middle, high), np.where(above, low, middle)
    found = np.eye(len(fitted))
    some = products.any(axis=1)  # a constant depends on nothing
    found[first, second] = found[second, first] = np.where(some, (low + high) / 2, 0.0)
    return found


def nearest_correlation(matrix: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """The nearest positive definite correlation that is 0 where `zeros` (bool, (d, d)) says so.

    Alternating projections with Dykstra's correction (Higham 2002, IMA J. Numer. Anal. 22); what
    is still missing after 100 rounds is made up by shrinking towards independence.
    """

    def allowed(a: np.ndarray) -> np.ndarray:
        a = np.where(zeros, 0.0, (a + a.T) / 2)
        np.fill_diagonal(a, 1.0)
        return a

    current, correction = allowed(matrix), np.zeros_like(matrix)
    for _ in range(PROJECTIONS):
        values, vectors = np.linalg.eigh(current - correction)
        if values[0] >= FLOOR:
            break
        positive = (vectors * np.maximum(values, FLOOR)) @ vectors.T
        correction = positive - (current - correction)
        current = allowed(positive)
    smallest = float(np.linalg.eigvalsh(current)[0])
    shrink = (FLOOR - smallest) / (1.0 - smallest) if smallest < FLOOR else 0.0
    return (1.0 - shrink) * current + shrink * np.eye(len(current))


def order_levels(
    columns: Sequence[np.ndarray], codes: Sequence[np.ndarray | None], seed: int
) -> list[np.ndarray | None]:
    """An order of each nominal feature's levels in which a single normal can drive them.

    A copula sees levels on a line, and the alphabet is a poor line. Each feature's levels are
    put in the order of their first optimal score against all other features (Hirschfeld 1935;
    Gifi 1990), in turn, three times. columns: the scores of each, (n,); codes: one per feature,
    None where the order is given. Gives, per feature, the levels from lowest to highest.
    """
    if len(columns[0]) > ORDER_ROWS:
        rng = np.random.default_rng(stream(seed, 2))
        rows = np.sort(rng.choice(len(columns[0]), ORDER_ROWS, False))
        columns = [c[rows] for c in columns]
        codes = [None if c is None else c[rows] for c in codes]
    scores = np.stack([(c - c.mean()) / (c.std() or 1.0) for c in columns], axis=1)
    orders: list[np.ndarray | None] = [None] * len(codes)
    for _ in range(SWEEPS):
        for i, levels in enumerate(codes):
            if levels is None or scores.shape[1] < 2:
                continue
            count = int(levels.max()) + 1
            weights = np.maximum(np.bincount(levels, minlength=count), 1)
            others = [j for j in range(scores.shape[1]) if j != i]
            sums = np.stack([np.bincount(levels, scores[:, j], count) for j in others], axis=1)
            left = np.linalg.svd(sums / np.sqrt(weights)[:, None], full_matrices=False)[0][:, 0]
            value = left / np.sqrt(weights)
            orders[i] = np.argsort(value, kind="stable")
            centred = value[levels] - value[levels].mean()
            scores[:, i] = centred / (centred.std() or 1.0)
    return orders
