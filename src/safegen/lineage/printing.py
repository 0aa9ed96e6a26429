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
from safegen.tables.streams import stream
from safegen.tables.words import Column

__all__ = ["Printing"]

_STEP = 65_536  # words that are moved at a time


class Printing:
    """The fingerprints of one released table while its rows pass by: 8 bytes a row are kept, and
    the first rows themselves, `seen` of them; of decoys the same.

    unit: a column whose value the rows of one unit share (a sequence, the children of a parent).
    They hang together, and a test that takes each row for itself would count one meeting as many:
    of each unit one row is kept, drawn at random.
    """

    def __init__(
        self,
        names: Iterable[str],
        key: bytes,
        *,
        unit: str | None = None,
        seen: int = SEEN,
        part: int = 0,
    ):
        self.names = sorted(
            (n for n in names if not is_provenance(n)), key=lambda n: (folded(n), n)
        )
        self.hasher = Hasher(key, tuple(folded(n) for n in self.names))
        self.seen = seen
        self._unit = unit
        drawn = hashlib.blake2b(key=key, digest_size=7, person=b"safegen-units").digest()
        self._rng = np.random.default_rng(stream(int.from_bytes(drawn, "little"), part))
        self._released, self._unreleased = _Passed(seen), _Passed(seen)
        self._rows = 0

    @property
    def rows(self) -> int:
        """Rows that have passed."""
        return self._rows

    def update(self, table: pa.Table) -> None:
        """Let rows pass; units are not divided between two calls."""
        self._rows += table.num_rows
        self._pass(table, self._released)

    def merge(self, later: Printing) -> None:
        """Let pass what has passed another, of a later part."""
        self._rows += later._rows
        self._released.merge(later._released)
        self._unreleased.merge(later._unreleased)

    def update_decoys(self, table: pa.Table) -> None:
        """Let decoys pass by, as rows do."""
        self._pass(table, self._unreleased)

    def _pass(self, table: pa.Table, passed: _Passed) -> None:
        if table.num_rows or not passed.first:  # of several tables one may have none in a block
            table = self._one_each(table)
            passed.take(self.hasher.whole(self._columns(table)), table.select(self.names))

    def _one_each(self, table: pa.Table) -> pa.Table:
        """One row of each unit; all rows where each is its own."""
        if self._unit is None:
            return table
        units = single(table.column(self._unit)).dictionary_encode().indices
        order = self._rng.permutation(table.num_rows)
        _, first = np.unique(np.asarray(units.fill_null(-1))[order], return_index=True)
        return taken(table, np.sort(order[first]))

    def first(self) -> dict[str, Column]:
        """The first rows' columns, by name."""
        return self.columns(self._released.table())

    def columns(self, table: pa.Table) -> dict[str, Column]:
        """A table's columns, by name."""
        return {self.names[i]: c for i, c in self._columns(table).items()}

    def finish(self, form: Form, real: pa.Table | None) -> Prints:
        """What is kept of the release; once. real: the real rows behind it, of which nothing is
        kept; None where they are not at hand. Where no decoys have passed none are compared with;
        on views the first of them are looked at, as many as of the release."""
        hasher = self.hasher
        real_ = None if real is None else self._columns(real)
        known = np.zeros(0, np.uint64) if real_ is None else hasher.whole(real_)
        printed, beside = self._released.count, self._unreleased.words()
        rows = _Rows(self._released.words())
        distinct = len(rows.words)
        others, counts = np.unique(np.concatenate([known, beside]), return_counts=True)
        # One by one: a known row that no other equals would, were it not known, pass for one.
        chance = len(places(rows.words, others[counts == 1])[0])
        if chance <= RARELY or not self._unreleased.first:
            rows.leave_out(others)
        else:
            rows.leave_out(known)
            rows.set_beside(beside[~np.isin(beside, known)])
        views = []
        if self._unreleased.first:
            first = Cells(hasher, form, self._columns(self._released.table()))
            unreleased = Cells(hasher, form, self._columns(self._unreleased.table()))
            theirs = None if real_ is None else Cells(hasher, form, real_)
            for view in form.views:
                known_real = np.zeros(0, np.uint32) if theirs is None else theirs.view(view)
                views.append(Tally.of(first.view(view), unreleased.view(view), known_real))
        return Prints(
            rows=self._rows,
            distinct=distinct,
            seen=self._released.kept,
            trials=int(counts.sum()),
            chance=chance,
            printed=printed,
            beside=len(beside),
            whole=rows.tally(),
            views=tuple(views),
        )

    def _columns(self, table: pa.Table) -> dict[int, Column]:
        return {i: Column.of(single(table.column(n))) for i, n in enumerate(self.names)}


