"""Which rows hang together, and how a column's values are spread over what chance draws whole.

A sequence is drawn whole, and so is a row of a table that refers to no other, with all that
descends from it. A hundred rows of one sequence are one piece of evidence, not a hundred: what is
claimed about chance is counted in units. In a plain table every row is a unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from safegen.tables.numbers import decoded
from safegen.tables.relations import generations, references
from safegen.tables.schema import TableSchema
from safegen.tables.units import roots

__all__ = ["Spread", "Units", "asked", "encoded", "hang_together", "independent_units", "spread"]

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Units:
    """The independent units of one kind to which a table's rows belong."""

    noun: str  # what they are called in findings
    count: int
    root: str | None = None  # the table whose rows they are; None: sequences, or the rows
    codes: Codes | None = None  # (rows,), 0 … count − 1, −1 without one; None: each row is a unit


@dataclass(frozen=True)
class Spread:
    """A column's real values over units of one kind: in how many of them each stratum is."""

    noun: str
    units: int
    root: str | None = None
    whole: bool = False  # whether units are more than rows
    held: Mapping[Any, int] = field(default_factory=dict)  # by level, or by tail
    alike: float = 1.0  # share of the units that show nothing but the most usual one value
    worth: float = 1.0  # of one unit, in independent rows, for the share of missing values


def asked(schemas: Mapping[str, TableSchema]) -> str:
    """What the rows of a request count, in words."""
    if len(schemas) > 1:
        return f"rows of {' and '.join(roots(schemas))}"
    (schema,) = schemas.values()
    return "rows" if schema.sequence_key is None else "sequences"


def hang_together(schemas: Mapping[str, TableSchema]) -> bool:
    """Whether rows are drawn with others, not one by one: of sequences and related tables."""
    return len(schemas) > 1 or any(s.sequence_key is not None for s in schemas.values())


def independent_units(
    tables: Mapping[str, pa.Table], schemas: Mapping[str, TableSchema]
) -> dict[str, tuple[Units, ...]]:
    """Per table the kinds of units that its rows hang on: one, but for each path to a root table.

    A row that refers to nothing (a missing foreign key) belongs to no unit of that path.
    """
    if len(schemas) == 1:
        ((name, schema),) = schemas.items()
        if schema.sequence_key is None:
            return {name: (Units("rows", tables[name].num_rows),)}
        keys = decoded(tables[name].column(schema.sequence_key))
        found, codes = encoded(keys)
        lost = codes < 0  # a missing key is a sequence of its own
        codes[lost] = len(found)
        return {name: (Units("sequences", len(found) + int(lost.any()), None, codes),)}
    units: dict[str, tuple[Units, ...]] = {}
    links = references(schemas)
    for name in generations(schemas):
        above = [r for r in links if r.table == name]
        if not above:
            units[name] = (Units("rows", tables[name].num_rows),)
            continue
        paths = []
        for link in above:
            keys = decoded(tables[link.parent].column(link.key))
            held = decoded(tables[name].column(link.column)).cast(keys.type)
            at = pc.index_in(held, value_set=_whole(keys), skip_nulls=True)
            parent = np.asarray(pc.fill_null(_whole(at), -1)).astype(np.int64)
            for above_it in units[link.parent]:
                codes = parent
                if above_it.codes is not None:
                    codes = np.where(parent < 0, -1, np.append(above_it.codes, -1)[parent])
                root = above_it.root or link.parent
                paths.append(Units(f"rows of {root}", above_it.count, root, codes))
        units[name] = tuple(paths)
    return units


def spread(
    units: Units,
    present: npt.NDArray[np.bool_],
    values: Codes,
    strata: Mapping[Any, npt.NDArray[np.bool_] | int],
) -> Spread:
    """A column's values over units of several rows.

    present: (rows,), where a value is. values: (present rows,), numbers of distinct values.
    strata: by name the value that it is, or which of the values are in it, (distinct values,).
    """
    assert units.codes is not None
    distinct = int(values.max()) + 1 if len(values) else 1
    known = units.codes[present]
    pairs = np.unique((known * distinct + values)[known >= 0])
    unit, value = pairs // distinct, pairs % distinct
    per_value = np.bincount(value, minlength=distinct)
    held = {
        name: int(per_value[part]) if isinstance(part, int) else len(np.unique(unit[part[value]]))
        for name, part in strata.items()
    }
    shown = np.bincount(unit, minlength=units.count)
    only = np.bincount(value[shown[unit] == 1], minlength=1).max()
    alike = int((shown == 0).sum()) + int(only)
    return Spread(
        units.noun,
        units.count,
        units.root,
        True,
        held,
        # One more than were seen: a few units that all vary do not show that every unit does.
        (alike + 1) / (units.count + 1),
        _worth(units.codes, units.count, ~present),
    )


def _worth(codes: Codes, count: int, absent: npt.NDArray[np.bool_]) -> float:
    """How many independent rows one unit is worth for the share p of missing values.

    The smaller of two effective numbers over the number of units: Kish's (1965, Survey Sampling),
    (Σm)² / Σm² for units of m rows, which takes the rows of a unit for copies of each other; and
    p(1 − p) / V with the cluster-robust variance V of p, smaller still where long units are the
    ones that miss values.
    """
    if not len(absent):
        return 1.0
    rows, share = len(absent), float(absent.mean())
    inside = codes >= 0
    sizes = np.bincount(codes[inside], minlength=count)
    gone = np.bincount(codes[inside], weights=absent[inside], minlength=count)
    alone = absent[~inside]
    worth = rows**2 / max(float((sizes.astype(float) ** 2).sum()) + len(alone), 1.0)
    squares = ((gone - share * sizes) ** 2).sum() + ((alone - share) ** 2).sum()
    if squares:
        worth = min(worth, share * (1 - share) * rows**2 / float(squares))
    return worth / max(count, 1)


def encoded(array: pa.Array | pa.ChunkedArray) -> tuple[list[Any], Codes]:
    """The distinct values, and each row's number among them: −1 where missing."""
    found = _whole(array).dictionary_encode()
    codes = np.asarray(found.indices.cast(pa.int64()).fill_null(-1)).copy()
    return found.dictionary.to_pylist(), codes


def _whole(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
