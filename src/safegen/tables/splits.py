"""Rows kept from training, to judge with: made only where a rule asks for them.

A row's side is a pure function of its content: no seed, no order. So identical rows are on one
side, and a row keeps its side when others come or go. With an entity column, all rows of an entity
are on one side.

One thing goes before it: no level is taken from training altogether, for a level that a fit has not
seen cannot come back. Where all rows of a level would be held out, the first of them (or the first
entity's) is trained on; it alone changes sides if more rows of its level come. In the mean that is
one row in a hundred of a column at most, and 2 of 400 held-out ones of 2,000 rows of Adult.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safegen.errors import UsageError
from safegen.tables.cells import exact_cells
from safegen.tables.numbers import decoded, filtered

__all__ = ["Split", "split"]

ROWS_A_LEVEL = 20
"""Rows that a column has per level, at least, for its levels to be kept in training: of a column
whose levels are mostly one row's, nothing could be held out."""


@dataclass(frozen=True)
class Split:
    """Two tables of one schema; together they hold every row once."""

    anchor: pa.Table
    held: pa.Table


def split(
    table: pa.Table,
    held_out: float,
    *,
    entity: str | None = None,
    levels: Collection[str] = (),
) -> Split:
    """Split a table by the hash of each row, or of its entity.

    `held_out` is the held-out share; it holds in expectation, over distinct rows (or entities).
    `levels` names the columns of which no level is held out altogether.
    Raises: UsageError for a share outside [0, 1), or an unknown entity column.
    """
    if not 0 <= held_out < 1:
        raise UsageError("the share of rows held out is from 0 to below 1")
    if entity is not None and entity not in table.schema.names:
        raise UsageError(f"the entity column {entity!r} is not in the table")
    if not held_out:
        return Split(table, table.slice(0, 0))
    names = sorted(table.schema.names) if entity is None else [entity]
    places = _positions(table.select(names))
    away = places >= 1 - held_out
    firsts = [_firsts_of_lost(table.column(name), places, away) for name in levels]
    away &= ~np.isin(places, np.concatenate([np.empty(0), *firsts]))
    return Split(filtered(table, pa.array(~away)), filtered(table, pa.array(away)))


def _firsts_of_lost(
    column: pa.ChunkedArray, places: npt.NDArray[np.float64], away: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """The least place of each level all of whose rows are away; missing is a level."""
    encoded = decoded(column).dictionary_encode(null_encoding="encode")
    codes, count = np.asarray(encoded.indices), len(encoded.dictionary)
    if count * ROWS_A_LEVEL > len(codes):
        return np.empty(0)
    first = np.full(count, np.inf)
    np.minimum.at(first, codes, places)
    lost: npt.NDArray[np.float64] = first[np.bincount(codes[~away], minlength=count) == 0]
    return lost


def _positions(table: pa.Table) -> npt.NDArray[np.float64]:
    """Where each row stands in [0, 1): 53 bits of the BLAKE2b of its canonical cells."""
    found = [np.empty(0)]
    for batch in table.to_batches():
        cells = np.hstack([exact_cells(column) for column in batch.columns])
        data, width = memoryview(np.ascontiguousarray(cells).tobytes()), cells.shape[1]
        hashes = b"".join(
            hashlib.blake2b(
                data[i * width : (i + 1) * width], digest_size=8, person=b"safegen-split"
            ).digest()
            for i in range(batch.num_rows)
        )
        found.append((np.frombuffer(hashes, dtype="<u8") >> np.uint64(11)) / 2.0**53)
    return np.concatenate(found)
