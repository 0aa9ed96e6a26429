"""What a request counts: rows of a table, sequences, rows of the tables that refer to no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from safegen.tables.numbers import decoded, filtered
from safegen.tables.relations import generations, references

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.tables.schema import TableSchema

__all__ = ["pilot", "roots", "units"]

_PILOT_SEQUENCES = 64


def roots(schemas: Mapping[str, TableSchema]) -> tuple[str, ...]:
    """The tables that refer to no other: where related tables start."""
    return tuple(n for n, s in schemas.items() if not any(c.references for c in s.columns))


def units(tables: Mapping[str, pa.Table], schemas: Mapping[str, TableSchema]) -> int:
    """How much of a request these tables fill.

    A sequence is never cut, and a parent never parted from its children: so what is counted is
    whole sequences, and rows of the roots.
    """
    if len(schemas) > 1:
        return sum(tables[name].num_rows for name in roots(schemas))
    ((name, schema),) = schemas.items()
    if (key := schema.sequence_key) is not None:
        return int(pc.count_distinct(decoded(tables[name].column(key)), mode="all").as_py())
    return int(tables[name].num_rows)


def pilot(
    tables: Mapping[str, pa.Table], schemas: Mapping[str, TableSchema], rows: int
) -> dict[str, pa.Table]:
    """The first rows of each table, about `rows`, that still hang together: whole sequences, and
    with each row the rows that it refers to."""
    import numpy as np
    import pyarrow as pa

    if len(schemas) == 1:
        ((name, schema),) = schemas.items()
        table = tables[name]
        if schema.sequence_key is None or table.num_rows <= rows:
            return {name: table.slice(0, rows)}
        keys = decoded(table.column(schema.sequence_key))
        some = keys.slice(0, rows).unique()
        if len(some) < _PILOT_SEQUENCES:
            some = keys.unique().slice(0, _PILOT_SEQUENCES)
        return {name: filtered(table, pc.is_in(keys, value_set=some))}
    found: dict[str, pa.Table] = {}
    links = references(schemas)
    for name in reversed(generations(schemas)):
        keep = np.arange(tables[name].num_rows) < rows
        for link in (r for r in links if r.parent == name):
            keys = decoded(tables[name].column(link.key))
            held = decoded(found[link.table].column(link.column)).unique().cast(keys.type)
            keep |= np.asarray(pc.is_in(keys, value_set=held))
        found[name] = filtered(tables[name], pa.array(keep))
    return {name: found[name] for name in tables}
