"""A codec's features ↔ what a diffusion model sees: uniform ranks of numbers, tokens of levels.

A number becomes the interval of ranks that its value has among the training rows; a rank drawn in
it, anew for every batch, and then its normal score make every marginal exactly standard normal,
ties and grids included. A level becomes a token; levels beyond `TOKENS` a column (fewer, where
there are many such columns) share tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from safegen.backends.sdv.marginals import Quantiles
from safegen.tables.codec import Codec, Feature

__all__ = ["Encoding", "Grouped", "Layout", "Rows"]

TOKENS = 512  # a feature of more levels is grouped: no layer is ever wider than this per feature
LEAST_TOKENS = 16  # and never grouped to fewer, to keep the network's rows within …
SLOTS = 1 << 14  # … this many levels of all features
OWN = 0.75  # of the tokens go to the most frequent levels, one each; the others share the rest


class Rows(NamedTuple):
    """Training rows: for each number its interval of ranks, for each category its token."""

    low: np.ndarray  # float32 (rows, numbers), in [0, 1)
    width: np.ndarray  # float32 (rows, numbers); the whole of [0, 1] where a state hides the number
    tokens: np.ndarray  # int32 (rows, categories)

    def take(self, index: np.ndarray) -> Rows:
        return Rows(self.low[index], self.width[index], self.tokens[index])


@dataclass(frozen=True, eq=False)
class Grouped:
    """The tokens of a categorical feature. `order` lists the codes token by token, `bounds` where
    each token's codes begin, `counts` the training rows of each code in that order."""

    order: np.ndarray
    bounds: np.ndarray
    counts: np.ndarray

    @classmethod
    def fit(cls, codes: np.ndarray, levels: int, most: int = TOKENS) -> Self:
        """One token a level up to `most` levels. Beyond, the rarest levels are grouped with
        their neighbours in value order (a ZIP code's are its region's), in groups of about equal
        numbers of rows."""
        counts = np.bincount(codes, minlength=levels)
        if levels <= most:
            return cls(np.arange(levels), np.arange(levels + 1), counts)
        own = int(OWN * most)
        frequent = np.argsort(-counts, kind="stable")[:own]
        rest = np.setdiff1d(np.arange(levels), frequent)
        rows = np.cumsum(counts[rest]) - counts[rest]
        group = (rows * (most - own)) // max(int(counts[rest].sum()), 1)
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        order = np.concatenate([frequent, rest])
        bounds = np.concatenate([np.arange(own), own + starts, [levels]])
        return cls(order, bounds, counts[order])

    @property
    def tokens(self) -> int:
        return len(self.bounds) - 1

    @property
    def shares(self) -> np.ndarray:
        """The share of each token among the training rows."""
        sums = np.add.reduceat(self.counts, self.bounds[:-1])
        found: np.ndarray = sums / sums.sum()
        return found

    def token(self, codes: np.ndarray) -> np.ndarray:
        by_code = np.empty(len(self.order), np.int32)
        by_code[self.order] = np.repeat(np.arange(self.tokens), np.diff(self.bounds))
        found: np.ndarray = by_code[codes]
        return found

    def code(self, tokens: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Codes for tokens; within a shared token in proportion to the training rows."""
        above = np.concatenate([[0], np.cumsum(self.counts)])
        low, high = above[self.bounds[tokens]], above[self.bounds[tokens + 1]]
        at = np.searchsorted(above, low + uniform * (high - low), side="right") - 1
        at = np.clip(at, self.bounds[tokens], self.bounds[tokens + 1] - 1)
        codes: np.ndarray = self.order[at].astype(np.int32)
        return codes


@dataclass(frozen=True, eq=False)
class Encoding:
    """The codec, a quantile function per number, and the tokens of each category."""

    codec: Codec
    quantiles: tuple[Quantiles, ...]
    groups: tuple[Grouped, ...]

    @cached_property
    def numbers(self) -> tuple[Feature, ...]:
        return tuple(f for f in self.codec.features if f.kind == "numeric")

    @cached_property
    def categories(self) -> tuple[Feature, ...]:
        return tuple(f for f in self.codec.features if f.kind == "categorical")

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(group.tokens for group in self.groups)

    @classmethod
    def fit(cls, codec: Codec, features: Mapping[str, np.ndarray]) -> tuple[Self, Rows]:
        """The encoding of a table's features, and its rows so encoded."""
        numbers = [f for f in codec.features if f.kind == "numeric"]
        categories = [f for f in codec.features if f.kind == "categorical"]
        rows = len(next(iter(features.values()))) if features else 0
        low = np.zeros((rows, len(numbers)), np.float32)
        width = np.ones((rows, len(numbers)), np.float32)
        tokens = np.empty((rows, len(categories)), np.int32)
        quantiles, groups = [], []
        most = TOKENS
        while most > LEAST_TOKENS and sum(_width(min(f.levels, most)) for f in categories) > SLOTS:
            most //= 2
        for i, feature in enumerate(numbers):
            seen = codec.is_continuous(feature.column, features)
            values = features[feature.name][seen]
            if not len(values):  # no row of the fit has a number of its own
                values = features[feature.name]
                seen = np.ones(rows, dtype=bool)
            quantiles.append(Quantiles.empirical(values))
            low[seen, i], width[seen, i] = _ranks(values)
        for i, feature in enumerate(categories):
            group = Grouped.fit(features[feature.name], feature.levels, most)
            groups.append(group)
            tokens[:, i] = group.token(features[feature.name])
        return cls(codec, tuple(quantiles), tuple(groups)), Rows(low, width, tokens)

    def rank(self, number: int, value: float) -> tuple[float, float]:
        """The interval of ranks that stands for a value: its step, or the point between knots."""
        at, values = self.quantiles[number].at, self.quantiles[number].values
        first = int(np.searchsorted(values, value, "left"))
        last = int(np.searchsorted(values, value, "right")) - 1
        if first <= last:
            return float(at[first]), float(at[last])
        point = float(np.interp(value, values, at))
        return point, point

    def features(
        self, ranks: np.ndarray, tokens: np.ndarray, uniform: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Ranks (rows, numbers) in [0, 1], tokens and uniform draws (rows, categories) as the
        codec's features."""
        found = {
            f.name: np.interp(ranks[:, i], q.at, q.values)
            for i, (f, q) in enumerate(zip(self.numbers, self.quantiles, strict=True))
        }
        for i, (f, group) in enumerate(zip(self.categories, self.groups, strict=True)):
            found[f.name] = group.code(tokens[:, i], uniform[:, i])
        return found


def _ranks(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each value's interval of ranks begins, and how wide it is."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    n = np.float64(len(values))
    return (below / n)[inverse].astype(np.float32), (counts / n)[inverse].astype(np.float32)


def _width(tokens: int) -> int:
    """Of a one-hot: the power of two that holds the tokens."""
    return 1 << max(tokens - 1, 1).bit_length()


@dataclass(frozen=True)
class Layout:
    """Where things stand in a row of the network: first the numbers, then a one-hot per category,
    those of one width together, so that they are worked on at once."""

    numbers: int
    order: tuple[int, ...]  # which category of the encoding stands at each place
    widths: tuple[int, ...]  # of the one-hots, ascending powers of two; what is over is padding

    @classmethod
    def of(cls, encoding: Encoding) -> Self:
        widths = [_width(tokens) for tokens in encoding.tokens]
        order = sorted(range(len(widths)), key=lambda i: (widths[i], i))
        return cls(len(encoding.numbers), tuple(order), tuple(widths[i] for i in order))

    @property
    def starts(self) -> np.ndarray:
        """Where each place's one-hot begins among the levels."""
        return np.concatenate([[0], np.cumsum(self.widths)]).astype(np.int64)[:-1]

    def shares(self, encoding: Encoding) -> np.ndarray:
        """The share of every level among the training rows, 0 for padding."""
        shares = np.zeros(sum(self.widths))
        for start, i in zip(self.starts, self.order, strict=True):
            own = encoding.groups[i].shares
            shares[start : start + len(own)] = own
        return shares
