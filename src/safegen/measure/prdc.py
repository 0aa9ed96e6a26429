"""Precision, recall, density and coverage of generated rows.

Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models" (ICML); the first
two after Kynkäänniemi et al. 2019.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from safegen.measure.intervals import share_interval
from safegen.measure.measured import GROUPS, Measured, grouped, mean_interval

__all__ = ["prdc"]

_NAMES = ("precision", "recall", "density", "coverage")

_ROWS = 512  # of distances at once

Points = npt.NDArray[np.float64]
Balls = tuple[Points, Points]  # centres, squared radii


def prdc(
    real: npt.ArrayLike, made: npt.ArrayLike, k: int = 5, *, seed: int = 0
) -> dict[str, Measured]:
    """The four measures in Euclidean space, by name; real is (n, d) and made (m, d).

    The k-th nearest neighbour among its own kind (itself not counted) is the radius of a point's
    ball. precision: share of made points in a real ball. recall: share of real points in a made
    ball. density: mean number of real balls around a made point, over k. coverage: share of real
    balls with a made point in them.

    The intervals are those of the other measures, a jackknife of groups of points of both kinds; a
    bootstrap would repeat points, and a point repeated is its own nearest neighbour. A share's
    interval holds Wilson's too, for where all is 0 or 1 the groups do not differ.

    Raises: ValueError when there are too few points: k is below the number of either kind, less
    one group.
    """
    a, b = (np.asarray(x, dtype=np.float64).reshape(len(x), -1) for x in (real, made))  # type: ignore[arg-type]
    groups = [np.array_split(grouped(len(x), seed), GROUPS) for x in (a, b)]
    if not 0 < k < min(len(x) - len(parts[0]) for x, parts in zip((a, b), groups, strict=True)):
        raise ValueError("k is at least 1 and below the number of points of either kind")
    balls_a, balls_b = (a, _radii(a, k)), (b, _radii(b, k))
    values = _measures(balls_a, balls_b, k)
    left = np.array(
        [
            [_measures(_without(g, a, k), balls_b, k) for g in groups[0]],
            [_measures(balls_a, _without(g, b, k), k) for g in groups[1]],
        ]
    )
    points = {"precision": len(b), "recall": len(a), "coverage": len(a)}  # that are shares of
    how = f"k = {k}; 95 % by a jackknife of {GROUPS} groups of points of each kind"
    found = {}
    for i, name in enumerate(_NAMES):
        high = 1.0 if name in points else np.inf
        value, interval = mean_interval([(values[i], left[..., i])], 0.0, high)
        if name in points:
            wilson = share_interval(value * points[name], points[name])
            interval = min(interval[0], wilson[0]), max(interval[1], wilson[1])
        method = f"{how}, and Wilson's" if name in points else how
        found[name] = Measured(name, value, interval, len(b), len(a), method, seed)
    return found


def _measures(real: Balls, made: Balls, k: int) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage."""
    (a, radius_a), (b, radius_b) = real, made
    inside = np.zeros(len(b), dtype=np.int64)
    recalled, covered = [], []
    for rows, distances in _distances(a, b):
        within = distances < radius_a[rows, None]
        inside += within.sum(axis=0)
        covered.append(within.any(axis=1))
        recalled.append((distances < radius_b[None, :]).any(axis=1))
    return (
        float((inside > 0).mean()),
        float(np.concatenate(recalled).mean()),
        float(inside.mean() / k),
        float(np.concatenate(covered).mean()),
    )


def _without(group: npt.NDArray[np.int64], points: Points, k: int) -> Balls:
    rest = np.delete(points, group, axis=0)
    return rest, _radii(rest, k)


def _distances(a: Points, b: Points) -> Iterator[tuple[slice, Points]]:
    """Blocks of rows of the matrix of squared distances from a to b."""
    for start in range(0, len(a), _ROWS):
        some = a[start : start + _ROWS]
        squares = (some**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * some @ b.T
        yield slice(start, start + len(some)), np.maximum(squares, 0.0)


def _radii(points: Points, k: int) -> Points:
    """Each point's squared distance to its k-th nearest neighbour; the nearest is itself."""
    return np.concatenate([np.partition(d, k, axis=1)[:, k] for _, d in _distances(points, points)])
