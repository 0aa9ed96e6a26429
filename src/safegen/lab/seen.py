"""A quantity over the steps of a loop: what was seen over chains, and what theory says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from safegen.lab.plot import Line
from safegen.lab.store import Check

__all__ = ["Seen", "checked", "largest"]

FALSE_ALARM = 0.01
"""Of all checks of a run together, where theory holds: Bonferroni over checks and steps, which are
correlated, so it is less."""


def largest(comparisons: int) -> float:
    """The |z| that so many comparisons pass by chance in one run of a hundred, at most."""
    return NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / comparisons)


@dataclass(frozen=True)
class Seen:
    """Per step: the average over chains, its standard error, what theory says (None: nothing).
    `squares`: an average of squares, which is skewed as a χ² is."""

    value: np.ndarray
    error: np.ndarray
    expected: np.ndarray | None
    squares: bool = False

    @classmethod
    def of(
        cls,
        numbers: np.ndarray,
        expected: Sequence[float] | np.ndarray | None,
        squares: bool = False,
    ) -> Seen:
        """Of numbers (chains, steps)."""
        error = numbers.std(axis=0, ddof=1) / np.sqrt(len(numbers))
        wanted = None if expected is None else np.asarray(expected, dtype=float)
        return cls(numbers.mean(axis=0), error, wanted, squares)

    @property
    def z(self) -> float:
        """The largest distance from theory, in standard errors; infinite where something is seen
        that never varies and is not what theory says."""
        assert self.expected is not None
        gap, scale = np.abs(self.value - self.expected), np.abs(self.expected)
        certain = self.error <= 1e-12 * scale
        if (gap[certain] > 1e-9 * scale[certain]).any():
            return float("inf")
        value, error, expected = (x[~certain] for x in (self.value, self.error, self.expected))
        if not self.squares:
            return float((np.abs(value - expected) / error).max(initial=0.0))
        # A cube root makes it normal (Wilson and Hilferty 1931).
        small = (error / expected) ** 2 / 9  # 2 / (9 f), for the f of a χ² with this spread
        return float(
            (np.abs(np.cbrt(value / expected) - (1 - small)) / np.sqrt(small)).max(initial=0.0)
        )

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


def checked(named: Mapping[str, Seen]) -> list[Check]:
    """Whether theory, where there is one, is within the standard errors that chance allows, at
    every step of every quantity."""
    some = {name: seen for name, seen in named.items() if seen.expected is not None}
    limit = largest(max(sum(len(seen.value) for seen in some.values()), 1))
    return [
        # JSON has no infinity.
        Check(name, min(seen.z, 1e9), f"|z| < {limit:.2f}", seen.z < limit)
        for name, seen in some.items()
    ]
