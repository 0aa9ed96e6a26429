"""Non-inferiority with three outcomes: met, unmet, or not to be told at this number of rows.

A question is asked of cells (columns, pairs, tails, levels) and of figures pooled over them. It is
*met* when every bound clears the margin at level alpha: an intersection–union test, which needs no
correction (Berger 1982, Technometrics 24). It is *unmet* when one of all cells lies beyond the
margin by Holm's procedure (1979, Scandinavian Journal of Statistics 6). Else it is inconclusive.

Of a hundred cells some always miss by chance. So a cell takes part in *met* only where a generator
without fault would pass it at these numbers of rows: which ones is known before the made rows are
looked at, and every finding says of how many it speaks. Pooled figures always take part; whether
chance may leave them open is known beforehand too. No cell is left out of *unmet*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from safegen.decision import Part, Status, Within

__all__ = ["MISSED", "Cell", "Verdict", "normal_point", "spent", "verdict"]

MISSED = 0.002
"""How often, at most, a generator without fault may miss the margin in any judged cell of a
question, and in its pooled figures: the power that is declared before is one less this."""


@dataclass(frozen=True)
class Cell:
    """What is known of one cell. low, high: one-sided bounds at level alpha each. p: the largest
    chance of such a value within the margin. kept: whether the bound clears the margin. judged:
    whether it would, at these numbers of rows, for a generator without fault. within: the margin on
    either side, where there is one."""

    name: str
    value: float
    low: float
    high: float
    p: float
    kept: bool
    judged: bool = True
    within: Within = (None, None)

    @property
    def strain(self) -> float:
        """How near to its margin a value is, or how far beyond: 1 at the margin, 0 where nothing is
        lost."""
        least, most = self.within
        if least is not None and most is not None and least > 0:  # a ratio
            off = math.log(max(self.value, 1e-9))
            return off / math.log(most) if off > 0 else off / math.log(least)
        return self.value / most if most else 0.0

    @property
    def part(self) -> Part:
        """The cell as a finding shows it."""
        return Part(self.name, self.value, (self.low, self.high), self.within, self.judged)


@dataclass(frozen=True)
class Verdict:
    """An answer: lost cells (worst first) where it is unmet; else those that take part and do not
    clear the margin, worst first; and of how many cells it speaks."""

    status: Status
    pooled: tuple[Cell, ...]
    cells: tuple[Cell, ...]
    lost: tuple[Cell, ...]
    open: tuple[Cell, ...]

    @property
    def judged(self) -> int:
        """How many cells can be told apart from the margin."""
        return sum(c.judged for c in self.cells)

    @property
    def due(self) -> bool:
        """Whether a generator without fault would be met, whatever chance does."""
        return all(c.judged for c in self.pooled)


def verdict(pooled: Sequence[Cell], cells: Sequence[Cell], alpha: float) -> Verdict:
    """The answer about these cells. alpha: what the unmet side may spend, over all of them.

    Raises: ValueError for a cell of which nothing is known: it would be taken for met.
    """
    if unknown := [c.name for c in (*pooled, *cells) if math.isnan(c.p)]:
        raise ValueError(f"no chance was found for {len(unknown)} cells, {unknown[0]} among them")
    lost = []
    ranked = sorted([*pooled, *cells], key=lambda c: c.p)
    for rank, cell in enumerate(ranked):
        if cell.p * (len(ranked) - rank) > alpha:
            break
        lost.append(cell)
    missed = [c for c in [*pooled, *(c for c in cells if c.judged)] if not c.kept]
    status: Status = "unmet" if lost else "inconclusive" if missed else "met"
    return Verdict(
        status,
        tuple(pooled),
        tuple(cells),
        tuple(lost),
        tuple(sorted(missed, key=lambda c: c.p)),
    )


def spent(alpha: float, depth: int) -> float:
    """What a release of this depth may spend of alpha on refusals: 6 alpha / (π² depth²).

    Over a loop of any length that adds up to alpha, so that a sound loop is refused by chance with
    at most that probability, however often it is judged. The first release has 61 % of it.
    """
    return alpha * 6 / (math.pi * max(depth, 1)) ** 2


def normal_point(alpha: float) -> float:
    """The value beyond which a standard normal lies with the chance alpha."""
    return -NormalDist().inv_cdf(alpha)
