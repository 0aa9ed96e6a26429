"""Taking the fingerprints of a release while its rows pass by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from safegen.lineage.fingerprints import RARELY, SEEN, Cells, Hasher, Prints, Tally, places
from safegen.lineage.forms import Form
from safegen.lineage.runs import MOST_OFTEN, Runs
from safegen.tables.batches import is_provenance
from safegen.tables.digests import folded
from safegen.tables.numbers import single, taken
from safegen.tables.streams import stream
from safegen.tables.words import Column

__all__ = ["Printing"]


class Printing:
    """The fingerprints of one released table while its rows pass by, and the first rows themselves,
    `seen` of them; of decoys the same. Some megabytes, however many rows pass; of a part of a
    release it can be pickled, and is merged with those of the parts before.

    unit: a column whose value the rows of one unit share (a sequence, the children of a parent).
    They hang together, and a test that takes each row for itself would count one meeting as many:
    of each unit one row is kept, drawn at random, in each part by a stream of its own.
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

    def __getstate__(self) -> dict[str, object]:
        """Without the ledger's key: what was sent can be merged into another, and no more."""
        return {**vars(self), "hasher": None}

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
        rows, beside = self._released.words, self._unreleased.words.words()
        others, counts = np.unique(np.concatenate([known, beside]), return_counts=True)
        # One by one: a known row that no other equals would, were it not known, pass for one.
        alone = others[counts == 1]
        distinct = chance = 0
        for words, _ in rows:
            distinct += len(words)
            chance += len(places(words, _within(alone, words)[0])[0])
        if chance <= RARELY or not self._unreleased.first:
            known, beside_ = others, np.zeros(0, np.uint64)
        else:
            known, beside_ = np.unique(known), beside[~np.isin(beside, known)]
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
            printed=rows.count,
            beside=len(beside),
            whole=_whole(rows, known, beside_),
            views=tuple(views),
        )

    def _columns(self, table: pa.Table) -> dict[int, Column]:
        return {i: Column.of(single(table.column(n))) for i, n in enumerate(self.names)}


class _Passed:
    """Rows that have passed: the fingerprint of each, and the first rows themselves."""

    def __init__(self, seen: int):
        self._seen = seen
        self.words = Runs()
        self.first: list[pa.Table] = []
        self.kept = 0

    def take(self, words: np.ndarray, table: pa.Table) -> None:
        self.words.add(words)
        self._keep(table)

    def merge(self, later: _Passed) -> None:
        self.words.merge(later.words)
        for table in later.first:
            self._keep(table)

    def _keep(self, table: pa.Table) -> None:
        if self.kept < self._seen or not self.first:
            few = min(self._seen - self.kept, table.num_rows)
            self.first.append(taken(table, np.arange(few)))  # a slice would keep all of them
            self.kept += self.first[-1].num_rows

    def table(self) -> pa.Table:
        return pa.concat_tables(self.first)


def _whole(rows: Runs, known: np.ndarray, decoys: np.ndarray) -> Tally:
    """The whole rows of a release without known ones, which are distinct and in order, and its
    decoys: those that equal a row, and the others among them."""
    unreleased, many = np.unique(decoys[decoys < rows.bound], return_counts=True)
    counts: np.ndarray = np.minimum(many, MOST_OFTEN).astype(np.uint16)
    new = np.ones(len(unreleased), dtype=bool)
    kept = []
    for words, often in rows:
        left = np.ones(len(words), dtype=bool)
        left[places(words, _within(known, words)[0])[0]] = False
        if not left.all():
            words, often = words[left], often[left]
        some, start = _within(unreleased, words)
        at, there = places(words, some)
        beside: np.ndarray = np.zeros(len(words), dtype=np.uint16)
        beside[at] = counts[start : start + len(some)][there]
        new[start : start + len(some)] &= ~there
        kept.append((words, often, beside))
    kept.append((unreleased[:0], counts[:0], counts[:0]))
    words, often, beside = (np.concatenate(column) for column in zip(*kept, strict=True))
    if new.any():
        at = np.searchsorted(words, unreleased[new])
        words, often = np.insert(words, at, unreleased[new]), np.insert(often, at, 0)
        beside = np.insert(beside, at, counts[new])
    return Tally(words, often, beside)


def _within(some: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, int]:
    """Of some fingerprints those from the first to the last of others, and where they begin; both
    are in order."""
    if not len(words):
        return some[:0], 0
    start = int(np.searchsorted(some, words[0]))
    return some[start : np.searchsorted(some, words[-1], "right")], start
