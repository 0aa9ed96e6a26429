"""One feature ↔ standard-normal scores: the marginals of a Gaussian copula.

By Sklar's theorem (1959) a joint distribution is its marginals and a copula. The marginals here
are empirical, which makes the model semi-parametric: Genest, Ghoudi and Rivest (1995), "A
semiparametric estimation procedure of dependence parameters in multivariate families of
distributions", Biometrika 82. A level owns the interval of the normal axis that has its share,
so the inverse gives every share back exactly; so does a number that several rows hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

__all__ = ["Interval", "Levels", "Marginal", "Quantiles", "normal", "truncated"]

Interval = tuple[float, float]

SHARED = 3  # rows that hold a value before it may come back exactly
STEPS = 4_096  # values kept as they are: the minutes of a day, the days of eleven years
KNOTS = 900  # between them: evenly spread over the other rows …
TAIL = 50  # … and the lowest and the highest 50 of their values: the tails stay where they are
PARAMETRIC_KNOTS = 4001  # a parametric quantile function, tabulated over scores of −8 … 8
EDGE = 1e-12  # probabilities stay this far inside (0, 1)


class Marginal(Protocol):
    """The distribution of one feature."""

    def value(self, scores: np.ndarray) -> np.ndarray:
        """The feature for standard-normal scores."""
        ...

    def interval(self, value: float) -> Interval:
        """The scores that stand for one value."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """What to save."""
        ...


@dataclass(frozen=True, eq=False)
class Levels:
    """A categorical feature: its levels along the normal axis, and their cumulative shares.

    `order` has the codes from lowest to highest, `bounds` their cumulative shares 0 … 1.
    """

    order: np.ndarray
    bounds: np.ndarray

    @classmethod
    def fit(cls, codes: np.ndarray, levels: int, order: np.ndarray | None = None) -> Self:
        """Shares as in the data; `order` may name the first levels only, the rest follow."""
        order = np.arange(levels) if order is None else order
        order = np.concatenate([order, np.setdiff1d(np.arange(levels), order)])
        counts = np.bincount(codes, minlength=levels)[order]
        return cls(order, np.concatenate([[0.0], np.cumsum(counts) / len(codes)]))

    @property
    def cuts(self) -> np.ndarray:
        """Where the levels meet on the normal axis, from −∞ to ∞."""
        return _cuts(self.bounds)

    @property
    def means(self) -> np.ndarray:
        """The mean of the normal within each level, in order."""
        return _means(self.bounds)

    def scores(self, codes: np.ndarray) -> np.ndarray:
        """The mean of the normal behind each row's level."""
        by_code = np.empty(len(self.order))
        by_code[self.order] = self.means
        scores: np.ndarray = by_code[codes]
        return scores

    def value(self, scores: np.ndarray) -> np.ndarray:
        at = np.searchsorted(self.cuts[1:-1], scores, side="right")
        codes: np.ndarray = self.order[at].astype(np.int32)
        return codes

    def interval(self, value: float) -> Interval:
        at = int(np.flatnonzero(self.order == int(value))[0])
        return float(self.cuts[at]), float(self.cuts[at + 1])

    def arrays(self) -> dict[str, np.ndarray]:
        return {"order": self.order, "bounds": self.bounds}


