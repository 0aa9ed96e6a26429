"""Raking: weights that give candidates the cell shares of reality (iterative proportional
fitting, Deming & Stephan 1940), bounded above (Deville & Särndal 1992).

A candidate's weight is min(cap, ∏ factor[cell]) over its columns and pairs of columns: the density
ratio of a log-linear model with all interactions of two. It is a function of the row alone, so
factors found once on a pilot serve every other row of the same model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from safegen.shaping.coding import Coder, Coding
from safegen.tables.streams import stream

__all__ = ["Raking", "rake", "raked"]

SWEEPS, LAST = 3, 8
"""Sweeps over everything, then over single columns and the target with each, so that those hold
best. More of the first follow noise: on held-out rows the pair error rises again."""

POOL, POOL_LAST = 2, 4
"""Sweeps over everything on each pool that is drawn from, then over single columns: where a class
has a dozen candidates in a pool, most unlike reality, its share takes as long to come right."""

PRIOR = 20.0
"""Rows that each cell of a pair is taken to have more on both sides: what few real rows say of it
is noise. What they say of single columns stands, so that no rare level is taken for noise."""

SEEN = 4.0
"""Candidates that a part of a column has in the mean, at least, to be raked for itself: of 98 % of
such pools it is not absent."""

EXTREME = 1e150
"""Products of factors end here, and at one over it: of a model that is far from reality factors do
not settle, and hundreds of them multiply to more than a float holds, or to nothing."""

PAIRS, LOOKED_AT = 300, 1_500
"""Pairs of columns that are raked, the worst of those looked at; up to 55 columns all are seen."""

Margin = tuple[int, ...]  # one column, by its fine cells, or two, by their coarse ones


@dataclass(frozen=True, eq=False)
class Raking:
    """Factors per margin and cell, and the shares wanted there, by `real_rows` real rows. `scale`
    makes the mean weight of the model's rows 1."""

    coder: Coder
    real_rows: int
    shares: Mapping[Margin, np.ndarray]
    factors: Mapping[Margin, np.ndarray]
    scale: float
    cap: float

    def weights(self, rows: Coding) -> np.ndarray:
        """(rows,) float64 from 0 to `cap`, 1 on average."""
        return np.minimum(self.products(rows) * self.scale, self.cap)

    def finished(self, pool: Coding) -> np.ndarray:
        """Weights of rows that are drawn from together, raked once more by these rows themselves:
        what chance has given a pool too many of or too few is not in what is drawn from it."""
        found, _ = _swept(self, [*self.factors], POOL, pool)
        singles = [margin for margin in self.factors if len(margin) == 1]
        found, free = _swept(found, singles, POOL_LAST, pool)
        return np.minimum(free * found.scale, self.cap)

    def products(self, rows: Coding) -> np.ndarray:
        """(rows,) float64: the products of the rows' factors."""
        found: np.ndarray = np.ones(rows.rows)
        for margin, factors in self.factors.items():
            _multiply(found, factors[_cells(self.coder, rows, margin)])
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
    """Factors that give candidates, as weighted, the shares of reality: every column's, and pairs'.

    Pairs with `target` are always raked, the others by how far they are off (`PAIRS`). They are
    raked by a `few` candidates, for they take most of the time, and the last by `more`. Columns of
    few cells come last: they hold best.
    Cells of the real rows that the candidates do not have stay empty.
    """
    pairs = _pairs(coder, real, few, target, seed)
    widths = [coder.width(i, fine=True) for i in range(len(coder.columns))]
    singles: list[Margin] = [(int(i),) for i in np.argsort(widths, kind="stable")[::-1]]
    last = [*(p for p in pairs if target in (coder.names[p[0]], coder.names[p[1]])), *singles]
    found = raked(coder, real, few, [*pairs, *singles], cap=cap, sweeps=SWEEPS)
    return _swept(found, last, LAST, more)[0]