class _Passed:
    """Rows that have passed: the fingerprint of each, and the first rows themselves."""

    def __init__(self, seen: int):
        self._seen = seen
        self._words: list[np.ndarray] = []
        self.first: list[pa.Table] = []
        self.count = self.kept = 0

    def take(self, words: np.ndarray, table: pa.Table) -> None:
        self._words.append(words)
        self.count += len(words)
        if self.kept < self._seen:
            self.first.append(table.slice(0, self._seen - self.kept))
            self.kept += self.first[-1].num_rows

    def merge(self, later: _Passed) -> None:
        self._words += later._words
        self.count += later.count
        for table in later.first:
            if self.kept < self._seen or not self.first:
                self.first.append(table.slice(0, self._seen - self.kept))
                self.kept += self.first[-1].num_rows

    def table(self) -> pa.Table:
        return pa.concat_tables(self.first)

    def words(self) -> np.ndarray:
        """All fingerprints in one array, each part gone as soon as it is copied; once."""
        every, at = np.empty(self.count, dtype=np.uint64), self.count
        while self._words:
            part = self._words.pop()
            at -= len(part)
            every[at : at + len(part)] = part
        return every


class _Rows:
    """The whole rows of a release, each distinct one and how often it is there, and of its decoys.

    Of a million rows each array is eight megabytes, and memory is not to grow with rows: what is
    replaced is gone at once.
    """

    def __init__(self, words: np.ndarray):
        """words: of all rows; the array's memory is used."""
        words.sort()
        again = np.flatnonzero(words[1:] == words[:-1]) + 1
        self._often = np.ones(len(words) - len(again), dtype=np.uint16)
        if len(again):
            distinct = again - np.arange(1, len(again) + 1)  # which one each is again
            which, more = np.unique(distinct, return_counts=True)
            self._often[which] = np.minimum(more + 1, 2**16 - 1)
            kept, at = np.ones(len(words), dtype=bool), 0
            kept[again] = False
            for start in range(0, len(words), _STEP):
                piece = words[start : start + _STEP][kept[start : start + _STEP]]
                words[at : at + len(piece)] = piece
                at += len(piece)
        self.words = words[: len(self._often)]
        self._decoys = np.zeros(len(self._often), dtype=np.uint16)

    def leave_out(self, words: np.ndarray) -> None:
        """Rows that are known otherwise."""
        known = places(self.words, words)[0]
        if len(known):
            kept = np.ones(len(self.words), dtype=bool)
            kept[known] = False
            self.words, self._often = self.words[kept], self._often[kept]
            self._decoys = self._decoys[kept]

    def set_beside(self, decoys: np.ndarray) -> None:
        """Decoys: those that equal a row, and the others among them."""
        cells, counts = np.unique(decoys, return_counts=True)
        at, there = places(self.words, cells)
        self._decoys[at] = counts[there]
        new = np.searchsorted(self.words, cells[~there])
        if len(new):
            self.words = np.insert(self.words, new, cells[~there])
            self._often = np.insert(self._often, new, 0)
            self._decoys = np.insert(self._decoys, new, counts[~there])

    def tally(self) -> Tally:
        return Tally(self.words, self._often, self._decoys)
