"""One feature ↔ standard-normal scores: the marginals of a Gaussian copula.

By Sklar's theorem (1959) a joint distribution is its marginals and a copula. The marginals here
are empirical, which makes the model semi-parametric: Genest, Ghoudi and Rivest (1995), "A
semiparametric estimation procedure of dependence parameters in multivariate families of
distributions", Biometrika 82. A level owns the interval of the normal axis that has its share,
so the inverse gives every share back exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

__all__ = ["Interval", "Levels", "Marginal", "Quantiles", "truncated"]

Interval = tuple[float, float]

KNOTS = 900  # evenly spread over probability …
TAIL = 50  # … and the lowest and the highest 50 order statistics: the tails stay where they are
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
        from scipy.special import ndtri

        cuts: np.ndarray = ndtri(np.clip(self.bounds, 0.0, 1.0))
        cuts[0], cuts[-1] = -np.inf, np.inf
        return cuts

    @property
    def means(self) -> np.ndarray:
        """The mean of the normal within each level, in order."""
        density = np.exp(-0.5 * self.cuts**2) / np.sqrt(2 * np.pi)
        means: np.ndarray = -np.diff(density) / np.maximum(np.diff(self.bounds), EDGE)
        return means

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

    `at` holds probabilities for an empirical one, standard-normal scores for a parametric one
    (`parametric`), whose tails would be too coarse in probability.
    """

    at: np.ndarray
    values: np.ndarray
    parametric: bool

    @classmethod
    def empirical(cls, numbers: np.ndarray) -> Self:
        """The smoothed empirical quantile function: at most 1,000 knots, from min to max."""
        n = len(numbers)
        tail = np.arange(min(TAIL, n)) / max(n - 1, 1)
        at = np.unique(np.concatenate([np.linspace(0.0, 1.0, min(KNOTS, n)), tail, 1.0 - tail]))
        return cls(at, np.quantile(numbers, at), False)

    @classmethod
    def of(cls, univariate: Any) -> Self:
        """The quantile function of a fitted copulas univariate, tabulated."""
        from scipy.special import ndtr

        at = np.linspace(-8.0, 8.0, PARAMETRIC_KNOTS)
        values = np.asarray(univariate.percent_point(np.clip(ndtr(at), EDGE, 1 - EDGE)), float)
        return cls(at, np.maximum.accumulate(values), True)

    @staticmethod
    def scores(numbers: np.ndarray) -> np.ndarray:
        """Normal scores of the ranks; ties share their middle rank."""
        _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        middle = np.cumsum(counts) - counts / 2
        return _normal(middle[inverse] / len(numbers))

    def value(self, scores: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        found: np.ndarray = np.interp(
            scores if self.parametric else ndtr(scores), self.at, self.values
        )
        return found

    def interval(self, value: float) -> Interval:
        margin = 0.5 / len(self.at) * (1.0 if not self.parametric else 16.0)
        low, high = self._inverse(value, "left") - margin, self._inverse(value, "right") + margin
        if self.parametric:
            return low, high
        return tuple(float(x) for x in _normal(np.array([low, high])))  # type: ignore[return-value]

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


def _normal(probabilities: np.ndarray) -> np.ndarray:
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