def raked(
    coder: Coder, real: Coding, made: Coding, margins: Sequence[Margin], *, cap: float, sweeps: int
) -> Raking:
    """A raking by these margins alone."""
    shares = {m: _wanted(coder, real, made, m) for m in margins}
    factors = {m: np.ones(len(s)) for m, s in shares.items()}
    return _swept(Raking(coder, real.rows, shares, factors, 1.0, cap), margins, sweeps, made)[0]


def _wanted(coder: Coder, real: Coding, made: Coding, margin: Margin) -> np.ndarray:
    """The shares that a margin's cells are to have: λ of the real rows' p, the rest the model's q.

    What n real rows say of their law has the squared error V = Σ p(1 − p)/n. If the model's shares
    owe nothing to p's chance, λ = 1 − V/G errs least, with G = Σ (p − q)²: where G is no more than
    chance, a model without fault is not drawn to the noise of its training rows. If they follow it
    (a copula's columns do), G is less than V and what q varies by, and λ rises to 1.
    """
    share, own = _shares(coder, real, margin), _shares(coder, made, margin)
    gap = float(((share - own) ** 2).sum())
    if not gap:
        return share
    noise, play = (float((x * (1 - x)).sum()) / c.rows for x, c in ((share, real), (own, made)))
    free = min(noise, (max(gap - play, 0.0) * noise) ** 0.5)
    found: np.ndarray = own + max(1 - free / gap, 0.0) * (share - own)
    return found


def _swept(
    raking: Raking, margins: Sequence[Margin], sweeps: int, made: Coding
) -> tuple[Raking, np.ndarray]:
    """A raking whose weights have been multiplied by factors for these margins, `sweeps` times,
    and the products of the rows' factors then."""
    cap, scale = raking.cap, raking.scale
    free = raking.products(made)
    factors = {m: raking.factors[m].copy() for m in margins}
    aims = [_aim(raking, m, made) for m in margins]
    for _ in range(sweeps):
        for margin, (cells, groups, share, prior) in zip(margins, aims, strict=True):
            now = np.bincount(cells, np.minimum(free * scale, cap), len(share)) / made.rows
            step = (share + prior) / np.maximum(now + prior, np.finfo(float).tiny)
            step = np.where(now > 0, np.minimum(np.maximum(step, 1 / cap), cap), 1.0)
            factors[margin] *= step if groups is None else step[groups]
            _multiply(free, step[cells])
        scale = _scaled(free, cap, scale)
    return replace(raking, factors={**raking.factors, **factors}, scale=scale), free


def _multiply(products: np.ndarray, factors: np.ndarray) -> None:
    """In place, up to `EXTREME` and no further."""
    np.multiply(products, factors, out=products)
    np.minimum(products, EXTREME, out=products)
    np.maximum(products, 1 / EXTREME, out=products)


_Aim = tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | float]


def _aim(raking: Raking, margin: Margin, made: Coding) -> _Aim:
    """By row its group, by cell its group (None: each is one), and by group the share that it is to
    have and the share by which that is taken to be uncertain.

    Cells of a column in which fewer than `SEEN` of the candidates belong share a group with those
    beside them, and so does one that has none: its mass would go to the common cells instead.
    """
    cells = _cells(raking.coder, made, margin)
    share = raking.shares[margin]
    if len(margin) > 1:
        return cells.astype(np.intp), None, share, PRIOR / raking.real_rows
    upto = np.cumsum(share * (made.rows / SEEN))
    middle = upto - share * (made.rows / SEEN) / 2
    _, groups = np.unique(np.minimum(middle, upto[-1] - 1).astype(np.int64), return_inverse=True)
    there = np.bincount(groups[cells], minlength=groups[-1] + 1) > 0
    groups = np.maximum(np.cumsum(there) - 1, 0)[groups]
    together = np.bincount(groups, share)
    few = together * made.rows < SEEN / 2
    return groups[cells], groups, together, few * (SEEN / made.rows)


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
