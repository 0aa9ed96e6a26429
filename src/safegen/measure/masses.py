"""Whether tails and rare levels have the mass that they have in reality.

Per cell the ratio of made to real share, on the log scale, with the delta method's error
√(Var p̂ / p² + Var q̂ / q²). Over all cells together two means: what is kept, of min(1, ratio), and
what is grown, of max(1, ratio); a mean of ratios would hide that one tail has eaten the other.
Chance lowers the one and lifts the other, by σ/√(2π) in a cell whose ratio is off by σ: the mean as
it is bounds the truth from the safe side, and with that correction from the other (the function is
concave, or convex).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from safegen.measure.compared import Compared, Pair
from safegen.measure.faultless import Plays, factors, reach
from safegen.measure.rare import RARE, ROWS
from safegen.measure.samples import Samples, Shares, student_point, student_tail
from safegen.measure.verdicts import MISSED, Cell, normal_point

__all__ = [
    "EXPECTED",
    "TAILS",
    "Masses",
    "mass_cells",
    "ratio_error",
    "rare_levels",
    "tail_gap",
    "tails",
]

TAILS = (0.01, 0.05)  # shares of the real rows at each end of a numeric column
EXPECTED = 10.0  # effective made rows that a faithful generator would have there: fewer say nothing


@dataclass(frozen=True, eq=False)
class Masses:
    """Parts of columns: shares on both sides, and what they are called.

    known: (parts,), the share of the rows of which the shares are, those with a value. moves:
    (FINE, parts), of `Samples.moves`, up to a factor.
    """

    names: Sequence[str]
    real: Shares
    made: Shares
    known: np.ndarray
    moves: np.ndarray
    few: int  # that too few rows are in, or would be

    def sizes(self, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        """Per part the effective numbers of rows of which the shares are: real, made."""
        n, m = samples.sizes
        return self.known * n, self.known * m


def tails(samples: Samples) -> Masses:
    """The lower and upper 1 % and 5 % of each numeric column, as the real rows have them.

    Shares are of the values that are there. The cut is a value of the real rows and lies outside
    the tail, so that a point mass at it is in none (as `measure.profile` has it).
    """
    return _gathered(samples, _tails(samples))


def tail_gap(samples: Samples) -> float | None:
    """The mean over tails of the log of made to real mass; None without a tail. Half a row more on
    either side, so that an empty tail counts and is not the end of it."""
    masses = tails(samples)
    if not masses.names:
        return None
    n, m = masses.sizes(samples)
    ratio = (masses.made.value + 0.5 / m) / (masses.real.value + 0.5 / n)
    return float(np.log(ratio).mean())


def rare_levels(samples: Samples) -> Masses:
    """Each level of at most 1 % of the real rows, and missing where that is as rare."""
    return _gathered(samples, _rare(samples))


def mass_cells(
    samples: Samples,
    masses: Masses,
    pooled: tuple[float, float],
    single: tuple[float, float],
    alpha: float,
) -> tuple[list[Cell], list[Cell]]:
    """What is kept and grown over all parts, and each part. pooled, single: the least and largest
    ratio, of all parts together and of each.

    A verdict is due on both means or on neither: a growth that is ruled out says nothing about a
    loss.
    """
    if not masses.names:
        return [], []
    sides = [(np.minimum, pooled[0]), (np.maximum, pooled[1])]
    judged = all(_may_judge(samples, masses, *side, alpha) for side in sides)
    both = [_pooled(samples, masses, *side, alpha, judged) for side in sides]
    return both, _cells(samples, masses, single, alpha)


def ratio_error(
    share: np.ndarray, sizes: tuple[float | np.ndarray, float | np.ndarray]
) -> np.ndarray:
    """The error of the log of a ratio of two shares, of samples of these sizes, where both are
    `share`: √((1 − p)/p · (1/n + 1/m))."""
    error: np.ndarray = np.sqrt((1 - share) / share * sum(1 / n for n in sizes))
    return error


def _pooled(
    samples: Samples,
    masses: Masses,
    bound: np.ufunc,
    margin: float,
    alpha: float,
    judged: bool,
) -> Cell:
    kept = bound is np.minimum

    def mean(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        ratio = q / np.maximum(p, np.finfo(float).tiny)
        found: np.ndarray = bound(1.0, ratio).mean(axis=-1)
        return found

    value, left = samples.jackknife(masses.real, masses.made, mean)
    error = samples.error(left)
    share = masses.real.value
    chance = np.sqrt(masses.real.variance + share * (1 - share) / masses.sizes(samples)[1]) / share
    shift = float(chance.mean()) / math.sqrt(2 * math.pi) * (1 if kept else -1)
    half = student_point(alpha) * error
    ends = (value - half, value + shift + half) if kept else (value + shift - half, value + half)
    beyond = (margin - value - shift) * (1 if kept else -1)
    what = "kept" if kept else "grown"
    return Cell(
        f"mass {what} over {len(masses.names)} parts",
        value,
        max(0.0, ends[0]),
        ends[1],
        student_tail(beyond / error if error else math.copysign(math.inf, beyond)),
        ends[0] >= margin if kept else ends[1] <= margin,
        judged,
        (margin, None) if kept else (None, margin),
    )


def _may_judge(
    samples: Samples, masses: Masses, bound: np.ufunc, margin: float, alpha: float
) -> bool:
    """Whether a generator without fault would clear the margin in the mean.

    Its ratios are played: log-normal, with the error of either count and the correlations that
    parts have by sharing rows. Only ratios on the bound's side move the mean, by Xσ from the real
    rows and √X σ from the made ones.
    """
    kept = bound is np.minimum
    share = masses.real.value
    of_real, of_made = ((1 - share) / (share * size) for size in masses.sizes(samples))
    moves = masses.moves / np.maximum(np.linalg.norm(masses.moves, axis=0), np.finfo(float).tiny)
    # The real shares are raised by their relative variance (`_raised`).
    ratio = np.exp(factors() @ moves * np.sqrt(of_real + of_made) - of_real)
    beyond = ratio < 1 if kept else ratio > 1
    error = np.where(beyond, np.sqrt(ratio**2 * of_real + ratio * of_made), 0.0)
    sign = -1 if kept else 1
    plays = Plays(sign * bound(1.0, ratio).mean(axis=1), error @ moves.T / len(share) * sign)
    return reach(plays, student_point(alpha)) <= sign * margin


def _cells(
    samples: Samples, masses: Masses, margins: tuple[float, float], alpha: float
) -> list[Cell]:
    # Half a row more on either side: the log of no rows has no error (Gart and Zweifel 1967).
    n, m = masses.sizes(samples)
    p, q = masses.real.value + 0.5 / n, masses.made.value + 0.5 / m
    extra = 0.5 / m**2
    error = np.sqrt(masses.real.variance / p**2 + (masses.made.variance + extra) / q**2)
    ratio = np.log(q / p)
    low, high = (math.log(x) for x in margins)
    z = normal_point(alpha)
    faithful = ratio_error(masses.real.value, (n, m))
    power = normal_point(MISSED / (2 * len(ratio)))
    room = min(-low, high)
    normal = NormalDist()
    found = []
    for k, name in enumerate(masses.names):
        below, above = (low - ratio[k]) / error[k], (ratio[k] - high) / error[k]
        found.append(
            Cell(
                name,
                math.exp(ratio[k]),
                math.exp(ratio[k] - z * error[k]),
                math.exp(ratio[k] + z * error[k]),
                normal.cdf(-max(below, above)),
                bool(-below >= z and -above >= z),
                bool((z + power) * faithful[k] <= room),
                margins,
            )
        )
    return found


_Part = tuple[str, Shares, Shares, float, np.ndarray]  # also what is known of them, and moves


def _gathered(samples: Samples, parts: Iterator[_Part]) -> Masses:
    """The parts that are worth a look: enough real rows, and made ones expected."""
    every = list(parts)
    n, m = samples.sizes
    worth = [
        part
        for part in every
        if float(part[1].value[0]) * part[3] * n >= ROWS
        and float(part[1].value[0]) * part[3] * m >= EXPECTED
    ]
    if not worth:
        none = Shares(np.empty(0), np.empty((0, 0)), np.empty(0))
        return Masses([], none, none, np.empty(0), np.empty((0, 0)), len(every))
    real, made = _joined([_raised(p[1]) for p in worth]), _joined([p[2] for p in worth])
    known, moves = np.array([p[3] for p in worth]), np.stack([p[4] for p in worth], axis=1)
    return Masses([p[0] for p in worth], real, made, known, moves, len(every) - len(worth))


def _joined(parts: Sequence[Shares]) -> Shares:
    return Shares(
        np.concatenate([s.value for s in parts]),
        np.concatenate([s.left for s in parts], axis=1),
        np.concatenate([s.variance for s in parts]),
    )


def _tails(samples: Samples) -> Iterator[_Part]:
    for column in samples.columns:
        if column.values is None:
            continue
        real = column.values[0]
        known = real[~np.isnan(real)]
        if not len(known):
            continue
        for tail in TAILS:
            cuts = (
                np.quantile(known, tail, method="higher"),
                np.quantile(known, 1 - tail, method="lower"),
            )
            codes = tuple(_sides(values, *cuts) for values in column.values)
            real_shares, made_shares = samples.shares((codes[0], codes[1]), 4)
            there = 1 - float(real_shares.value[-1])
            moves = samples.moves(codes[0], 4)
            for side, name in enumerate(("low", "high")):
                share = _of_known(real_shares, side)
                if share.value[0]:
                    made = _of_known(made_shares, side)
                    own = moves[:, side] + share.value[0] * moves[:, -1]
                    yield f"{column.name}#{name} {tail:.0%}", share, made, there, own


def _sides(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below the lower cut, 1 above the upper one, 2 between, 3 missing."""
    codes = np.where(values < low, 0, np.where(values > high, 1, 2))
    codes[np.isnan(values)] = 3
    return codes


