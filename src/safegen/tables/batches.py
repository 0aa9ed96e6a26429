"""Batches: re-iterable Arrow record batches with one schema. What every table is inside safegen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

__all__ = [
    "BATCH_ROWS",
    "PROVENANCE_COLUMNS",
    "Batches",
    "PartFunction",
    "is_provenance",
    "sound_weights",
]

PartFunction: TypeAlias = Callable[[Iterator[pa.RecordBatch]], Any]
"""What a part of a table comes to: small, for it is sent back."""

BATCH_ROWS = 65_536
"""Rows per batch when reading: a few megabytes at usual widths."""

PROVENANCE_PREFIX = "_safegen_"
ORIGIN_COLUMN = "_safegen_origin"
DEPTH_COLUMN = "_safegen_depth"
WEIGHT_COLUMN = "_safegen_weight"
PROVENANCE_COLUMNS = (ORIGIN_COLUMN, DEPTH_COLUMN, WEIGHT_COLUMN)

HEAVIEST = 1_000
"""Rows of mean weight that a row can stand for, at most."""


def is_provenance(name: str) -> bool:
    """Whether a column is one of ours. Databases fold names, and joins put others before them."""
    return PROVENANCE_PREFIX in name.casefold()


def sound_weights(weights: np.ndarray) -> bool:
    """Whether these can be weights of rows: finite, above 0, and none of them worth more than
    `HEAVIEST` rows. Those that boosts leave behind are between 1/1,000 and 10."""
    sound = bool(np.isfinite(weights).all() and (weights > 0).all())
    return sound and (not len(weights) or bool(weights.max() <= HEAVIEST * weights.mean()))


@dataclass(frozen=True)
class Batches:
    """A table as a schema and a way to iterate over its record batches, again and again.

    `rows` is the number of rows where it is known without reading; `held` whether they are in
    memory already. `there` is set where they are in other processes, on other machines perhaps: it
    calls a function there with the batches of each part of the table, and gives what comes out.
    """

    schema: pa.Schema
    open: Callable[[], Iterable[pa.RecordBatch]]
    rows: int | None = None
    held: bool = False
    there: Callable[[PartFunction], Iterator[Any]] | None = None

    @classmethod
    def of(cls, table: pa.Table) -> Batches:
        """Batches over a table in memory; nothing is copied."""
        return cls(
            table.schema, lambda: table.to_batches(max_chunksize=BATCH_ROWS), table.num_rows, True
        )

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return iter(self.open())

    def table(self) -> pa.Table:
        """The whole table in memory."""
        return pa.Table.from_batches(list(self), schema=self.schema)

    def without_provenance(self) -> Batches:
        """The same rows without the `_safegen_*` columns."""
        keep = [n for n in self.schema.names if not is_provenance(n)]
        if len(keep) == len(self.schema.names):
            return self
        return self.select(keep)

    def select(self, names: list[str]) -> Batches:
        """The same rows with these columns only."""
        schema = pa.schema([self.schema.field(n) for n in names], metadata=self.schema.metadata)
        there = self.there
        return replace(
            self,
            schema=schema,
            open=lambda: (b.select(names) for b in self),
            there=None if there is None else lambda of: there(_Selected(names, of)),
        )


@dataclass(frozen=True)
class _Selected:
    """A function of batches, of some of their columns. It pickles if the function does."""

    names: list[str]
    of: PartFunction

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Any:
        return self.of(b.select(self.names) for b in batches)
