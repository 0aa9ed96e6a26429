"""What gates hold a release against, counted in all real rows where a fit saw some of them.

Which levels and tails there are, the rows that were drawn say: their quantiles are where a tail
begins. How many real rows there are of each, and the bounds of ranges, all rows say, batch by
batch. Of identifiers a model can only hand out those that it has seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.measure.clusters import Spread
from safegen.measure.identifiers import Identifiers
from safegen.measure.profile import ColumnProfile, TableProfile, missing, numbers
from safegen.tables.matching import matching
from safegen.tables.schema import TableSchema

if TYPE_CHECKING:
    from safegen.contracts import Scalar

__all__ = ["WholeTally"]

_MOST_LEVELS = 1 << 17
"""Levels of a column that were not drawn and are counted, at most: of a column with more hardly any
has the rows to be judged."""


class WholeTally:
    """Counts the rows of a table that meet the conditions, batch by batch, given the profile of
    those of them that were drawn."""

    def __init__(
        self, drawn: TableProfile, schema: TableSchema, conditions: Mapping[str, Scalar]
    ) -> None:
        self._drawn, self._conditions, self._rows = drawn, conditions, 0
        self._columns = {n: _Counts(p) for n, p in drawn.columns.items() if p.judged}
        alone = schema.entity is None and all(c.references is None for c in schema.columns)
        self._people = {n: _People(i) for n, i in drawn.identifiers.items() if alone}

    def __call__(self, batch: pa.RecordBatch) -> None:
        table = pa.Table.from_batches([batch])
        here = {k: v for k, v in self._conditions.items() if k in table.schema.names}
        kept = matching(table, here) if here else table
        self._rows += kept.num_rows
        for name in set(self._columns) & set(batch.schema.names):
            self._columns[name].update(kept.column(name), table.column(name))
        for name, one in self._people.items():
            one.update(table.column(name))

    def profile(self) -> TableProfile:
        """The profile of all rows."""
        drawn = self._drawn
        columns = {n: replace(p, rows=self._rows) for n, p in drawn.columns.items()}
        columns |= {n: c.profile(self._rows) for n, c in self._columns.items()}
        people = {n: p.value() for n, p in self._people.items()}
        return replace(
            drawn,
            rows=self._rows,
            columns=columns,
            identifiers={**drawn.identifiers, **people},
        )


@dataclass
class _Counts:
    """One column of all rows, as they pass."""

    drawn: ColumnProfile
    missing: int = 0
    levels: Counter[Any] = field(default_factory=Counter)
    known: set[Any] = field(default_factory=set)
    tails: Counter[str] = field(default_factory=Counter)
    low: Any = None
    high: Any = None
    bounds: tuple[Any, Any] | None = None  # within the conditions

    def __post_init__(self) -> None:
        self.known |= self.drawn.known

    def update(self, kept: pa.ChunkedArray, every: pa.ChunkedArray) -> None:
        self.missing += missing(kept)
        values = None if self.drawn.column.kind == "categorical" else numbers(kept)
        if values is None:
            self._count(kept, every)
            return
        if len(values):
            low, high = self.bounds or (values.min(), values.max())
            self.bounds = min(low, values.min()), max(high, values.max())
        for side, (cut, _) in self.drawn.tails.items():
            beyond = values < cut if side == "low" else values > cut
            self.tails[side] += int(beyond.sum())
        whole = numbers(every)
        assert whole is not None
        if whole.dtype.kind == "f":  # what is not drawn was not looked at for infinite ones
            whole = whole[np.isfinite(whole)]
        if len(whole):
            self.low = whole.min() if self.low is None else min(self.low, whole.min())
            self.high = whole.max() if self.high is None else max(self.high, whole.max())

    def _count(self, kept: pa.ChunkedArray, every: pa.ChunkedArray) -> None:
        levels = self.drawn.levels or {}
        for entry in pc.value_counts(kept).to_pylist():
            level = entry["values"]
            there = level in self.levels or level in levels or len(self.levels) < _MOST_LEVELS
            if level is not None and level == level and there:
                self.levels[level] += entry["counts"]
        if len(self.known) < _MOST_LEVELS:
            self.known |= {v for v in pc.unique(every).to_pylist() if v is not None and v == v}

    def profile(self, rows: int) -> ColumnProfile:
        """As `ColumnProfile.of` gives it of rows in memory."""
        drawn = self.drawn
        shown, of = rows - self.missing, drawn.rows - drawn.missing
        if drawn.levels is not None or self.levels:
            held: dict[Any, int] = dict(self.levels.most_common())
            return replace(
                drawn,
                rows=rows,
                missing=self.missing,
                levels=held,
                known=frozenset(self.known),
                top=max(held.values(), default=0),
                constant=len(held) == 1,
                spreads=(Spread("rows", rows, held=held),),
            )
        held = {side: self.tails[side] for side in drawn.tails}
        low, high = self.bounds or (None, None)
        return replace(
            drawn,
            rows=rows,
            missing=self.missing,
            low=self.low,
            high=self.high,
            tails={side: (cut, held[side]) for side, (cut, _) in drawn.tails.items()},
            # The most frequent number has the share that it has among those drawn.
            top=min(shown, round(drawn.top / of * shown)) if of else 0,
            constant=bool(shown) and low == high,
            spreads=(Spread("rows", rows, held=held),),
        )


class _People:
    """How many rows have each identifier that was drawn, where each row is one person's."""

    def __init__(self, drawn: Identifiers):
        self._drawn = drawn
        self._rows = np.zeros(len(drawn.values), dtype=np.int64)

    def update(self, column: pa.ChunkedArray) -> None:
        at = self._drawn.places(column)
        self._rows += np.bincount(at[at >= 0], minlength=len(self._rows))

    def value(self) -> Identifiers:
        return replace(self._drawn, people=self._rows)
