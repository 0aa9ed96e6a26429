"""Monotone maps of numeric columns, by which the model's marginals become the real ones.

A quantile map (Panofsky & Brier 1958) between smoothed quantile functions: each knot is the mean of
at least `CELL` neighbouring values, so none is a real value. What ranks say of other columns stays.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from safegen.tables.numbers import decoded, from_numbers, to_numbers
from safegen.tables.schema import TableSchema
from safegen.tables.types import family

__all__ = ["Calibration", "calibration"]

KNOTS, CELL = 200, 10
MASS = 0.01  # share of the rows from which on a value is a point mass, and stays what it is
EXACT = 2**53  # numbers up to which floats are exact: larger ones are not mapped


@dataclass(frozen=True, eq=False)
class _Map:
    made: np.ndarray  # knots, rising
    real: np.ndarray
    masses: np.ndarray
    decimals: int | None  # to which floats are rounded, as the real ones are

    def __call__(self, values: np.ndarray) -> np.ndarray:
        mapped = np.interp(values, self.made, self.real)
        if self.decimals is not None:
            mapped = np.round(mapped, self.decimals)
        return np.where(np.isin(values, self.masses), values, mapped)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Maps by column; columns without one stay as they are."""

    maps: dict[str, _Map]

    def __call__(self, table: pa.Table) -> pa.Table:
        """The rows with mapped numbers, in their types."""
        for name, change in self.maps.items():
            i = table.schema.get_field_index(name)
            array = decoded(table.column(i))
            numbers, present = to_numbers(array)
            mapped = change(numbers.astype(np.float64))
            if family(array.type) != "float":
                mapped = np.round(mapped).astype(np.int64)
            there = np.asarray(array.is_valid())  # NaN stays NaN, and null is null
            if family(array.type) == "float":
                mapped = np.where(present, mapped, np.nan)
            made = from_numbers(np.where(there, mapped, 0), there, array.type)
            table = table.set_column(i, table.schema.field(i), made.cast(table.field(i).type))
        return table


def calibration(
    real: pa.Table, made: pa.Table, schema: TableSchema, constrained: Collection[str] = ()
) -> Calibration:
    """Maps from the rows of a model to the real ones, for numeric columns with values enough.

    Dates, decimals and levels are not mapped: they have masses, or digits, that mean something; nor
    are `constrained` columns, which maps of their own would take out of their relation.
    """
    found = {}
    for column in schema.columns:
        if column.kind != "numeric" or column.name in constrained:
            continue
        types = [decoded(t.column(column.name)) for t in (real, made)]
        if family(types[0].type) not in ("int", "float") or types[0].type != types[1].type:
            continue
        values = []
        for array in types:
            numbers, present = to_numbers(array)
            values.append(numbers[present].astype(np.float64))
        whole = family(types[0].type) == "int"
        kind = real.schema.field(column.name).type  # halves are decoded as floats
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        own = values[0].astype(kind.to_pandas_dtype())
        change = _map(values[0], values[1], 0 if whole else _decimals(own))
        if change is not None:
            found[column.name] = change
    return Calibration(found)


def _map(real: np.ndarray, made: np.ndarray, decimals: int | None) -> _Map | None:
    if not len(real) or not len(made) or np.abs(real).max() >= EXACT:
        return None
    distinct, counts = np.unique(real, return_counts=True)
    masses = distinct[counts >= MASS * len(real)]
    rest = [np.sort(x[~np.isin(x, masses)]) for x in (real, made)]
    cells = min(KNOTS, min(len(r) for r in rest) // CELL)
    if cells < 2:
        return None
    knots = [
        np.array(
            [r[:CELL].mean(), *(part.mean() for part in np.array_split(r, cells)), r[-CELL:].mean()]
        )
        for r in rest
    ]
    to, tied = knots[0], knots[1]
    # Where the model has many equal values they go to the middle of what they stand for.
    at, place = np.unique(tied, return_inverse=True)
    to = np.bincount(place, to) / np.bincount(place)
    return _Map(at, to, masses, decimals)


def _decimals(values: np.ndarray) -> int | None:
    """To how many decimals all values are rounded, as their own type holds them; None for more
    than six."""
    exact = values.astype(np.float64)
    return next(
        (d for d in range(7) if (np.round(exact, d).astype(values.dtype) == values).all()), None
    )
