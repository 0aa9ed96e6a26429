"""A stated part of a table that is too large to be held: drawn in one pass, stratified, by a seed.

The first pass over the rows counts how often each level of each column is there (`Levels`). In the
second each row belongs to the stratum of its rarest level, and of each stratum one row of every
`of / rows` that follow one another is drawn, at random (stratified systematic sampling, Särndal,
Swensson & Wretman 1992, 3.4 and 3.7). So every stratum keeps its share of the rows, rounded up or
down, and no row needs a weight. Of a level that would have no row the first one is drawn: what a
fit has not seen cannot come back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.tables.batches import Batches, is_provenance
from safegen.tables.numbers import decoded, taken
from safegen.tables.types import family, is_text
from safegen.tables.words import mixed

__all__ = ["METHOD", "ROWS", "Draw", "Levels", "counting"]

METHOD = "safegen-draw-v1"
"""Stratified by each row's rarest level, systematic within strata."""

ROWS = 1_000_000
"""Rows that are drawn of what is too large, at most: shares then have an error of .05 points."""

_MOST_LEVELS = 1_000
"""Levels of a column beyond which it makes no strata: most of them would be a row's or two."""


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels of a table's columns of texts and truths, and of those named otherwise, by how
    many rows have them; filled by `counting`. Missing is a level."""

    names: tuple[str, ...]
    counts: dict[str, Counter[Any]]

    @classmethod
    def of(cls, schema: pa.Schema, more: frozenset[str] = frozenset()) -> Levels:
        """Levels to be counted. more: columns of other types that are declared categorical."""
        names = [
            f.name
            for f in schema
            if not is_provenance(f.name)
            and (is_text(f.type) or family(f.type) in ("bool", "dictionary") or f.name in more)
        ]
        return cls(tuple(names), {})

    def ranked(self) -> dict[str, list[tuple[Any, int]]]:
        """The levels of each column that makes strata, in an order that hangs on content alone."""
        return {
            name: sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
            for name, counts in self.counts.items()
            if len(counts) <= _MOST_LEVELS
        }

    @property
    def strata(self) -> int:
        """How many there may be: a level each, and one for rows without any."""
        return 1 + sum(map(len, self.ranked().values()))


def counting(batches: Batches, levels: Levels) -> Batches:
    """The same table; when all of its batches have passed for the first time, their levels are
    counted."""

    def opened() -> Iterator[pa.RecordBatch]:
        if levels.counts:
            yield from batches
            return
        counts: dict[str, Counter[Any]] = {name: Counter() for name in levels.names}
        for batch in batches:
            for name, counted in counts.items():
                if len(counted) <= _MOST_LEVELS:
                    for entry in pc.value_counts(_column(batch, name)).to_pylist():
                        counted[entry["values"]] += entry["counts"]
            yield batch
        levels.counts.update(counts)

    return Batches(batches.schema, opened, batches.rows, batches.held)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    values = decoded(batch.column(batch.schema.get_field_index(name)))
    if pa.types.is_floating(values.type):
        return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values


class Draw:
    """Draws about `rows` of the `of` rows of a table while its batches pass by, in order; which,
    the seed and that order say.

    Every stratum has its share of them, rounded up or down. Every level that was counted has a row
    at least: those that are there for that alone come last.
    """

    def __init__(self, schema: pa.Schema, levels: Levels, *, rows: int, of: int, seed: int):
        ranked = levels.ranked()
        self._levels = {name: [level for level, _ in found] for name, found in ranked.items()}
        self._counts = {name: np.array([n for _, n in found]) for name, found in ranked.items()}
        self._had = {name: np.zeros(len(found), dtype=bool) for name, found in ranked.items()}
        self._firsts: dict[tuple[str, int], tuple[int, pa.Table]] = {}
        self._rows, self._of = rows, of
        self._passed = np.zeros(1 + sum(map(len, ranked.values())), dtype=np.int64)
        self._seed = np.uint64(seed)
        self._seen = 0
        self._kept = [schema.empty_table()]

    def table(self) -> pa.Table:
        """The rows that were drawn."""
        return pa.concat_tables([*self._kept, *self._spared()])

    def __call__(self, batch: pa.RecordBatch) -> None:
        table = pa.Table.from_batches([batch])
        codes = {name: self._coded(batch, name) for name in self._levels}
        stay = self._chosen(self._strata(codes, batch.num_rows))
        for name, found in codes.items():
            had = self._had[name]
            had[found[stay]] = True
            if had.all():
                continue
            new, first = np.unique(found, return_index=True)
            for code, row in zip(new.tolist(), first.tolist(), strict=True):
                if not had[code] and (name, code) not in self._firsts:
                    self._firsts[name, code] = self._seen + row, taken(table, np.array([row]))
        self._seen += batch.num_rows
        self._kept.append(taken(table, np.flatnonzero(stay)))

    def _spared(self) -> list[pa.Table]:
        """The first row of each level of which none was drawn, each row once."""
        found = {
            row: table
            for (name, code), (row, table) in self._firsts.items()
            if not self._had[name][code]
        }
        return [found[row] for row in sorted(found)]

    def _coded(self, batch: pa.RecordBatch, name: str) -> np.ndarray:
        """(rows,) the number of each row's level."""
        values = _column(batch, name)
        known = pa.array(self._levels[name], type=values.type)
        # A level that was not counted is one of another file: its digest will say so.
        return np.asarray(pc.fill_null(pc.index_in(values, value_set=known), 0)).astype(np.int64)

    def _strata(self, codes: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        """(rows,) the stratum of each row: its rarest level."""
        strata, least, at = np.zeros(rows, dtype=np.int64), np.full(rows, self._of + 1), 1
        for name, found in codes.items():
            counts = self._counts[name][found]
            rarer = counts < least
            strata[rarer], least[rarer] = at + found[rarer], counts[rarer]
            at += len(self._counts[name])
        return strata

    def _chosen(self, strata: np.ndarray) -> np.ndarray:
        """(rows,) bool: of each stratum one row of each run of `of / rows`."""
        order = np.argsort(strata, kind="stable")
        counts = np.bincount(strata, minlength=len(self._passed))
        rank = np.empty(len(strata), dtype=np.int64)
        starts = np.cumsum(counts) - counts
        rank[order] = np.arange(len(strata)) - starts[strata[order]]
        number = self._passed[strata] + rank  # of the row in its stratum
        self._passed += counts
        run = number * self._rows // self._of
        start, end = (-(-k * self._of // self._rows) for k in (run, run + 1))
        words = mixed(strata.astype(np.uint64) + self._seed) + run.astype(np.uint64)
        at = mixed(words * np.uint64(0x9E3779B97F4A7C15)) % (end - start).astype(np.uint64)
        chosen: np.ndarray = number - start == at.astype(np.int64)
        return chosen
