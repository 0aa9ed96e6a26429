"""Columns as numbers of cells, fixed once on the real rows and applied to any rows after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.errors import UsageError
from safegen.measure.compared import comparable, floats, plain
from safegen.tables.matching import matching
from safegen.tables.numbers import decoded
from safegen.tables.schema import TableSchema
from safegen.tables.types import family

if TYPE_CHECKING:
    from safegen.policy import NamedStratum

__all__ = ["Coder", "Coding", "Rarest", "check_named"]

FINE, COARSE = 100, 10
"""Bins of a column on its own, and of one of a pair: deciles, as the pair error has them."""

LEVELS = {True: 1_000, False: 64}
"""Levels with a cell of their own, the most frequent ones: of a column on its own, and of a pair.
The others share one."""


@dataclass(frozen=True, eq=False)
class _Numbers:
    name: str
    fine: np.ndarray  # upper edges, closed: a point mass ends its bin
    coarse: np.ndarray

    def cells(self, column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """0 where missing, 1 … for the bins; above all edges too."""
        values = floats(column)
        missing = np.isnan(values)
        found = []
        for edges in (self.fine, self.coarse):
            bins = np.searchsorted(edges, values, "left").astype(np.int32) + 1
            bins[missing] = 0
            found.append(bins)
        return found[0], found[1]

    def width(self, *, fine: bool) -> int:
        return len(self.fine if fine else self.coarse) + 2


@dataclass(frozen=True, eq=False)
class _Levels:
    name: str
    levels: pa.Array  # by falling frequency

    def cells(self, column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """0 where missing, 1 … for the levels, and one more for any other."""
        array = plain(column)
        found = pc.index_in(array.cast(self.levels.type), value_set=self.levels, skip_nulls=True)
        fine = np.asarray(found.fill_null(len(self.levels))).astype(np.int32) + 1
        if array.null_count:
            fine[np.asarray(array.is_null())] = 0
        return fine, np.minimum(fine, self.width(fine=False) - 1)

    def width(self, *, fine: bool) -> int:
        return min(len(self.levels), LEVELS[fine]) + 2


@dataclass(frozen=True, eq=False)
class _Named:
    """Rows inside (1) and outside (0) of a stratum that the policy names."""

    name: str
    where: NamedStratum

    def cells(self, column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        table = pa.table({self.where.column: column})
        if self.where.equals is not None:
            table = table.append_column("row", pa.array(np.arange(len(column))))
            found = np.zeros(len(column), dtype=np.int32)
            met = matching(table, {self.where.column: self.where.equals})
            found[met.column("row").to_numpy()] = 1
            return found, found
        values = floats(column)
        low = -np.inf if self.where.above is None else self.where.above
        high = np.inf if self.where.below is None else self.where.below
        found = ((values > low) & (values < high)).astype(np.int32)
        return found, found

    def width(self, *, fine: bool) -> int:
        return 2


@dataclass(frozen=True, eq=False)
class Coding:
    """Rows in a coder's cells, per column, (rows,) int32: on its own, and as one of a pair."""

    fine: Sequence[np.ndarray]
    coarse: Sequence[np.ndarray]
    rows: int

    def part(self, start: int, rows: int) -> Coding:
        """Some rows from `start` on."""
        end = min(start + rows, self.rows)
        fine, coarse = ([x[start:end] for x in cells] for cells in (self.fine, self.coarse))
        return Coding(fine, coarse, end - start)


@dataclass(frozen=True, eq=False)
class Rarest:
    """Which cell of a row is the rarest, by the shares of cells among other rows."""

    shares: Sequence[np.ndarray]  # by column

    def __call__(self, rows: Coding) -> np.ndarray:
        """(rows,) int64: the same number where the same cell of the same column is the rarest."""
        least = np.full(rows.rows, np.inf)
        found = np.zeros(rows.rows, dtype=np.int64)
        first = 0
        for shares, codes in zip(self.shares, rows.fine, strict=True):
            share = shares[codes]
            rarer = share < least
            least[rarer], found[rarer] = share[rarer], first + codes[rarer]
            first += len(shares)
        return found


@dataclass(frozen=True, eq=False)
class Coder:
    """The cells of every column that has a distribution to keep: not of ids and personal data."""

    columns: tuple[_Numbers | _Levels | _Named, ...]

    @classmethod
    def of(cls, real: pa.Table, schema: TableSchema, named: Sequence[NamedStratum] = ()) -> Coder:
        """Cells from the real rows: their quantiles and their most frequent levels, and inside and
        outside of each of the strata that are named.

        Raises: UsageError for a stratum of a column that is not there, or that has no numbers.
        """
        found: list[_Numbers | _Levels | _Named] = []
        for column in comparable(schema):
            values = real.column(column.name)
            if column.kind in ("numeric", "datetime"):
                numbers = np.sort(floats(values))
                numbers = numbers[: len(numbers) - int(np.isnan(numbers).sum())]
                found.append(_Numbers(column.name, _edges(numbers, FINE), _edges(numbers, COARSE)))
            else:
                counts = pc.value_counts(plain(values).drop_null())
                order = np.argsort(-np.asarray(counts.field("counts")), kind="stable")
                levels = counts.field("values").take(pa.array(order[: LEVELS[True]]))
                found.append(_Levels(column.name, levels))
        for where in named:
            check_named(where, real)
            found.append(_Named(where.column, where))
        return cls(tuple(found))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    def is_levels(self, column: int) -> bool:
        return isinstance(self.columns[column], _Levels)

    def is_named(self, column: int) -> bool:
        return isinstance(self.columns[column], _Named)

    def width(self, column: int, *, fine: bool) -> int:
        return self.columns[column].width(fine=fine)

    def rarest(self, rows: Coding) -> Rarest:
        """By the shares of cells among these rows."""
        widths = [self.width(i, fine=True) for i in range(len(self.columns))]
        counts = [np.bincount(c, minlength=w) for c, w in zip(rows.fine, widths, strict=True)]
        return Rarest([c / max(rows.rows, 1) for c in counts])

    def code(self, table: pa.Table) -> Coding:
        """These rows in cells."""
        cells = [c.cells(table.column(c.name)) for c in self.columns]
        return Coding([fine for fine, _ in cells], [coarse for _, coarse in cells], table.num_rows)


def check_named(where: NamedStratum, real: pa.Table) -> None:
    """Raises: UsageError for a stratum of a column that is not there, or that cannot be met."""
    if where.column not in real.column_names:
        raise UsageError(f"the policy names a stratum of column {where.column!r}: there is none")
    numbers = family(decoded(real.column(where.column)).type) in ("int", "float", "decimal")
    if where.equals is None and not numbers:
        raise UsageError(
            f"the policy names a stratum of column {where.column!r} above or below a number, and "
            "it holds none: say equals"
        )
    try:
        matching(real.slice(0, 0), {where.column: where.equals})
    except UsageError:
        raise UsageError(
            f"the policy names a stratum of column {where.column!r} by a value of equals that no "
            f"{real.schema.field(where.column).type} is"
        ) from None


def _edges(numbers: np.ndarray, bins: int) -> np.ndarray:
    """Upper edges of `bins` bins of equal mass that are values of the data; few distinct numbers
    are bins of their own."""
    distinct = np.unique(numbers)
    if len(distinct) <= bins:
        return distinct
    upto = -(-np.arange(1, bins) * len(numbers) // bins)
    return np.unique(numbers[upto - 1])