_NONE = 1e-100  # a share of no rows, whose square is still a number


def _of_known(shares: Shares, cell: int) -> Shares:
    """A cell's share of all but the last cell, 0 where these are none. The variance is that of few
    rows in the cell."""
    there = max(1 - float(shares.value[-1]), _NONE)
    left = np.maximum(1 - shares.left[:, -1:], _NONE)
    return Shares(
        shares.value[cell : cell + 1] / there,
        shares.left[:, cell : cell + 1] / left,
        shares.variance[cell : cell + 1] / there**2,
    )


def _rare(samples: Samples) -> Iterator[_Part]:
    for column in samples.columns:
        if column.numeric:
            continue
        counts = np.bincount(column.codes[0], minlength=column.cells)
        order = np.argsort(-counts, kind="stable")
        rare = [k for k in order if ROWS <= counts[k] <= RARE * samples.rows[0]]
        if not rare:
            continue
        codes = _narrowed(column, rare)
        real, made = samples.shares(codes, len(rare) + 1)
        moves = samples.moves(codes[0], len(rare) + 1)
        rank = {int(k): r for r, k in enumerate((k for k in order if k), 1)}
        for position, k in enumerate(rare):
            name = f"{column.name}#{rank[int(k)] if k else 'missing'}"
            cell = np.array([position])
            yield name, real.of(cell), made.of(cell), 1.0, moves[:, position]


def _raised(shares: Shares) -> Shares:
    """Real shares as ratios need them: raised by their relative variance, 3 % at 30 rows.

    A ratio to an estimated share is too large by as much (Cochran 1977, Sampling Techniques, 6.8);
    and k of n rows beyond the next value have a true share of (k + 1)/(n + 1) in the mean.
    """
    more = shares.variance / shares.value
    return Shares(shares.value + more, shares.left + more, shares.variance)


def _narrowed(column: Compared, levels: Sequence[int]) -> Pair:
    """Codes in which these levels are 0 … and all others come last."""
    place = np.full(column.cells, len(levels))
    place[np.asarray(levels)] = np.arange(len(levels))
    return place[column.codes[0]], place[column.codes[1]]
