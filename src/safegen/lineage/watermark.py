"""A keyed trace in rows (`safegen-mss1`): of two candidates the one with the higher score is kept.

No value is edited. Every coarse view of the table's form gives a row a score from 0 to 1, the
keyed hash of its cell; candidates are compared by the sum of theirs (RINTAW/MUSE, 2505.24267, by
cells and not by columns). A view's score counts for the first rows of a block that are in a cell,
so that common cells do not become more common.

Who holds the key adds up the scores of the *distinct* cells that a table has. For a table that has
nothing to do with the key these are independent and uniform, whatever the table is: the null
hypothesis is about the key, not about the data. So no decoys are needed, and no odd part of reality
is accused; the sum of D uniform numbers has a tail below exp(-z²/2) at z standard deviations of
(D/12)^½ (Hoeffding's bound: a uniform number is strictly sub-Gaussian).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from scipy.special import ndtr

from safegen.lineage.fingerprints import Cells, Hasher
from safegen.lineage.forms import Form, Matched, View
from safegen.tables.digests import folded
from safegen.tables.numbers import single
from safegen.tables.words import Column

__all__ = ["Watermark"]

CAP = 4
"""Rows of a block whose score counts a cell. More make common cells more common, which is seen and
says no more: cells are counted once."""

UPLIFT = 1 / 12**0.5 / np.pi**0.5
"""By how much the better of two sums of scores is above their mean, for one view alone: that of two
normal numbers is by π^-½ standard deviations. Of V views each has V^-½ of it."""


@dataclass(frozen=True, eq=False)
class Watermark:
    """The scores of tables of one form, under one key that is derived from a ledger's."""

    key: bytes
    form: Form

    @classmethod
    def of(cls, ledger_key: bytes, form: Form) -> Watermark:
        """The watermark of a ledger's key: from it nobody finds that one, or fingerprints."""
        return cls(
            hashlib.blake2b(key=ledger_key, digest_size=32, person=b"safegen-mss1").digest(), form
        )

    @cached_property
    def views(self) -> tuple[View, ...]:
        """The views that are scored."""
        return tuple(v for v in self.form.views if v.cut == "coarse")

    @cached_property
    def _hasher(self) -> Hasher:
        return Hasher(self.key, tuple(c.name for c in self.form.columns))

    def preferences(self, candidates: pa.Table) -> np.ndarray:
        """(rows,) float64 from 0 to 1: as if uniform, whichever the rows are, over all keys.

        candidates: of a block from its first on, with the form's columns.
        """
        columns = self._columns(candidates)
        cells = Cells(self._hasher, self.form, columns)
        total, counted = np.zeros(candidates.num_rows), np.zeros(candidates.num_rows)
        for view in self.views:
            words = cells.words(view)
            new = _nth(words) < CAP
            total += np.where(new, _scores(words) - 0.5, 0.0)
            counted += new
        found: np.ndarray = ndtr(total / np.sqrt(np.maximum(counted, 1) / 12))
        return found

    def strength(self, rows: pa.Table) -> float:
        """How much of the watermark rows have: 0 none, 1 as much as there can be, where each was
        the better of two and has cells of its own."""
        sum_, cells, _ = self.sum(self._columns(rows), None)
        return float(sum_ / max(self.full(cells), 1e-12))

    def full(self, cells: int) -> float:
        """The sum of so many cells where each row was the better of two."""
        return float(cells * UPLIFT / max(len(self.views), 1) ** 0.5)

    def _columns(self, table: pa.Table) -> dict[int, Column]:
        names = {folded(n): n for n in table.column_names}
        return {
            i: Column.of(single(table.column(names[c.name])))
            for i, c in enumerate(self.form.columns)
        }

    def sum(self, columns: Mapping[int, Column], match: Matched | None) -> tuple[float, int, int]:
        """Of a table's distinct cells the sum of scores less what chance gives, how many there are,
        and in how many views."""
        cells = Cells(self._hasher, self.form, columns, match)
        total, count = 0.0, 0
        there = [v for v in self.views if match is None or match.has(v)]
        for view in there:
            words = np.sort(cells.words(view))  # numpy's `unique` of numbers would hash them first
            distinct = words[np.flatnonzero(np.diff(words, prepend=~words[:1]))]
            total += float((_scores(distinct) - 0.5).sum())
            count += len(distinct)
        return total, count, len(there)


def _scores(words: np.ndarray) -> np.ndarray:
    found: np.ndarray = (words >> np.uint64(11)) * 2.0**-53
    return found


def _nth(words: np.ndarray) -> np.ndarray:
    """(rows,) how many rows before each have the same word."""
    order = np.argsort(words, kind="stable")
    run = words[order]
    starts = np.flatnonzero(np.concatenate([[True], run[1:] != run[:-1]]))
    lengths = np.diff(np.concatenate([starts, [len(run)]]))
    found = np.empty(len(words), dtype=np.int64)
    found[order] = np.arange(len(run)) - np.repeat(starts, lengths)
    return found
