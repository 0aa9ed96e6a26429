"""What a request counts: rows of a table, sequences, rows of the tables that refer to no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow.compute as pc

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.tables.schema import TableSchema

__all__ = ["roots", "units"]


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
        return int(pc.count_distinct(tables[name].column(key), mode="all").as_py())
    return int(tables[name].num_rows)
