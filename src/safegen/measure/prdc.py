"""Precision, recall, density and coverage of generated rows.

Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models" (ICML); the first
two after Kynkäänniemi et al. 2019.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["prdc"]

_ROWS = 512  # of distances at once

Points = npt.NDArray[np.float64]


def prdc(real: npt.ArrayLike, made: npt.ArrayLike, k: int = 5) -> dict[str, float]:
    """The four measures in Euclidean space; real and made are (n, d) and (m, d), k < n, m.

    The k-th nearest neighbour among its own kind (itself not counted) is the radius of a point's
    ball. precision: share of made points in a real ball. recall: share of real points in a made
    ball. density: mean number of real balls around a made point, over k. coverage: share of real
    balls with a made point in them. Raises: ValueError when there are too few points.
    """
    a, b = (np.asarray(x, dtype=np.float64).reshape(len(x), -1) for x in (real, made))  # type: ignore[arg-type]
    if not 0 < k < min(len(a), len(b)):
        raise ValueError("k is at least 1 and below the number of points of either kind")
    radius_a, radius_b = _radii(a, k), _radii(b, k)
    inside = np.zeros(len(b), dtype=np.int64)
    recalled, covered = [], []
    for rows, distances in _distances(a, b):
        within = distances < radius_a[rows, None]
        inside += within.sum(axis=0)
        covered.append(within.any(axis=1))
        recalled.append((distances < radius_b[None, :]).any(axis=1))
    return {
        "precision": float((inside > 0).mean()),
        "recall": float(np.concatenate(recalled).mean()),
        "density": float(inside.mean() / k),
        "coverage": float(np.concatenate(covered).mean()),
    }


def _distances(a: Points, b: Points) -> Iterator[tuple[slice, Points]]:
    """Blocks of rows of the matrix of distances from a to b."""
    for start in range(0, len(a), _ROWS):
        some = a[start : start + _ROWS]
        squares = (some**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * some @ b.T
        yield slice(start, start + len(some)), np.sqrt(np.maximum(squares, 0.0))


def _radii(points: Points, k: int) -> Points:
    """Each point's distance to its k-th nearest neighbour; the nearest of all is itself."""
    return np.concatenate([np.partition(d, k, axis=1)[:, k] for _, d in _distances(points, points)])
