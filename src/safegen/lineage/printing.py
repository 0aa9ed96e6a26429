"""Taking the fingerprints of a release while its rows pass by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from safegen.lineage.fingerprints import RARELY, SEEN, Cells, Hasher, Prints, Tally, places
from safegen.lineage.forms import Form
from safegen.tables.batches import is_provenance
from safegen.tables.digests import folded
from safegen.tables.numbers import single, taken
from safegen.tables.words import Column

__all__ = ["Printing"]


class Printing:
    """The fingerprints of one released table while its rows pass by: 8 bytes a row are kept, and
    the first rows themselves, `seen` of them.

    unit: a column whose value the rows of one unit share (a sequence, the children of a parent).
    They hang together, and a test that takes each row for itself would count one meeting as many:
    of each unit one row is kept, drawn at random.
    """

    def __init__(
        self, names: Iterable[str], key: bytes, *, unit: str | None = None, seen: int = SEEN
    ):
        self.names = sorted(
            (n for n in names if not is_provenance(n)), key=lambda n: (folded(n), n)
        )
        self.hasher = Hasher(key, tuple(folded(n) for n in self.names))
        self.seen = seen
        self._unit = unit
        drawn = hashlib.blake2b(key=key, digest_size=7, person=b"safegen-units").digest()
        self._rng = np.random.default_rng(int.from_bytes(drawn, "little"))
        self._whole: list[np.ndarray] = []
        self._first: list[pa.Table] = []
        self._kept = self._rows = 0

    @property
    def rows(self) -> int:
        """Rows that have passed."""
        return self._rows

    def update(self, table: pa.Table) -> None:
        """Let rows pass; units are not divided between two calls."""
        if not table.num_rows and self._first:  # of several tables one may have none in a block
            return
        self._rows += table.num_rows
        table = self.one_each(table)
        self._whole.append(self.hasher.whole(self._columns(table)))
        if self._kept < self.seen:
            self._first.append(table.select(self.names).slice(0, self.seen - self._kept))
            self._kept += self._first[-1].num_rows

    def one_each(self, table: pa.Table) -> pa.Table:
        """One row of each unit; all rows where each is its own."""
        if self._unit is None:
            return table
        units = single(table.column(self._unit)).dictionary_encode().indices
        order = self._rng.permutation(table.num_rows)
        _, first = np.unique(np.asarray(units.fill_null(-1))[order], return_index=True)
        return taken(table, np.sort(order[first]))

    def first(self) -> dict[str, Column]:
        """The first rows' columns, by name."""
        return self.columns(pa.concat_tables(self._first))

    def columns(self, table: pa.Table) -> dict[str, Column]:
        """A table's columns, by name."""
        return {self.names[i]: c for i, c in self._columns(table).items()}

    def finish(self, form: Form, decoys: pa.Table | None, real: pa.Table | None) -> Prints:
        """What is kept of the release; once. real: the real rows behind it, of which nothing is
        kept; None where they are not at hand, as decoys where no more can be drawn. These are one
        of each unit, too; on views the first of them are looked at, as many as of the release."""
        hasher = self.hasher
        # Of a million rows each array is eight megabytes, and memory is not to grow with rows.
        every = np.concatenate(self._whole)
        self._whole.clear()
        printed = len(every)
        released, often = _counted(every)
        del every
        real_, decoys_ = (None if t is None else self._columns(t) for t in (real, decoys))
        known, beside = (
            np.zeros(0, np.uint64) if c is None else hasher.whole(c) for c in (real_, decoys_)
        )
        others, counts = np.unique(np.concatenate([known, beside]), return_counts=True)
        # One by one: a known row that no other equals would, were it not known, pass for one.
        chance = len(places(released, others[counts == 1])[0])
        rarely = chance <= RARELY or decoys_ is None
        whole = _whole(
            released, often, others if rarely else known, beside[:0] if rarely else beside
        )
        views = []
        if decoys_ is not None:
            first = Cells(hasher, form, self._columns(pa.concat_tables(self._first)))
            as_many = np.arange(min(self.seen, len(beside)))
            unreleased = Cells(hasher, form, {i: c[as_many] for i, c in decoys_.items()})
            theirs = None if real_ is None else Cells(hasher, form, real_)
            for view in form.views:
                known_real = np.zeros(0, np.uint32) if theirs is None else theirs.view(view)
                views.append(Tally.of(first.view(view), unreleased.view(view), known_real))
        return Prints(
            rows=self._rows,
            distinct=len(often),
            seen=self._kept,
            trials=int(counts.sum()),
            chance=chance,
            printed=printed,
            beside=len(beside),
            whole=whole,
            views=tuple(views),
        )

    def _columns(self, table: pa.Table) -> dict[int, Column]:
        return {i: Column.of(single(table.column(n))) for i, n in enumerate(self.names)}


def _counted(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct words, in order, and how often each is there; the array's own memory is used."""
    words.sort()
    new = words[1:] != words[:-1]
    if new.all():  # the usual case, without eight bytes a row for places
        return words, np.ones(len(words), dtype=np.uint16)
    first = np.flatnonzero(np.concatenate([[True], new]))
    often = np.minimum(np.diff(first, append=len(words)), 2**16 - 1).astype(np.uint16)
    return words[first], often


def _whole(
    released: np.ndarray, often: np.ndarray, without: np.ndarray, beside: np.ndarray
) -> Tally:
    """The tally of a release's whole rows and of its decoys', without some cells of either."""
    kept = np.ones(len(released), dtype=bool)
    kept[places(released, without)[0]] = False
    released, often = released[kept], often[kept]
    cells, counts = np.unique(beside[~np.isin(beside, without)], return_counts=True)
    decoys = np.zeros(len(released), dtype=np.uint16)
    at, there = places(released, cells)
    decoys[at] = counts[there]
    new = np.searchsorted(released, cells[~there])
    if not len(new):
        return Tally(released, often, decoys)
    return Tally(
        np.insert(released, new, cells[~there]),
        np.insert(often, new, 0),
        np.insert(decoys, new, counts[~there]),
    )