@dataclass(frozen=True, eq=False)
class Quantiles:
    """A quantile function, linear between knots.

    Two knots of one value are a step: the value has the probability between them. Two of one
    probability are a gap, in which no value lies. `at` holds probabilities for an empirical one,
    standard-normal scores for a parametric one (`parametric`), whose tails would be too coarse in
    probability.
    """

    at: np.ndarray
    values: np.ndarray
    parametric: bool

    @classmethod
    def empirical(cls, numbers: np.ndarray) -> Self:
        """The empirical quantile function, from minimum to maximum.

        A value of three rows or more is a step of exactly its share, so a grid stays a grid. A
        value of fewer is smoothed away, for it may be one person's: between two steps such
        values make a run, linear from its first to its last; one that stands alone is spread to
        its neighbours. Past 4,096 steps the rarest join the runs, of which at most 1,000 knots
        and the ends are kept.
        """
        distinct, counts = np.unique(numbers, return_counts=True)
        least = SHARED
        if len(counts) > STEPS:
            least = max(least, int(np.partition(counts, -STEPS - 1)[-STEPS - 1]) + 1)
        step = counts >= least
        above = np.cumsum(counts)
        below = above - counts
        starts = ~step & np.concatenate([[True], step[:-1]])
        ends = ~step & np.concatenate([step[1:], [True]])
        middle = (below + above) / 2
        middle = np.where(starts & ~ends, below, np.where(ends & ~starts, above, middle))
        smooth = np.flatnonzero(~step)
        if len(smooth):
            rows = np.cumsum(counts[smooth])
            spread = np.searchsorted(rows, np.linspace(0, rows[-1], KNOTS))
            tails = np.concatenate([np.arange(len(rows))[:TAIL], np.arange(len(rows))[-TAIL:]])
            runs = np.flatnonzero((starts ^ ends)[smooth])
            smooth = smooth[np.unique(np.concatenate([spread, tails, runs]))]
        at = np.concatenate([below[step], above[step], middle[smooth]]) / len(numbers)
        values = np.concatenate([distinct[step], distinct[step], distinct[smooth]])
        order = np.lexsort((values, at))
        at, values = at[order], values[order]
        at[0], at[-1] = 0.0, 1.0
        return cls(at, values, False)

    @classmethod
    def of(cls, univariate: Any) -> Self:
        """The quantile function of a fitted copulas univariate, tabulated."""
        from scipy.special import ndtr

        at = np.linspace(-8.0, 8.0, PARAMETRIC_KNOTS)
        values = np.asarray(univariate.percent_point(np.clip(ndtr(at), EDGE, 1 - EDGE)), float)
        return cls(at, np.maximum.accumulate(values), True)

    @staticmethod
    def scores(numbers: np.ndarray) -> np.ndarray:
        """Normal scores of the ranks; ties share the mean of the normal behind them."""
        _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        by_value = _means(np.concatenate([[0.0], np.cumsum(counts) / len(numbers)]))
        found: np.ndarray = by_value[inverse]
        return found

    @property
    def cuts(self) -> np.ndarray:
        """Where the steps of an empirical one, and the pieces between knots, meet on the normal
        axis, from −∞ to ∞."""
        return _cuts(np.unique(self.at))

    @property
    def means(self) -> np.ndarray:
        """The mean of the normal within each of them."""
        return _means(np.unique(self.at))

    def value(self, scores: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        found: np.ndarray = np.interp(
            scores if self.parametric else ndtr(scores), self.at, self.values
        )
        return found

    def interval(self, value: float) -> Interval:
        low, high = self._inverse(value, "left"), self._inverse(value, "right")
        if self.parametric or low == high:  # not a step, which has its own width
            margin = 0.5 / len(self.at) * (1.0 if not self.parametric else 16.0)
            low, high = low - margin, high + margin
        if self.parametric:
            return low, high
        return tuple(float(x) for x in normal(np.array([low, high])))  # type: ignore[return-value]

    def _inverse(self, value: float, side: Any) -> float:
        """Where the quantile function first (left) or last (right) takes the value."""
        index = int(np.searchsorted(self.values, value, side))
        if side == "right":
            index -= 1
        if 0 <= index < len(self.values) and self.values[index] == value:
            return float(self.at[index])
        return float(np.interp(value, self.values, self.at))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"at": self.at, "values": self.values}


def _cuts(bounds: np.ndarray) -> np.ndarray:
    """Cumulative shares 0 … 1 on the normal axis, from −∞ to ∞."""
    from scipy.special import ndtri

    cuts: np.ndarray = ndtri(np.clip(bounds, 0.0, 1.0))
    cuts[0], cuts[-1] = -np.inf, np.inf
    return cuts


def _means(bounds: np.ndarray) -> np.ndarray:
    """The mean of the normal between neighbouring cumulative shares."""
    density = np.exp(-0.5 * _cuts(bounds) ** 2) / np.sqrt(2 * np.pi)
    means: np.ndarray = -np.diff(density) / np.maximum(np.diff(bounds), EDGE)
    return means


def normal(probabilities: np.ndarray) -> np.ndarray:
    """The standard-normal scores of probabilities."""
    from scipy.special import ndtri

    scores: np.ndarray = ndtri(np.clip(probabilities, EDGE, 1 - EDGE))
    return scores


def truncated(
    mean: np.ndarray | float, sd: float, interval: Interval, uniform: np.ndarray
) -> np.ndarray:
    """Normal draws with the given means and sd inside an interval, by inversion.

    Far in the upper tail the interval is mirrored to the lower, where probabilities keep their
    precision down to 1e-308.
    """
    from scipy.special import ndtr, ndtri

    low, high = ((np.asarray(edge) - mean) / sd for edge in interval)
    low, high = np.broadcast_arrays(low, high)
    flip = low > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    u = np.where(flip, 1.0 - uniform, uniform)
    scores = ndtri(ndtr(a) + u * (ndtr(b) - ndtr(a)))
    scores = np.clip(scores, a, b)
    scores = np.where(np.isfinite(scores), scores, np.where(np.isfinite(b), b, a))
    found: np.ndarray = mean + sd * np.where(flip, -scores, scores)
    np.clip(found, *interval, out=found)
    return found
