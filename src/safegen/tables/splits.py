"""The split into anchor, verify and evaluation rows (A/V/E), used only where a rule asks for it.

A row's side is a pure function of its content: no seed, no order. So identical rows are on one
side, a row keeps its side when others come or go, and a row of the evaluation side can be
recognised wherever it turns up. With an entity column, all rows of an entity are on one side.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safegen.errors import UsageError
from safegen.tables.cells import exact_cells

__all__ = ["Split", "split"]

_SIDES = ("anchor", "verify", "evaluate")


@dataclass(frozen=True)
class Split:
    """Three tables of one schema; together they hold every row once."""

    anchor: pa.Table
    verify: pa.Table
    evaluate: pa.Table


def split(
    table: pa.Table,
    *,
    entity: str | None = None,
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2),
) -> Split:
    """Split a table by the hash of each row, or of its entity.

    `shares` are those of anchor, verify and evaluation; they hold in expectation, over distinct
    rows (or entities). Raises: UsageError for shares that do not add up to 1, or an unknown entity
    column.
    """
    if any(s < 0 for s in shares) or abs(sum(shares) - 1) > 1e-9:
        raise UsageError("the shares of a split are not negative and add up to 1")
    if entity is not None and entity not in table.schema.names:
        raise UsageError(f"the entity column {entity!r} is not in the table")
    names = sorted(table.schema.names) if entity is None else [entity]
    position = _positions(table.select(names))
    first, second = shares[0], shares[0] + shares[1]
    side = np.where(position < first, 0, np.where(position < second, 1, 2))
    return Split(*(table.filter(pa.array(side == i)) for i in range(len(_SIDES))))


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
