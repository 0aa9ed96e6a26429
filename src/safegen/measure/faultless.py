"""What a generator without fault would show at these numbers of rows, played from the real rows.

Its rows are another sample of the law that the real ones are a sample of. How shares of both then
differ is told by a hundred groups of the real rows: each group's deviation times a random factor,
summed, has the variances and correlations that chance makes (a multiplier bootstrap; Præstgaard and
Wellner 1993, Annals of Probability 21), if it is scaled by √(1 + n/m) from one sample to the
difference of two (`Samples.moves`). So it is known before anything is fitted which questions can be
answered. No made row is looked at.

A hundred groups span fewer directions than there are cells. Two things set that right: the factors
lie on a sphere, or the length of a play would move all cells of a table at once; and a play's own
direction is taken out of its jackknife, for the rows of a group deviate from their mean by what
that mean does not know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from safegen.measure.samples import FINE, FREEDOM
from safegen.measure.verdicts import MISSED, normal_point
from safegen.tables.streams import stream

__all__ = ["Plays", "averaged", "factors", "reach"]

DRAWS = 200


@dataclass(frozen=True, eq=False)
class Plays:
    """A figure in each play. value: (DRAWS,). slope: (DRAWS, FINE), how it changes with each group
    of rows: what a jackknife of the play would see."""

    value: np.ndarray
    slope: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """The jackknife's standard error in each play, (DRAWS,)."""
        along = factors()
        free = FINE - 1
        own = (self.slope * along).sum(axis=1) ** 2 / free
        squares = (self.slope**2).sum(axis=1) - own
        found: np.ndarray = np.sqrt(np.maximum(squares, 0.0) * free / (free - 1))
        return found


def averaged(plays: Sequence[Plays]) -> Plays:
    """The mean of several figures, in the same plays."""
    return Plays(
        np.mean([p.value for p in plays], axis=0), np.mean([p.slope for p in plays], axis=0)
    )


@lru_cache(maxsize=1)
def factors() -> np.ndarray:
    """Random factors of the groups, (DRAWS, FINE): each row sums to 0, its squares to FINE − 1."""
    drawn = np.random.default_rng(stream(0, FINE)).normal(size=(DRAWS, FINE))
    drawn -= drawn.mean(axis=1, keepdims=True)
    scale = math.sqrt(FINE - 1) / np.linalg.norm(drawn, axis=1, keepdims=True)
    found: np.ndarray = drawn * scale
    return found


def reach(plays: Plays, point: float) -> float:
    """What the upper bound, value + point · error, of a figure stays below in all but `MISSED` of
    the releases of a generator without fault: by mean, spread and skewness of the plays (Cornish
    and Fisher 1938), for no affordable number of plays shows that quantile itself."""
    bound = plays.value + point * plays.error
    middle, spread = float(bound.mean()), float(bound.std())
    if not spread:
        return middle
    skew = float(((bound - middle) ** 3).mean()) / spread**3
    z = normal_point(MISSED)
    unknown = point * float(plays.error.mean()) / math.sqrt(2 * FREEDOM)  # of the error itself
    return middle + (z + (z**2 - 1) / 6 * skew) * math.hypot(spread, unknown)
