"""Rows kept from training, to judge with: made only where a rule asks for them.

A row's side is a pure function of its content: no seed, no order. So identical rows are on one
side, a row keeps its side when others come or go, and a held-out row can be recognised wherever it
turns up. With an entity column, all rows of an entity are on one side.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safegen.errors import UsageError
from safegen.tables.cells import exact_cells
from safegen.tables.numbers import filtered

__all__ = ["Split", "split"]


@dataclass(frozen=True)
class Split:
    """Two tables of one schema; together they hold every row once."""

    anchor: pa.Table
    held: pa.Table


def split(table: pa.Table, held_out: float, *, entity: str | None = None) -> Split:
    """Split a table by the hash of each row, or of its entity.

    `held_out` is the held-out share; it holds in expectation, over distinct rows (or entities).
    Raises: UsageError for a share outside [0, 1), or an unknown entity column.
    """
    if not 0 <= held_out < 1:
        raise UsageError("the share of rows held out is from 0 to below 1")
    if entity is not None and entity not in table.schema.names:
        raise UsageError(f"the entity column {entity!r} is not in the table")
    if not held_out:
        return Split(table, table.slice(0, 0))
    names = sorted(table.schema.names) if entity is None else [entity]
    away = _positions(table.select(names)) >= 1 - held_out
    return Split(filtered(table, pa.array(~away)), filtered(table, pa.array(away)))


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
