"""Whether columns and pairs of columns are as close to reality as asked.

Two distances: Kolmogorov–Smirnov's for numbers and dates, total variation for levels and joints.
Between two samples of one reality neither is 0, and the true distance lies between two bounds that
chance moves apart:

* *From below*: the mean of an estimated total variation exceeds the true one by at most what
  chance alone shows (`Samples.deviation`), and by McDiarmid's inequality (1989, Surveys in
  Combinatorics) it exceeds its mean by more than x·√(1/n + 1/m) with a chance of exp(−2x²) at
  most. For KS it is 2·exp(−2x²) (Massart 1990; Wei and Dudley 2012 for two samples).
* *From above*: both distances are largest differences of a share over sets, and at the set where
  the true one is largest the estimate is normal with a deviation of at most half √(1/n + 1/m).
  Where there are many cells that is far off, and the other bound is better: by Cauchy and Schwarz
  a total variation is at most ½√λ, λ = Σ (p − q)² / w, w the pooled shares. λ has an estimate
  that chance does not inflate, of variance 2Ks⁴ + 4λs², s² = 1/n + 1/m, for K cells. Cells of
  fewer than `FILLED` rows say nothing: all their mass is added. The better of both bounds, each at
  half the level, is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from safegen.measure.compared import Compared
from safegen.measure.faultless import DRAWS, Plays, averaged, factors, reach
from safegen.measure.samples import FINE, Samples, student_point, student_tail
from safegen.measure.verdicts import MISSED, Cell, normal_point
from safegen.tables.streams import stream

__all__ = ["BINS", "PAIRS", "coarse", "marginal_cells", "may_judge", "pair_cells"]

PAIRS = 200  # at most: more columns than 20 have more pairs, and a random part is looked at
BINS = 12  # of a column in a pair; rarer levels share one
FILLED = 5  # rows of both samples in a cell, from which on its term of λ is worth something
PLAYED = 1_000_000  # differences of shares that are played at a time: bounds memory
CUTS = 1_000  # cells in which KS is computed: what it misses is below a thousandth
SHOWN = math.sqrt(math.pi / 2) * math.log(2)  # Kolmogorov's mean: of KS by chance, in √(1/n + 1/m)


@dataclass(frozen=True, eq=False)
class _Gap:
    """A distance of both samples. value, chance: estimated, and what chance alone shows. left: the
    jackknife's values, (2, GROUPS). excess: λ, unbiased, of `filled` cells; of KS infinite, for it
    has none. sparse: the mass in the other cells. planned: by the real rows alone how many cells
    are filled, what chance shows, and the mass in the other cells. plays, excess_plays: the value
    and λ of a generator without fault, by the real rows alone too."""

    value: float
    left: np.ndarray
    chance: float = 0.0
    excess: float = math.inf
    excess_left: np.ndarray | None = None
    filled: int = 0
    sparse: float = 0.0
    planned: tuple[int, float, float] = (0, 0.0, 0.0)
    plays: Plays | None = None
    excess_plays: Plays | None = None


def marginal_cells(samples: Samples, margin: float, alpha: float) -> tuple[list[Cell], list[Cell]]:
    """The mean over columns, and each column. margin: of the distance, a share."""
    gaps = [
        _ks(samples, c) if c.numeric else _tv(samples, c.codes, c.cells) for c in samples.columns
    ]
    cells = _cells(samples, [c.name for c in samples.columns], gaps, margin, alpha)
    return [_mean(samples, gaps, margin, alpha, "columns")], cells


def pair_cells(
    samples: Samples, margin: float, worst: float, alpha: float, seed: int = 0
) -> tuple[list[Cell], list[Cell], int]:
    """The mean over pairs of columns, each pair, and how many pairs there are.

    margin, worst: of the mean's and of each pair's total variation. Numbers count by the real
    table's deciles, levels by their name; all but the eleven most frequent ones together, for rare
    ones have a question of their own. Of more than `PAIRS` pairs a random part is looked at.
    """
    bins = [coarse(c) for c in samples.columns]
    pairs = list(combinations(range(len(bins)), 2))
    every = len(pairs)
    if every > PAIRS:
        rng = np.random.default_rng(stream(seed, every))
        pairs = [pairs[i] for i in np.sort(rng.choice(every, PAIRS, replace=False))]
    if not pairs:
        return [], [], 0
    gaps = []
    for i, j in pairs:
        joint = tuple(bins[i][side] * BINS + bins[j][side] for side in (0, 1))
        gaps.append(_tv(samples, (joint[0], joint[1]), BINS * BINS))
    names = [f"{samples.columns[i].name} × {samples.columns[j].name}" for i, j in pairs]
    pooled = _mean(samples, gaps, margin, alpha, "pairs")
    return [pooled], _cells(samples, names, gaps, worst, alpha), every


def may_judge(
    noise: float,
    margin: float,
    alpha: float,
    cells: int,
    filled: int = 0,
    chance: float = 0.0,
    sparse: float = 0.0,
) -> bool:
    """Whether a generator without fault would clear the margin in each of so many cells.

    noise: √(1/n + 1/m). The rest is about a total variation: how many cells are filled, what chance
    alone shows, and the mass in the other cells; for KS it is 0.
    """
    missed = MISSED / max(cells, 1)
    if not filled and not sparse:
        largest = math.sqrt(math.log(2 / missed) / 2)
        return (largest + normal_point(alpha) / 2) * noise <= margin
    # The upper point of chi² with K − 1 degrees of freedom, by Laurent and Massart 2000, lemma 1.
    free, rare = max(filled - 1, 1), math.log(1 / missed)
    excess = (2 * math.sqrt(free * rare) + 2 * rare) * noise**2
    plain = chance + (math.sqrt(rare / 2) + normal_point(alpha / 2) / 2) * noise
    return min(plain, _highest(excess, filled, noise, alpha / 2) + sparse) <= margin


def _tv(samples: Samples, codes: tuple[np.ndarray, np.ndarray], cells: int) -> _Gap:
    """Total variation between shares of cells."""
    if cells > 4 * max(samples.rows):  # most are empty: number the others only
        both = np.unique(np.concatenate(codes), return_inverse=True)[1]
        codes, cells = (both[: len(codes[0])], both[len(codes[0]) :]), int(both.max()) + 1
    real, made = samples.shares(codes, cells)
    seen = (real.value > 0) | (made.value > 0)
    places, real, made = np.cumsum(seen) - 1, real.of(seen), made.of(seen)
    n, m = samples.sizes
    noise = real.variance + made.variance
    part = n / (n + m)
    filled = real.value * n + made.value * m >= FILLED

    def distance(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.abs(p - q).sum(axis=-1) / 2
        return found

    def excess(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        pooled = part * p + (1 - part) * q
        there = filled & (pooled > 0)  # a group may have had all rows of a cell
        term = ((p - q) ** 2 - noise) / np.where(there, pooled, 1.0)
        found: np.ndarray = np.where(there, term, 0.0).sum(axis=-1)
        return found

    value, left = samples.jackknife(real, made, distance)
    over, over_left = samples.jackknife(real, made, excess)
    sparse = float((real.value + made.value)[~filled].sum() / 2)
    expected = real.value * (n + m) >= FILLED
    # Made rows in cells that no real row is in: as many as real ones that are alone (Good 1953).
    alone = float(real.value[real.value * n < 1.5].sum())
    there = real.value > 0
    moves = samples.moves((np.cumsum(there) - 1)[places[codes[0]]], int(there.sum()))
    plays, over_plays = _played(moves, real.value[there], expected[there], alone / 2)
    planned = (
        int(expected.sum()),
        float(plays.value.mean()),
        float(real.value[~expected].sum()),
    )
    return _Gap(
        value,
        left,
        samples.deviation(real, made),
        over,
        over_left,
        int(filled.sum()),
        sparse,
        planned,
        plays,
        over_plays,
    )


def _played(
    moves: np.ndarray, share: np.ndarray, expected: np.ndarray, unseen: float
) -> tuple[Plays, Plays]:
    """Total variation and λ of a generator without fault. moves: of `Samples.moves`. unseen: what
    cells without a real row add to the first."""
    over = np.where(expected, 1 / share, 0.0)
    values, slopes = np.empty((2, DRAWS)), np.empty((2, DRAWS, FINE))
    for part in np.array_split(np.arange(DRAWS), -(-DRAWS * len(share) // PLAYED)):
        gap = factors()[part] @ moves
        values[:, part] = np.abs(gap).sum(axis=1) / 2, gap**2 @ over
        slopes[:, part] = np.sign(gap) @ moves.T / 2, 2 * (gap * over) @ moves.T
    values[0] += unseen
    values[1] -= values[1].mean()  # unbiased: of a faithful one it is 0 in the mean
    return Plays(values[0], slopes[0]), Plays(values[1], slopes[1])


def _ks(samples: Samples, column: Compared) -> _Gap:
    """The largest difference of distribution functions, missing values below all numbers."""
    codes, cells = column.codes, column.cells
    if cells > CUTS:
        counts = sum(np.bincount(c, minlength=cells) for c in codes)
        share = (np.cumsum(counts) - 1) * CUTS // np.sum(counts)
        codes, cells = (share[codes[0]], share[codes[1]]), CUTS
    real, made = samples.shares(codes, cells)

    def distance(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.abs(np.cumsum(p - q, axis=-1)).max(axis=-1)
        return found

    moves = np.cumsum(samples.moves(codes[0], cells), axis=1)
    gap = factors() @ moves
    at = np.abs(gap).argmax(axis=1)
    top = gap[np.arange(DRAWS), at]
    plays = Plays(np.abs(top), np.sign(top)[:, None] * moves[:, at].T)
    return _Gap(*samples.jackknife(real, made, distance), plays=plays)


def _highest(excess: float, filled: int, noise: float, alpha: float) -> float:
    """The upper bound ½√λ of a total variation: λ whose estimate would be this low with chance
    alpha, its variance being 2Ks⁴ + 4λs²."""
    z, s = normal_point(alpha), noise
    over = max(excess, 0.0)
    root = math.sqrt(4 * over + 4 * (z * s) ** 2 + 2 * filled * s**2)
    return math.sqrt(over + 2 * (z * s) ** 2 + z * s * root) / 2


def _cells(
    samples: Samples, names: Sequence[str], gaps: Sequence[_Gap], margin: float, alpha: float
) -> list[Cell]:
    noise, found = samples.noise, []
    for name, gap in zip(names, gaps, strict=True):
        ks = gap.excess == math.inf
        sides = 2 if ks else 1
        if ks:
            high = gap.value + normal_point(alpha) / 2 * noise
        else:
            plain = gap.value + normal_point(alpha / 2) / 2 * noise
            filled = _highest(gap.excess, gap.filled, noise, alpha / 2)
            high = min(plain, filled + gap.sparse)
        low = gap.value - gap.chance - math.sqrt(math.log(sides / alpha) / 2) * noise
        beyond = max(gap.value - gap.chance - margin, 0.0) / noise
        found.append(
            Cell(
                name,
                gap.value,
                max(0.0, low),
                min(1.0, high),
                min(1.0, sides * math.exp(-2 * beyond**2)),
                high <= margin,
                may_judge(noise, margin, alpha, len(gaps), *gap.planned),
                (None, margin),
            )
        )
    return found


def _mean(samples: Samples, gaps: Sequence[_Gap], margin: float, alpha: float, what: str) -> Cell:
    """The mean over cells, with the jackknife's error: what they share by sharing rows is in it.

    Its bounds are those of a cell: estimate less chance from below; from above the better of the
    estimate itself and ½√λ̄, for the mean of roots is no larger than the root of the mean.
    """
    value = float(np.mean([g.value for g in gaps]))
    error = samples.error(np.mean([g.left for g in gaps], axis=0))
    shown = [SHOWN * samples.noise if g.excess == math.inf else g.chance for g in gaps]
    under = value - float(np.mean(shown))
    over = [g.excess_left for g in gaps if g.excess_left is not None]
    point = student_point(alpha if len(over) < len(gaps) else alpha / 2)
    high = value + point * error
    best = reach(averaged([g.plays for g in gaps if g.plays]), point)  # without a fault
    if len(over) == len(gaps):
        excess = float(np.mean([g.excess for g in gaps]))
        excess += point * samples.error(np.mean(over, axis=0))
        sparse = float(np.mean([g.sparse for g in gaps]))
        high = min(high, math.sqrt(max(excess, 0.0)) / 2 + sparse)
        spare = float(np.mean([g.planned[2] for g in gaps]))
        top = reach(averaged([g.excess_plays for g in gaps if g.excess_plays]), point)
        best = min(best, math.sqrt(max(top, 0.0)) / 2 + spare)
    beyond = (under - margin) / error if error else math.copysign(math.inf, under - margin)
    return Cell(
        f"the mean over {len(gaps)} {what}",
        value,
        max(0.0, under - student_point(alpha) * error),
        min(1.0, high),
        student_tail(beyond),
        high <= margin,
        best <= margin,
        (None, margin),
    )


def coarse(column: Compared) -> tuple[np.ndarray, np.ndarray]:
    """Bins 0 … BINS − 1 of both sides."""
    if column.widths <= BINS:
        return column.bins
    rank = np.full(column.widths, BINS - 1)
    counts = np.bincount(column.bins[0], minlength=column.widths)
    common = np.argsort(-counts, kind="stable")[: BINS - 1]
    rank[common] = np.arange(BINS - 1)
    return rank[column.bins[0]], rank[column.bins[1]]
