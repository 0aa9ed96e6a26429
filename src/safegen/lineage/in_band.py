"""Provenance columns, and stamps and C2PA manifests in images, row by row: what a table says about
itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.lineage.facts import Evidence
from safegen.lineage.image_marks import Claims
from safegen.tables.batches import DEPTH_COLUMN, ORIGIN_COLUMN, is_provenance
from safegen.tables.embedded import embedded, holds_binary
from safegen.tables.image_metadata import JPEG, WEBP
from safegen.tables.images import PNG, stamps_of
from safegen.tables.sources import TABLE

__all__ = ["InBand"]


class InBand:
    """Tally of the provenance columns, and of stamped images, over a table's batches.

    An image counts as stamped, too, where a C2PA manifest of this very file says that a trained
    model made it, whoever signed: who signs such a thing of a real image says too much, not too
    little.
    An image keeps its stamp in whatever it is put into, so every cell with binary data is searched,
    in structs and lists too. Databases fold the columns' names and joins add to them on both sides,
    so a name only has to hold one of ours. Where neither origin nor depth is left, a value in what
    is left marks its row.
    """

    def __init__(self, schema: pa.Schema, claims: Claims | None = None) -> None:
        folded = {n: n.casefold() for n in schema.names}
        ours = [n for n in schema.names if is_provenance(n)]
        self.origins = [n for n in ours if ORIGIN_COLUMN in folded[n]]
        self.depths = [n for n in ours if DEPTH_COLUMN in folded[n]]
        self.rest = [] if self.origins or self.depths else ours
        self.binary = [f.name for f in schema if holds_binary(f.type)]
        self.claims = claims or Claims()
        self.claimed = 0  # images of which a C2PA manifest says so
        self.named: set[str] = set()  # the datasets that stamps in images name
        self.rows = self.synthetic = self.max_depth = 0
        self.depth_sum = 0.0

    def __call__(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        depths = np.zeros(batch.num_rows)
        for name in self.depths:
            depths = np.maximum(depths, _depths(batch.column(name)))
        for name in self.origins:
            depths[_not_real(batch.column(name)) & (depths < 1)] = 1.0
        for name in self.rest:
            depths[_present(batch.column(name))] = 1.0
        for name in self.binary:
            depths = np.maximum(depths, self._stamped(batch.column(name)))
        synthetic = depths > 0
        depths[synthetic & (depths < 1)] = 1.0
        self.synthetic += int(synthetic.sum())
        self.depth_sum += float(depths.sum())
        self.max_depth = max(self.max_depth, int(np.ceil(depths.max(initial=0.0))))

    def merge(self, other: InBand) -> None:
        """Add the rows that another tally of the same table has seen."""
        self.rows += other.rows
        self.synthetic += other.synthetic
        self.depth_sum += other.depth_sum
        self.max_depth = max(self.max_depth, other.max_depth)
        self.claimed += other.claimed
        self.named |= other.named

    def _stamped(self, column: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The depths that stamps in images state: at least 1 where there is a stamp, or a C2PA
        manifest that says as much."""
        depths = np.zeros(len(column))
        for row, data in embedded(column, (PNG, JPEG, WEBP)):
            if self.claims.hold(data):
                self.claimed += 1
                depths[row] = max(depths[row], 1.0)
            for stamp in stamps_of(data):
                if stamp.get("origin") == "real":  # a stamp never proves real
                    continue
                depth, dataset = stamp.get("depth"), stamp.get("dataset_id")
                known = isinstance(depth, int | float) and 0 < depth < 1e6
                stated = max(1.0, float(depth)) if known and depth is not None else 1.0
                depths[row] = max(depths[row], stated)
                if isinstance(dataset, str) and len(dataset) <= 64:
                    self.named.add(dataset)
        return depths

    def evidence(self, table: str) -> Evidence | None:
        if not self.synthetic:
            return None
        of = "" if table == TABLE else f" of {table!r}"
        where = " or the stamps in their images" if self.binary else ""
        if self.claimed:
            where += f" ({self.claimed:,} C2PA manifests that hold)"
        return Evidence(
            "columns",
            f"{self.synthetic:,} of {self.rows:,} rows{of} are marked as not real by their "
            f"provenance columns{where}",
            "synthetic" if self.synthetic == self.rows else "mixed",
            share=self.synthetic / self.rows,
            depth=self.max_depth,
            effective_depth=round(self.depth_sum / self.rows, 6),  # the column has 32 bits
            lower_bound=True,
            dataset_id=next(iter(self.named)) if len(self.named) == 1 else None,
        )


def _present(column: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(column.is_valid(), dtype=bool)


def _not_real(column: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows say that they are anything but real; only an absent value says nothing."""
    try:
        text = pc.utf8_trim_whitespace(pc.utf8_lower(pc.cast(column, pa.string())))
    except pa.ArrowException:
        return _present(column)  # damaged: still a mark of ours
    said = pc.invert(pc.is_in(text, value_set=pa.array(["real", ""])))
    return np.asarray(pc.and_(said, text.is_valid()), dtype=bool)


def _depths(column: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        numbers = pc.cast(column, pa.float64()).fill_null(0.0)
    except pa.ArrowException:
        return _present(column).astype(np.float64)  # damaged: still a mark of ours
    values = np.nan_to_num(np.asarray(numbers, dtype=np.float64), nan=0.0, posinf=1e6)
    return np.clip(values, 0.0, 1e6)
