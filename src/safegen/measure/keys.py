"""What the keys of staged rows are, in eight bytes each: enough to find repeats and orphans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safegen.tables.cells import exact_cells
from safegen.tables.relations import references
from safegen.tables.schema import TableSchema

__all__ = ["KeyTally", "judged_keys", "unique_keys"]

_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)


@dataclass
class KeyTally:
    """The keys of one column, hashed to 64 bits, without nulls.

    Of a million keys two agree by chance once in 37 million releases.
    """

    parts: list[npt.NDArray[np.uint64]] = field(default_factory=list)

    def update(self, array: pa.Array) -> None:
        kept = array.drop_null()
        if len(kept):
            self.parts.append(_hashes(kept))

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """Of all keys, in row order."""
        return np.concatenate(self.parts) if self.parts else np.empty(0, dtype=np.uint64)

    @property
    def repeated(self) -> int:
        """How many keys are there once too often."""
        hashes = self.hashes
        return len(hashes) - len(np.unique(hashes))

    def orphans(self, parents: KeyTally) -> int:
        """How many of these keys are not among the parents'."""
        known = np.unique(parents.hashes)
        return int((~np.isin(self.hashes, known)).sum())


def unique_keys(schemas: Mapping[str, TableSchema]) -> tuple[tuple[str, str], ...]:
    """Table and column of all that must not repeat: what others refer to, and columns of role
    `key` (not where a table has several: those name its rows together)."""
    found = [(r.parent, r.key) for r in references(schemas)]
    for name, schema in schemas.items():
        keys = [c.name for c in schema.columns if c.role == "key"]
        found += [(name, key) for key in keys if len(keys) == 1]
    return tuple(dict.fromkeys(found))


def judged_keys(schemas: Mapping[str, TableSchema]) -> dict[str, list[str]]:
    """By table, the columns that are keys or foreign keys."""
    both = [*unique_keys(schemas), *((r.table, r.column) for r in references(schemas))]
    return {name: [c for t, c in dict.fromkeys(both) if t == name] for name in schemas}


def _hashes(array: pa.Array) -> npt.NDArray[np.uint64]:
    cells: npt.NDArray[Any] = exact_cells(array)
    padded = np.zeros((len(cells), 24), dtype=np.uint8)
    padded[:, : cells.shape[1]] = cells
    words = padded.view("<u8")
    found: npt.NDArray[np.uint64] = (words * _ODD).sum(axis=1, dtype=np.uint64)
    return found
