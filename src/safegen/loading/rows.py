"""Rows of a released table, a row group at a time: hashed, parsed, selected, in released types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from safegen.loading.groups import Group, VerifiedFile
from safegen.tables.batches import ORIGIN_COLUMN, WEIGHT_COLUMN, is_provenance
from safegen.tables.numbers import decoded, taken
from safegen.tables.types import computable

if TYPE_CHECKING:
    from safegen.manifest import Manifest

__all__ = ["Kept", "Piece", "Rows", "chosen", "plain", "stamp_of"]

Kept = np.ndarray | None
"""The numbers of the rows that are selected, in order; None for all."""


def stamp_of(manifest: Manifest) -> dict[str, Any]:
    """What is left on rows that are handed out, where a library has a place for it."""
    return {
        "dataset_id": manifest.dataset_id,
        "origin": manifest.origin,
        "depth": manifest.effective_depth,
    }


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one table of a dataset; of real, of synthetic ones, of a drawn part.

    Nothing is read before a group is asked for. It may be pickled: whoever reads a group, in
    whatever process and on whatever machine that has the folder, hashes it first.
    """

    manifest: Manifest
    files: Sequence[VerifiedFile]
    origin: str | None = None
    thinned: int | None = None

    @property
    def groups(self) -> list[Group]:
        return [g for f in self.files for g in f.groups]

    def kept(self) -> list[Kept]:
        """Of each group the rows that are selected."""
        groups = self.groups
        if self.origin is None and self.thinned is None:
            return [None] * len(groups)
        columns = [g.read([ORIGIN_COLUMN, WEIGHT_COLUMN]) for g in groups]
        whole = pa.concat_tables([plain(t) for t in columns]) if columns else None
        rows = np.arange(0) if whole is None else _selected(whole, self.origin, self.thinned)
        ends = np.cumsum([0, *(g.rows for g in groups)])
        assert rows is not None
        return [rows[(rows >= a) & (rows < b)] - a for a, b in pairwise(ends)]

    def pieces(self, provenance: bool) -> list[Piece]:
        """What can be read on its own, each by somebody else."""
        even = self.thinned is not None
        chosen = zip(self.groups, self.kept(), strict=True)
        return [Piece(g, k, even, provenance) for g, k in chosen if k is None or len(k)]

    def schema(self, provenance: bool) -> pa.Schema:
        """The schema of the rows, as released, with the stamp in its metadata."""
        schema = self.files[0].schema if self.files else pa.schema([])
        empty = _as_written(schema.empty_table(), self.files[0].written if self.files else None)
        return _handed_out(empty, False, provenance).schema

    def table(self, provenance: bool, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in memory. Raises: VerificationError."""
        read = [p.read(columns) for p in self.pieces(provenance)]
        schema = self.schema(provenance)
        if columns is not None:
            schema = pa.schema([schema.field(n) for n in columns], schema.metadata)
        return pa.concat_tables([t.cast(schema) for t in read]) if read else schema.empty_table()


@dataclass(frozen=True, eq=False)
class Piece:
    """The selected rows of a row group."""

    group: Group
    kept: Kept
    even: bool  # all weights are 1: the rows were drawn by them
    provenance: bool

    @property
    def rows(self) -> int:
        return self.group.rows if self.kept is None else len(self.kept)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows. Raises: VerificationError when their bytes are not those of the manifest."""
        table = _as_written(self.group.read(columns), self.group.file.written)
        if self.kept is not None:
            table = taken(table, self.kept)
        return _handed_out(table, self.even, self.provenance)


def _selected(table: pa.Table, origin: str | None, thinned: int | None) -> Kept:
    """The rows of an origin, or those drawn by their weights with the seed `thinned`, or both."""
    import pyarrow.compute as pc

    rows: Kept = None
    if origin is not None:
        rows = np.flatnonzero(
            np.asarray(pc.equal(table.column(ORIGIN_COLUMN).cast("string"), origin))
        )
    if thinned is not None:
        from safegen.shaping.drawing import thinned as drawn

        weights = np.asarray(table.column(WEIGHT_COLUMN), dtype=np.float64)
        left = drawn(weights if rows is None else weights[rows], thinned)
        rows = left if rows is None else rows[left]
    return rows


def chosen(table: pa.Table, origin: str | None, thinned: int | None, provenance: bool) -> pa.Table:
    """The selected rows of a table in memory, as loaders hand them out."""
    rows = _selected(table, origin, thinned)
    return _handed_out(
        table if rows is None else taken(table, rows), thinned is not None, provenance
    )


def _handed_out(table: pa.Table, even: bool, provenance: bool) -> pa.Table:
    """The table with the columns of provenance, or without; with weights of 1 where they are
    `even`."""
    at = table.schema.get_field_index(WEIGHT_COLUMN)
    if even and at >= 0:
        one = pa.array(np.ones(table.num_rows, np.float32))
        table = table.set_column(at, WEIGHT_COLUMN, one)
    if provenance:
        return table
    metadata = table.schema.metadata
    kept = [n for n in table.schema.names if not is_provenance(n)]
    return table.select(kept).replace_schema_metadata(metadata)


def _as_written(table: pa.Table, written: pa.Schema | None) -> pa.Table:
    """The table in the types that were released: Parquet has no date64, no seconds of a day, and
    no dictionaries of anything but text, so its reader gives the nearest."""
    for made in written or ():
        i = table.schema.get_field_index(made.name)
        if i < 0 or table.schema.field(i).type == made.type:
            continue
        column = table.column(i)
        if pa.types.is_dictionary(made.type) and not pa.types.is_dictionary(column.type):
            column = column.cast(made.type.value_type).dictionary_encode()
        table = table.set_column(i, made, column.cast(made.type))
    return table


def plain(table: pa.Table) -> pa.Table:
    """The table for libraries that know neither dictionaries nor string views nor half floats."""
    for i, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if computable(kind) != field.type:
            column = decoded(table.column(i)).cast(computable(kind))
            table = table.set_column(i, field.with_type(column.type), column)
    return table
