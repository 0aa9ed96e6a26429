"""Raking: weights that give candidates the cell shares of the real rows (iterative proportional
fitting, Deming & Stephan 1940), bounded above (Deville & Särndal 1992).

A candidate's weight is min(cap, ∏ factor[cell]) over its columns and pairs of columns: the density
ratio of a log-linear model with all interactions of two. It is a function of the row alone, so
factors found once on a pilot serve every other row of the same model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from safegen.shaping.coding import Coder, Coding
from safegen.tables.streams import stream

__all__ = ["Raking", "rake", "raked"]

SWEEPS, LAST = 3, 8
"""Sweeps over everything, then over single columns and the target with each, so that those hold
best. More of the first follow noise: on held-out rows the pair error rises again."""

PRIOR = 60.0
"""Rows that each cell is taken to have more on both sides: what few real rows say is noise."""

PAIRS, LOOKED_AT = 300, 1_500
"""Pairs of columns that are raked, the worst of those looked at; up to 55 columns all are seen."""

Margin = tuple[int, ...]  # one column, by its fine cells, or two, by their coarse ones


@dataclass(frozen=True, eq=False)
class Raking:
    """Factors per margin and cell. `scale` makes the mean weight of the model's rows 1."""

    coder: Coder
    margins: tuple[Margin, ...]
    factors: tuple[np.ndarray, ...]
    scale: float
    cap: float

    def weights(self, rows: Coding) -> np.ndarray:
        """(rows,) float64 from 0 to `cap`, 1 on average."""
        found = self.products(rows)
        found *= self.scale
        np.minimum(found, self.cap, out=found)
        return found

    def products(self, rows: Coding) -> np.ndarray:
        """(rows,) float64: the products of the rows' factors."""
        found: np.ndarray = np.ones(rows.rows)
        for margin, factors in zip(self.margins, self.factors, strict=True):
            found *= factors[_cells(self.coder, rows, margin)]
        return found


def rake(
    coder: Coder,
    real: Coding,
    few: Coding,
    more: Coding,
    *,
    target: str | None,
    cap: float,
    seed: int,
) -> Raking:
    """Factors that give candidates, as weighted, the shares of `real`: every column's, and pairs'.

    Pairs with `target` are always raked, the others by how far they are off (`PAIRS`). They are
    raked by a `few` candidates, for they take most of the time, and the last by `more`.
    Cells of the real rows that the candidates do not have stay empty.
    """
    pairs = _pairs(coder, real, few, target, seed)
    singles: list[Margin] = [(i,) for i in range(len(coder.columns))]
    last = [*(p for p in pairs if target in (coder.names[p[0]], coder.names[p[1]])), *singles]
    found = raked(coder, real, few, [*pairs, *singles], cap=cap, sweeps=SWEEPS)
    return _swept(found, last, LAST, real, more)


def raked(
    coder: Coder, real: Coding, made: Coding, margins: Sequence[Margin], *, cap: float, sweeps: int
) -> Raking:
    """A raking by these margins alone."""
    return _swept(Raking(coder, (), (), 1.0, cap), margins, sweeps, real, made)


def _swept(
    raking: Raking, margins: Sequence[Margin], sweeps: int, real: Coding, made: Coding
) -> Raking:
    """A raking whose weights have been multiplied by factors for these margins, `sweeps` times."""
    coder, cap = raking.coder, raking.cap
    free, scale = raking.products(made), raking.scale
    factors = {m: np.ones(_width(coder, m)) for m in margins}
    shares = {m: _shares(coder, real, m) for m in margins}
    prior = PRIOR / real.rows
    for _ in range(sweeps):
        for m in margins:
            cells = _cells(coder, made, m)
            now = np.bincount(cells, np.minimum(free * scale, cap), len(factors[m])) / made.rows
            step = (shares[m] + prior) / (now + prior)
            factors[m] *= step
            free *= step[cells]
        scale = _scaled(free, cap, scale)
    known = dict(zip(raking.margins, raking.factors, strict=True))
    for m in margins:
        known[m] = known[m] * factors[m] if m in known else factors[m]
    return Raking(coder, tuple(known), tuple(known.values()), scale, cap)


def _pairs(coder: Coder, real: Coding, made: Coding, target: str | None, seed: int) -> list[Margin]:
    """The pairs to rake: those with the target, and the others that differ most."""
    every = list(combinations(range(len(coder.columns)), 2))
    wanted = [p for p in every if target in (coder.names[p[0]], coder.names[p[1]])]
    known = set(wanted)
    others = [p for p in every if p not in known]
    if len(others) > LOOKED_AT:
        some = np.random.default_rng(stream(seed, len(others))).choice(
            len(others), LOOKED_AT, False
        )
        others = [others[i] for i in np.sort(some)]
    off = [np.abs(_shares(coder, real, p) - _shares(coder, made, p)).sum() for p in others]
    worst = np.argsort(off, kind="stable")[::-1][: max(PAIRS - len(wanted), 0)]
    return [*(others[i] for i in worst), *wanted]


def _width(coder: Coder, margin: Margin) -> int:
    if len(margin) == 1:
        return coder.width(margin[0], fine=True)
    return coder.width(margin[0], fine=False) * coder.width(margin[1], fine=False)


def _cells(coder: Coder, rows: Coding, margin: Margin) -> np.ndarray:
    if len(margin) == 1:
        return rows.fine[margin[0]]
    first, second = margin
    width = np.int32(coder.width(second, fine=False))
    found: np.ndarray = rows.coarse[first] * width + rows.coarse[second]
    return found


def _shares(coder: Coder, rows: Coding, margin: Margin) -> np.ndarray:
    return np.bincount(_cells(coder, rows, margin), minlength=_width(coder, margin)) / rows.rows


def _scaled(free: np.ndarray, cap: float, scale: float) -> float:
    """The scale at which the bounded weights have a mean of 1."""
    for _ in range(50):
        mean = float(np.minimum(free * scale, cap).mean())
        if abs(mean - 1) < 1e-9:
            break
        scale /= mean
    return scale
