"""Synthetic depth: how many models stand between a row and reality.

A real row has depth 0; the output of a model has 1 + the depth of its training rows. For a
mixture the *effective* depth is the weighted mean, and a loop's additive bias is proportional to
it (one refit adds b, so after replacing t times the bias is t·b): replace t times, t; accumulate,
the harmonic number H_t; a constant real share w, (1 − (1 − w)^t) / w.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["child_depth", "pooled_depth"]


def pooled_depth(parts: Iterable[tuple[float, float]]) -> float:
    """The effective depth of a mixture of (weight, effective depth) parts; 0 for no rows.

    Raises: ValueError for a negative weight or depth.
    """
    total = weighted = 0.0
    for weight, depth in parts:
        if weight < 0 or depth < 0:
            raise ValueError("weights and depths are not negative")
        total += weight
        weighted += weight * depth
    return weighted / total if total else 0.0


def child_depth(parts: Iterable[tuple[float, float]]) -> float:
    """The effective depth of what a model trained on this mixture puts out."""
    return 1.0 + pooled_depth(parts)
