"""In which order rows are seen: shuffled anew each epoch, shared by ranks and workers, and so that
any batch can be gone to without reading those before it.

The groups of a table are put into a random order, the rows within each too, and this sequence is
cut into shares of equal size, one for each rank and worker. Each reads the groups of its share
only, a few at a time, and mixes their rows. So memory is that of a few groups, and every row is in
one share, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Order", "Piece"]

MIXED = 8
"""Groups whose rows are mixed: of 65,536 rows each, half a million."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Rows of a group, by their numbers in it, in the order in which they are seen."""

    group: int
    rows: np.ndarray


@dataclass(frozen=True)
class Order:
    """The order of one share of a table's rows in one epoch.

    sizes: rows of each group. share, shares: which part of how many equal ones. seed: None keeps
    the rows as they lie.
    """

    sizes: tuple[int, ...]
    seed: int | None
    epoch: int = 0
    share: int = 0
    shares: int = 1

    @property
    def rows(self) -> int:
        """Rows of the share; those of two shares differ by one at most."""
        start, stop = self._bounds()
        return stop - start

    def _bounds(self) -> tuple[int, int]:
        total = sum(self.sizes)
        return (
            total * self.share // self.shares,
            total * (self.share + 1) // self.shares,
        )

    def pieces(self) -> list[tuple[int, int, int]]:
        """(group, from, to) of the share: positions within the order of each group's rows."""
        groups = range(len(self.sizes))
        order: Sequence[int] = groups
        if self.seed is not None:
            order = self._rng(0).permutation(len(self.sizes)).tolist()
        start, stop = self._bounds()
        found, at = [], 0
        for group in order:
            size = self.sizes[group]
            low, high = max(start - at, 0), min(stop - at, size)
            if low < high:
                found.append((group, low, high))
            at += size
        return found

    def mixed(self, first: int = 0) -> Iterator[tuple[list[Piece], np.ndarray]]:
        """The share's rows from number `first` on, a few groups at a time: their pieces, and the
        order in which the rows of these, one piece after the other, are seen."""
        every, at = self.pieces(), 0
        step = MIXED if self.seed is not None else 1
        for number in range(0, len(every), step):
            some = every[number : number + step]
            size = sum(high - low for _, low, high in some)
            skipped = max(first - at, 0)
            at += size
            if skipped >= size:
                continue
            order = np.arange(size)
            if self.seed is not None:
                order = self._rng(2, self.share, self.shares, number).permutation(size)
            yield [self._piece(*one) for one in some], order[skipped:]

    def _piece(self, group: int, low: int, high: int) -> Piece:
        if self.seed is None:
            return Piece(group, np.arange(low, high))
        return Piece(group, self._rng(1, group).permutation(self.sizes[group])[low:high])

    def _rng(self, *what: int) -> np.random.Generator:
        assert self.seed is not None
        return np.random.default_rng([self.seed, self.epoch, *what])
