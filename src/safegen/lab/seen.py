"""A quantity over the steps of a loop: what was seen over chains, and what theory says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safegen.lab.plot import Line
from safegen.lab.store import Check

__all__ = ["LARGEST", "Seen"]

LARGEST = 4.0
"""Of |z| over all steps: some 800 correlated comparisons pass it by chance in one run of twenty."""


@dataclass(frozen=True)
class Seen:
    """Per step: the average over chains, its standard error, what theory says (None: nothing)."""

    value: np.ndarray
    error: np.ndarray
    expected: np.ndarray | None

    @classmethod
    def of(cls, numbers: np.ndarray, expected: Sequence[float] | np.ndarray | None) -> Seen:
        """Of numbers (chains, steps)."""
        error = numbers.std(axis=0, ddof=1) / np.sqrt(len(numbers))
        wanted = None if expected is None else np.asarray(expected, dtype=float)
        return cls(numbers.mean(axis=0), error, wanted)

    @property
    def z(self) -> float:
        """The largest distance from theory, in standard errors; infinite where something is seen
        that never varies and is not what theory says."""
        assert self.expected is not None
        gap = np.abs(self.value - self.expected)
        certain = self.error <= 1e-12
        if (gap[certain] > 1e-9).any():
            return float("inf")
        return float((gap[~certain] / self.error[~certain]).max(initial=0.0))

    def check(self, name: str) -> Check:
        """Whether theory is within four standard errors at every step."""
        z = min(self.z, 1e9)  # JSON has no infinity
        return Check(name, z, f"|z| < {LARGEST:g}", z < LARGEST)

    def line(self, name: str, style: int) -> Line:
        """Its curve, with 95 % intervals and theory."""
        half = 1.96 * self.error
        return Line(
            name,
            list(range(1, len(self.value) + 1)),
            self.value.tolist(),
            (self.value - half).tolist(),
            (self.value + half).tolist(),
            () if self.expected is None else self.expected.tolist(),
            style,
        )
