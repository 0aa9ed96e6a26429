"""The rows that meet conditions: of a table, or of draws that go on until there are enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from safegen.errors import BackendError, SourceError
from safegen.tables.columns import as_scalar
from safegen.tables.numbers import decoded, filtered
from safegen.tables.types import computable

if TYPE_CHECKING:
    from safegen.contracts import Scalar

__all__ = ["ATTEMPTS", "drawn_until", "matching"]

ATTEMPTS = 64
"""Draws for one block with conditions: what 1.6 % of all rows meet still fills it."""

HOPELESS = 8
"""Draws without a single match after which no more are made."""


def matching(table: pa.Table, conditions: Mapping[str, Scalar]) -> pa.Table:
    """The rows of a table that meet every condition.

    Raises: SourceError for a column that is not there; UsageError for a value that the column's
    type cannot hold, read as a codec reads it.
    """
    for name, value in conditions.items():
        if name not in table.schema.names:
            raise SourceError(f"a condition names the column {name!r}, which is not in the data")
        column = table.column(name)
        if value is None:
            table = filtered(table, column.is_null(nan_is_null=True))
            continue
        type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        wanted = as_scalar(name, value, type_).cast(type_).cast(computable(type_))
        table = filtered(table, pc.fill_null(pc.equal(decoded(column), wanted[0]), False))
    return table


def drawn_until(
    draw: Callable[[int], pa.Table],
    rows: int,
    block: int,
    conditions: Mapping[str, Scalar],
    backend: str,
    why: str = "",
) -> pa.Table:
    """The first `rows` rows of a block that meet the conditions: rejection sampling.

    Drawn from are the blocks block · 64, block · 64 + 1, …, whose rows `draw` gives: so every row
    still has a number of its own, and surrogates stay unique. Fewer rows are a prefix of more.
    why: what they are for, a clause, where it is not they that somebody asked for.

    Raises: BackendError with the shortfall as soon as it is clear that `ATTEMPTS` draws will not
    do.
    """
    kept: list[pa.Table] = []
    found = drawn = 0
    for attempt in range(ATTEMPTS):
        table = draw(block * ATTEMPTS + attempt)
        drawn += table.num_rows
        kept.append(matching(table, conditions))
        found += kept[-1].num_rows
        if found >= rows:
            return pa.concat_tables(kept).slice(0, rows)
        if attempt + 1 >= HOPELESS and found * ATTEMPTS < rows * (attempt + 1) / 2:
            break
    raise BackendError(
        f"{why or f'{found:,} of {rows:,} rows'}: {backend} makes rows that meet the conditions on "
        f"{', '.join(conditions)} too rarely ({found:,} of {drawn:,} drawn). Ask for "
        f"{'' if why else 'fewer rows or '}fewer conditions, "
        f"{'use a policy that does not, ' if why else ''}or fit a backend that takes conditions "
        "itself"
    )
