"""Two samples of one table, real and made: weighted shares of cells, and what chance does to them.

Shares of the made rows are Hajek estimates, and the number of rows of either side is an effective
one: Kish's (1965, Survey Sampling) for weights, over a design effect where rows hang together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa

from safegen.measure.compared import Compared, Pair, compared, subset
from safegen.measure.measured import GROUPS
from safegen.tables.numbers import taken
from safegen.tables.schema import TableSchema
from safegen.tables.streams import stream

__all__ = [
    "FINE",
    "FREEDOM",
    "MOST",
    "Samples",
    "Shares",
    "samples",
    "student_point",
    "student_tail",
]

MOST = 50_000  # rows of a kind: beyond, a random part is used, and time stays bounded
FINE = 100  # groups of the real rows by which chance is played
FREEDOM = 2 * (GROUPS - 1)  # degrees of freedom of the jackknife's variance
_EXACT = 1_000  # rows in a cell, up to which the mean deviation of a binomial is exact

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Shares:
    """Shares of cells in one sample. value: (cells,). left: (GROUPS, cells), without each group of
    rows in turn. variance: (cells,), unbiased."""

    value: np.ndarray
    left: np.ndarray
    variance: np.ndarray

    def of(self, cells: np.ndarray) -> Shares:
        """The shares of these cells only, still of all rows."""
        return Shares(self.value[cells], self.left[:, cells], self.variance[cells])


@dataclass(frozen=True, eq=False)
class Samples:
    """Both samples in the same codes. weights: of the made rows, (m,), None where all are alike.

    groups: the jackknife's, (rows,) on each side. effects: the design effects, at least 1.
    """

    columns: Sequence[Compared]
    rows: tuple[int, int]
    weights: np.ndarray | None
    groups: Pair
    effects: tuple[float, float] = (1.0, 1.0)

    @cached_property
    def sizes(self) -> tuple[float, float]:
        """Effective numbers of independent rows: real, made."""
        made = float(self.rows[1])
        if self.weights is not None:
            made = float(self.weights.sum() ** 2 / (self.weights**2).sum())
        return self.rows[0] / self.effects[0], made / self.effects[1]

    @cached_property
    def _fine(self) -> np.ndarray:
        return np.random.default_rng(stream(self.rows[0], FINE)).permutation(self.rows[0]) % FINE

    @property
    def noise(self) -> float:
        """√(1/n + 1/m): the scale of all that chance does to a difference of shares."""
        return math.sqrt(sum(1 / size for size in self.sizes))

    def shares(self, codes: Pair, cells: int) -> tuple[Shares, Shares]:
        """Shares of cell numbers 0 … cells − 1 on either side."""
        real, made = (
            _shares(codes[side], cells, (None, self.weights)[side], self.groups[side])
            for side in (0, 1)
        )
        return tuple(  # type: ignore[return-value]
            Shares(s.value, s.left, s.variance * e)
            for s, e in zip((real, made), self.effects, strict=True)
        )

    def moves(self, codes: np.ndarray, cells: int) -> np.ndarray:
        """How far `FINE` random groups of the real rows move each share, (FINE, cells): for each
        cell their squares add up to the variance that a difference of a made and a real share has
        by chance, at these numbers of rows, and for two cells their products to the covariance."""
        rows, group = self.rows[0], self._fine
        counts = np.bincount(group * cells + codes, minlength=FINE * cells).reshape(FINE, cells)
        counts = counts - np.bincount(group, minlength=FINE)[:, None] * counts.sum(axis=0) / rows
        n, m = self.sizes
        found: np.ndarray = counts / rows * math.sqrt(self.effects[0] * (1 + n / m))
        return found

    def jackknife(
        self, real: Shares, made: Shares, statistic: Statistic
    ) -> tuple[float, np.ndarray]:
        """A statistic of (…, cells) shares of both sides, and its value without each group of rows
        of either: (2, GROUPS)."""
        value = float(statistic(real.value, made.value))
        return value, np.stack([statistic(real.left, made.value), statistic(real.value, made.left)])

    def error(self, left: np.ndarray) -> float:
        """The standard error that jackknife values, (2, GROUPS), give.

        Of a statistic of second order at its null it is too large by up to √2, never too small
        (Efron and Stein 1981, Annals of Statistics 9).
        """
        squares = ((left - left.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        return math.sqrt((GROUPS - 1) / GROUPS * float(squares @ np.asarray(self.effects)))

    def deviation(self, real: Shares, made: Shares) -> float:
        """Half the sum over cells of E|p̂ − q̂| where the samples are of one law, given how many
        rows both together have in each cell: the total variation that chance alone shows.

        De Moivre's mean deviation of a binomial (Diaconis and Zabell 1991, Statistical Science 6);
        of cells with more than a thousand rows that of the normal law.
        """
        n, m = self.sizes
        counts = real.value * n + made.value * m
        part = n / (n + m)
        table = _deviations(min(max(round(part, 6), 1e-6), 1 - 1e-6))
        exact = np.interp(counts, np.arange(len(table)), table)
        normal = np.sqrt(2 / math.pi * part * (1 - part) * counts)
        return float(np.where(counts < _EXACT, exact, normal).sum() / 2) * (1 / n + 1 / m)


def samples(
    real: pa.Table,
    made: pa.Table,
    schema: TableSchema,
    *,
    weights: np.ndarray | None = None,
    effects: tuple[float, float] = (1.0, 1.0),
    seed: int = 0,
) -> Samples:
    """Both tables, at most `MOST` random rows of each, ready for comparison.

    weights: of the made rows, (m,). effects: how many rows are worth one independent row, on
    either side. Raises: UsageError for a table without rows or a column.
    """
    picked = [subset(t.num_rows, MOST, seed) for t in (real, made)]
    parts = [
        t if len(rows) == t.num_rows else taken(t, rows)
        for t, rows in zip((real, made), picked, strict=True)
    ]
    columns = compared(parts[0], parts[1], schema)
    if weights is not None:
        weights = weights[picked[1]] if np.ptp(weights) else None
    groups = [
        np.random.default_rng(stream(seed, side)).permutation(len(rows)) % GROUPS
        for side, rows in enumerate(picked)
    ]
    rows = (len(picked[0]), len(picked[1]))
    return Samples(columns, rows, weights, (groups[0], groups[1]), effects)


def _shares(
    codes: np.ndarray, cells: int, weights: np.ndarray | None, groups: np.ndarray
) -> Shares:
    flat = groups * cells + codes
    counts = np.bincount(flat, weights, GROUPS * cells).reshape(GROUPS, cells)
    total = counts.sum(axis=0)
    whole = float(total.sum())
    value = total / whole
    rest = whole - counts.sum(axis=1, keepdims=True)
    left = (total - counts) / np.maximum(rest, np.finfo(float).tiny)
    n = len(codes)
    if weights is None:
        variance = value * (1 - value) / max(n - 1, 1)
    else:  # Σ w² (1 − p)² in the cell and Σ w² p² outside, over (Σ w)²
        squares = np.bincount(codes, weights**2, cells)
        variance = squares * (1 - 2 * value) + value**2 * squares.sum()
        variance = np.maximum(variance, 0.0) / whole**2 * n / max(n - 1, 1)
    return Shares(value, left, variance)


@lru_cache(maxsize=64)
def _deviations(part: float) -> np.ndarray:
    """E|X − N·part| for X binomial of N trials with chance `part`, N = 0 … _EXACT."""
    trials = np.arange(1, _EXACT + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, _EXACT + 2)))])
    above = np.floor(trials * part).astype(int) + 1
    choose = logs[trials] - logs[above] - logs[np.maximum(trials - above, 0)]
    chance = choose + above * math.log(part) + (trials - above + 1) * math.log1p(-part)
    return np.concatenate([[0.0], 2 * above * np.exp(chance)])


def student_tail(value: float) -> float:
    """The chance of Student's t beyond `value`, with the jackknife's degrees of freedom.

    For an even number of them a finite sum (Abramowitz and Stegun 1964, 26.7.4).
    """
    if math.isinf(value):
        return 0.0 if value > 0 else 1.0
    angle = math.atan(value / math.sqrt(FREEDOM))
    term, total = 1.0, 1.0
    for j in range(1, FREEDOM // 2):
        term *= (2 * j - 1) / (2 * j) * math.cos(angle) ** 2
        total += term
    return (1 - math.sin(angle) * total) / 2


@lru_cache(maxsize=64)
def student_point(alpha: float) -> float:
    """The value beyond which Student's t lies with the chance alpha, below ½."""
    low, high = 0.0, 1e3
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle) > alpha else (low, middle)
    return high
