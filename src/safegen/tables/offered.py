"""Constraints that every row of a source obeys, though nobody named them: offered, never imposed.

Only what chance does not explain, so that what is said is worth reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.tables.constraints import Constraint, FixedCombinations, Inequality
from safegen.tables.numbers import decoded
from safegen.tables.schema import TableSchema
from safegen.tables.types import computable

__all__ = ["offered"]

FEW = 500  # rows that rule out most pairs before the others are looked at
FIRST = 10_000  # rows that rule out nearly all pairs of columns
LEVELS = 3, 1_000  # fewer say too little, more are nearly names
ROWS = 20  # that each level has on average: fewer could determine another column by chance
MOST = 60  # columns of one kind: with more of them, pairs that fit would say little and cost much
MOSTLY = 0.9  # a column with a larger share of one level is nearly determined by any other


def offered(table: pa.Table, schema: TableSchema) -> list[Constraint]:
    """FixedCombinations where the levels of one column determine those of others, and Inequality
    where two date columns of one type that overlap stand in the same order in all rows."""
    found: list[Constraint] = [
        FixedCombinations(column_names=names) for names in _determined(table, schema)
    ]
    dates = [c.name for c in schema.columns if c.kind == "datetime"]
    for low, high in permutations(dates if len(dates) <= MOST else (), 2):
        if _always_below(table.column(low), table.column(high)):
            found.append(Inequality(low_column_name=low, high_column_name=high))
    return found


def _determined(table: pa.Table, schema: TableSchema) -> list[list[str]]:
    """Groups of columns in each of which the first determines the others; none within another."""
    names = [c.name for c in schema.columns if c.kind in ("categorical", "numeric")]
    pairs: Iterable[tuple[str, str]] = permutations(names, 2)
    spread = np.unique(np.linspace(0, table.num_rows - 1, FIRST).astype(np.int64))
    for rows in (pa.array(spread), None):
        codes, counts = {}, {}
        for name in names:
            values = table.column(name)
            if rows is not None:
                values = values.cast(computable(values.type)).take(rows)
            encoded = decoded(values).dictionary_encode(null_encoding="encode")
            levels = np.asarray(encoded.indices)
            few = LEVELS[0] <= len(encoded.dictionary) <= min(LEVELS[1], len(levels) // ROWS)
            if few and np.bincount(levels).max() <= MOSTLY * len(levels):
                codes[name], counts[name] = levels, len(encoded.dictionary)
        if len(codes) > MOST:
            return []
        pairs = [
            (a, b)
            for a, b in pairs
            if a in codes and b in codes and counts[a] >= counts[b]
            if _determines(codes[a][:FEW], codes[b][:FEW]) and _determines(codes[a], codes[b])
        ]
        names = [n for n in names if any(n in pair for pair in pairs)]
    groups = [[a, *(b for first, b in pairs if first == a)] for a in names]
    groups = sorted((g for g in groups if len(g) > 1), key=len, reverse=True)
    kept: list[list[str]] = []
    for group in groups:
        if not any(set(group) <= set(other) for other in kept):
            kept.append(group)
    return kept


def _determines(one: np.ndarray, other: np.ndarray) -> bool:
    last = np.zeros(int(one.max()) + 1, other.dtype)
    last[one] = other
    return bool((last[one] == other).all())


def _always_below(low: pa.ChunkedArray, high: pa.ChunkedArray) -> bool:
    if low.type != high.type:
        return False
    if pc.any(pc.greater(low.slice(0, FEW), high.slice(0, FEW))).as_py():
        return False
    both = pc.less_equal(low, high).drop_null()
    if len(both) < ROWS or not pc.all(both).as_py() or pc.all(pc.equal(low, high)).as_py():
        return False
    return bool(pc.less(pc.min(high), pc.max(low)).as_py())
