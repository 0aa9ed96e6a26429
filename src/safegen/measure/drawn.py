"""A random part of rows that pass by once, of bounded size: what costly measures look at."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from safegen.tables.numbers import taken
from safegen.tables.streams import stream

__all__ = ["Drawn", "Reservoir"]


_SPARE = 10  # standard deviations


@dataclass(frozen=True, eq=False)
class Drawn:
    """Rows drawn at random without replacement, in no order. weights: (rows,), above 0."""

    table: pa.Table
    weights: np.ndarray

    @property
    def weighted(self) -> bool:
        return len(self.weights) > 0 and bool(np.ptp(self.weights))


@dataclass
class Reservoir:
    """Keeps `most` rows of all that pass: each gets a random key, and the smallest keys stay.

    (Vitter's reservoir by keys, as Efraimidis & Spirakis 2006 write it: every set of `most` rows is
    equally likely, however the rows are cut into batches.) The keys are of the seed, of the number
    of the part of a release that passes here, and of the row's number in it, so that the same rows
    are kept when the same release is made again, whoever makes its parts.
    """

    most: int
    seed: int
    part: int = 0
    rows: int | None = None  # that will pass in all parts, where that is known
    seen: int = 0
    _batches: list[tuple[pa.Table, np.ndarray, np.ndarray]] = field(default_factory=list)
    _cut: float = np.inf

    def __post_init__(self) -> None:
        # Of so many keys the smallest ones are below, but for once in 10^20 times: no part keeps,
        # and sends, what others will have smaller ones than.
        if self.rows is not None:
            self._cut = (self.most + _SPARE * self.most**0.5) / self.rows

    def update(self, table: pa.Table, weights: np.ndarray) -> None:
        """Let rows pass."""
        rng = np.random.default_rng(stream(self.seed, self.part, self.seen))
        keys = rng.random(table.num_rows)
        self.seen += table.num_rows
        stay = np.flatnonzero(keys < self._cut)
        if len(stay):
            self._batches.append((taken(table, stay), weights[stay], keys[stay]))
        self._keep_few()

    def merge(self, other: Reservoir) -> None:
        """Let pass what has passed another, of another part."""
        self.seen += other.seen
        self._batches += other._batches
        self._keep_few()

    def _keep_few(self) -> None:
        if sum(len(k) for _, _, k in self._batches) > 2 * self.most:
            self._thin()

    def _thin(self) -> None:
        keys = np.concatenate([k for _, _, k in self._batches])
        if len(keys) <= self.most and len(self._batches) == 1:
            return
        stay = np.argsort(keys, kind="stable")[: self.most]
        table = taken(pa.concat_tables([t for t, _, _ in self._batches]), stay)
        weights = np.concatenate([w for _, w, _ in self._batches])[stay]
        if len(stay) == self.most:
            self._cut = min(self._cut, float(keys[stay[-1]]))
        self._batches = [(table, weights, keys[stay])]

    def value(self) -> Drawn | None:
        """The rows kept; None when none has passed."""
        if not self._batches:
            return None
        self._thin()
        ((table, weights, _),) = self._batches
        return Drawn(table, weights)
