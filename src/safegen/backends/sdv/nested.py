"""Rows of the same parent: how much alike their scores are, and how to draw them so again.

The mean of a parent's few rows varies more than what the parent itself brings, by what the rows
vary around it: a variance component for each (Searle, Casella and McCulloch 1992, "Variance
Components", chapter 3; the estimates are those of the analysis of variance). Scores are
(rows, features); `at` is each row's parent, of `parents`.
"""

from __future__ import annotations

import numpy as np

__all__ = ["centred", "components", "deviations_of_means", "spreads", "sums"]


def sums(scores: np.ndarray, at: np.ndarray, parents: int) -> np.ndarray:
    """The sum of each parent's rows, (parents, features)."""
    found = np.empty((parents, scores.shape[1]))
    for i, column in enumerate(scores.T):
        found[:, i] = np.bincount(at, column, parents)
    return found


def centred(scores: np.ndarray, at: np.ndarray, parents: int) -> np.ndarray:
    """The scores around the mean of those of the same parent."""
    counts = np.maximum(np.bincount(at, minlength=parents), 1)[:, None]
    found: np.ndarray = scores - (sums(scores, at, parents) / counts)[at]
    return found


def components(scores: np.ndarray, at: np.ndarray, parents: int) -> np.ndarray:
    """The variances between parents and within them, (2, features).

    The one between is below 0 where the rows of a parent are less alike than those of others, such
    as kinds of which each parent has one.
    """
    counts = np.bincount(at, minlength=parents)
    rows, groups = len(at), int((counts > 0).sum())
    found = np.zeros((2, scores.shape[1]))
    if not groups:
        return found
    if rows > groups:
        found[1] = (centred(scores, at, parents) ** 2).sum(axis=0) / (rows - groups)
    if groups > 1:
        means = sums(scores, at, parents) / np.maximum(counts, 1)[:, None]
        squares = counts @ (means - scores.mean(axis=0)) ** 2
        effective = (rows - (counts.astype(float) ** 2).sum() / rows) / (groups - 1)
        found[0] = (squares / (groups - 1) - found[1]) / effective
    # Below this the mean of the most rows that a parent has would have no variance left.
    found[0] = np.maximum(found[0], -0.9 * found[1] / counts.max())
    return found


def deviations_of_means(variances: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How much means of so many rows vary, (parents, features): the fewer rows, the more."""
    between, within = variances
    found: np.ndarray = np.sqrt(
        np.maximum(between + within / np.maximum(counts, 1)[:, None], 1e-12)
    )
    return found


def spreads(scores: np.ndarray, at: np.ndarray, parents: int) -> np.ndarray:
    """Each parent's standard deviation of its rows, (parents, features).

    Few rows say little of it, so a variance is drawn towards the common one, by the root of its
    credibility (Bühlmann and Straub 1970): so that variances differ as much as the true ones do.
    """
    free = np.maximum(np.bincount(at, minlength=parents) - 1, 0)
    several = free > 0
    if not several.any():
        return np.zeros((parents, scores.shape[1]))
    squares = sums(centred(scores, at, parents) ** 2, at, parents)
    common = squares.sum(axis=0) / free.sum()
    freedom = free[several][:, None]
    own = squares[several] / freedom
    # A variance of normals with f degrees of freedom has itself the variance 2 σ⁴ / f.
    excess = (freedom * (own - common) ** 2 - 2 * common**2).sum(axis=0)
    between = np.maximum(excess / (freedom + 2).sum(), 0.0)
    noise = 2 * (common**2 + between) / freedom
    variances = np.tile(common, (parents, 1))
    credibility = np.divide(between, between + noise, where=between > 0, out=np.zeros_like(own))
    variances[several] += np.sqrt(credibility) * (own - common)
    found: np.ndarray = np.sqrt(np.maximum(variances, 0.0))
    return found
