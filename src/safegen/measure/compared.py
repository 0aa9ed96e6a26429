"""Two tables of one schema, column by column in the same codes: what every comparison starts from.

Ids and invented personal data have no distribution to keep and are left out. Missing values,
null or NaN, are a level of their own everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.errors import UsageError
from safegen.tables.numbers import decoded, to_numbers
from safegen.tables.schema import Column, TableSchema
from safegen.tables.types import family

__all__ = ["Compared", "Pair", "comparable", "compared", "floats", "plain", "subset"]

FEW = 10  # distinct numbers, each of which is a bin of its own

Pair = tuple[np.ndarray, np.ndarray]  # of the real rows, of the generated rows


@dataclass(frozen=True, eq=False)
class Compared:
    """One column of both tables.

    values: the numbers, float64, NaN where missing; None for a column of levels. codes: the
    column's ordered distinct numbers (or its levels), 0 for missing, 1 … cells − 1. bins: for
    numbers the bins between the real table's deciles, closed on the right, as
    `pandas.qcut` makes them (at most ten distinct numbers are their own bins), 0 for missing;
    for levels the codes.
    """

    name: str
    values: Pair | None
    codes: Pair
    cells: int
    bins: Pair
    widths: int  # number of bins

    @property
    def numeric(self) -> bool:
        return self.values is not None


def compared(real: pa.Table, made: pa.Table, schema: TableSchema) -> list[Compared]:
    """The columns worth comparing. Raises: UsageError for a table without rows or a column."""
    for what, table in (("real", real), ("generated", made)):
        if not table.num_rows:
            raise UsageError(f"there are no {what} rows to compare")
        absent = [n for n in schema.names if n not in table.column_names]
        if absent:
            raise UsageError(f"the {what} rows have no column {', '.join(map(repr, absent))}")
    found = []
    for column in comparable(schema):
        pair = (real.column(column.name), made.column(column.name))
        numeric = column.kind in ("numeric", "datetime")
        found.append(_numbers(column.name, *pair) if numeric else _levels(column.name, *pair))
    if not found:
        raise UsageError("there is no column to compare: all are ids or personal data")
    return found


def comparable(schema: TableSchema) -> list[Column]:
    """The columns with a distribution to keep."""
    return [c for c in schema.columns if c.kind not in ("id", "personal")]


def subset(rows: int, most: int, seed: int) -> np.ndarray:
    """The numbers of at most `most` rows, drawn without replacement, in order."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng([seed, rows]).choice(rows, most, replace=False))


def _numbers(name: str, real: pa.ChunkedArray, made: pa.ChunkedArray) -> Compared:
    values = (floats(real), floats(made))
    known = [x[~np.isnan(x)] for x in values]
    grid = np.unique(np.concatenate(known))
    codes = [np.where(np.isnan(x), 0, np.searchsorted(grid, x) + 1) for x in values]
    distinct = np.unique(known[0])
    edges = distinct
    if len(distinct) > FEW:  # deciles that are values of the data: a point mass ends its bin
        upto = -(-np.arange(1, 10) * len(known[0]) // 10)
        edges = np.unique(np.sort(known[0])[upto - 1])
    bins = [np.where(np.isnan(x), 0, np.searchsorted(edges, x, "left") + 1) for x in values]
    pairs = (codes[0], codes[1]), (bins[0], bins[1])
    return Compared(name, values, pairs[0], len(grid) + 1, pairs[1], len(edges) + 2)


def floats(values: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers, dates or times as float64, NaN where missing."""
    array = decoded(values)
    if family(array.type) == "null":
        return np.full(len(array), np.nan)
    if family(array.type) == "decimal":
        array = array.cast(pa.float64(), safe=False)
    numbers, present = to_numbers(array)
    return np.where(present, numbers.astype(np.float64), np.nan)


def _levels(name: str, real: pa.ChunkedArray, made: pa.ChunkedArray) -> Compared:
    parts = [plain(x) for x in (real, made)]
    if parts[1].type != parts[0].type:
        raise UsageError(f"column {name!r} is {parts[1].type} in the generated rows")
    encoded = pa.chunked_array(parts).combine_chunks().dictionary_encode()
    codes = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy() + 1
    pair = (codes[: len(parts[0])], codes[len(parts[0]) :])
    cells = len(encoded.dictionary) + 1
    return Compared(name, None, pair, cells, pair, cells)


def plain(values: pa.ChunkedArray) -> pa.Array:
    """A column of levels without its dictionary, null where missing or NaN."""
    array = decoded(values)
    if pa.types.is_floating(array.type):
        return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array.cast(pa.large_string()) if pa.types.is_string(array.type) else array
