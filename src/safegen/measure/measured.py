"""A measured number with its interval, and the two ways in which intervals are made here.

Distances between tables of counts get a grouped jackknife of two samples; areas under a ROC curve
get the influence function. Both are deterministic for a seed, and both cost one pass, where a
bootstrap would cost hundreds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["GROUPS", "Measured", "areas", "auc", "grouped", "jackknife"]

GROUPS = 20  # of the jackknife, in each of the two samples
STUDENT = 2.024  # the 97.5 % point of Student's t with 2 · (GROUPS − 1) degrees of freedom
NORMAL = 1.96

Distance = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Measured:
    """One number about generated rows against real ones."""

    name: str
    value: float
    interval: tuple[float, float]  # 95 %
    n: int  # generated rows that were looked at
    real_n: int  # real rows that were
    method: str
    seed: int | None  # of what was drawn at random; None when nothing was


def grouped(rows: int, seed: int) -> np.ndarray:
    """An order of the rows in which each of `GROUPS` slices is a random sample of them: (n,)."""
    return np.random.default_rng([seed, rows]).permutation(rows)


def jackknife(
    real: np.ndarray, made: np.ndarray, cells: int, distance: Distance
) -> tuple[float, np.ndarray]:
    """A distance of two samples of cells, and that without each group of rows in turn.

    real, made: cell numbers 0 … cells − 1 in the order of `grouped`. `distance` takes two
    vectors of shares, (cells,). Gives the value, and (2, GROUPS) values: without a group of the
    real rows, without a group of the generated ones.
    """
    counts = [np.bincount(x, minlength=cells).astype(float) for x in (real, made)]
    shares = [c / max(len(x), 1) for c, x in zip(counts, (real, made), strict=True)]
    left = np.empty((2, GROUPS))
    for side, cells_of in enumerate((real, made)):
        for group, part in enumerate(np.array_split(cells_of, GROUPS)):
            rest: np.ndarray = counts[side] - np.bincount(part, minlength=cells)
            rest /= max(len(cells_of) - len(part), 1)
            pair = (rest, shares[1]) if side == 0 else (shares[0], rest)
            left[side, group] = distance(*pair)
    return distance(shares[0], shares[1]), left


def mean_interval(
    found: Sequence[tuple[float, np.ndarray]], low: float, high: float
) -> tuple[float, tuple[float, float]]:
    """The mean of several `jackknife` values and its 95 % interval, within [low, high].

    Because all of them leave out the same rows, their correlation is in it (Efron and Tibshirani
    1993, An Introduction to the Bootstrap, chapter 11; Shao and Tu 1995 for groups of rows).
    """
    value = float(np.mean([v for v, _ in found]))
    left = np.mean([x for _, x in found], axis=0)
    spread = (GROUPS - 1) / GROUPS * ((left - left.mean(axis=1, keepdims=True)) ** 2).sum()
    half = STUDENT * math.sqrt(spread)
    return value, (max(low, value - half), min(high, value + half))


def auc(scores: np.ndarray, positive: np.ndarray) -> tuple[float, np.ndarray]:
    """The area under the ROC curve and each row's influence on it, (n,), of mean 0.

    Ties count half. The variance of the area is that of the influence over n (DeLong, DeLong and
    Clarke-Pearson 1988, Biometrics 44; in this form LeDell, Petersen and van der Laan 2015,
    Electronic Journal of Statistics 9). With one class only the area is ½.
    """
    n, above = len(scores), int(positive.sum())
    if above in (0, n):
        return 0.5, np.zeros(n)
    ranks, ranks_within = _ranks(scores), np.empty(n)
    for group in (positive, ~positive):
        ranks_within[group] = _ranks(scores[group])
    beaten = ranks - ranks_within  # rows of the other class below, ties half
    placement = np.where(positive, beaten / (n - above), 1.0 - beaten / above)
    area = float(placement[positive].mean())
    share = np.where(positive, above / n, 1 - above / n)
    return area, (placement - area) / share


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 1 … n; ties share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2)[inverse]
    return ranks


def areas(
    found: Sequence[tuple[float, np.ndarray]], weights: Sequence[float] | np.ndarray | None = None
) -> tuple[float, tuple[float, float]]:
    """The weighted mean of areas over the same rows, and its 95 % interval."""
    share = np.full(len(found), 1 / len(found)) if weights is None else np.asarray(weights, float)
    value = float(share @ [a for a, _ in found])
    influence = np.sum([w * x for w, (_, x) in zip(share, found, strict=True)], axis=0)
    half = NORMAL * float(np.sqrt((influence**2).sum())) / len(influence)
    return value, (max(0.0, value - half), min(1.0, value + half))
