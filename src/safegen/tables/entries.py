"""Files as a manifest lists them: their size and hash, and of Parquet files their row groups."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.parquet as pq

from safegen.manifest import merkle
from safegen.manifest.check import file_leaves
from safegen.manifest.model import FileEntry, RowGroup
from safegen.places import Place

__all__ = ["data_entry", "file_entry"]


def file_entry(path: Place, name: str) -> FileEntry:
    """A file as a manifest lists it."""
    with path.open("rb") as stream:
        digest = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    return FileEntry(path=name, bytes=path.stat().st_size, sha256=digest)


def data_entry(path: Path, name: str, table: str) -> FileEntry:
    """A Parquet file as a manifest lists it, with its row groups and Merkle root."""
    footer = pq.read_metadata(path)
    spans, rows = [], []
    end = 4  # after the magic bytes
    for i in range(footer.num_row_groups):
        group = footer.row_group(i)
        start, stop = end, end
        for j in range(group.num_columns):
            column = group.column(j)
            first = column.dictionary_page_offset
            data = column.data_page_offset
            stop = max(stop, min(data, first or data) + column.total_compressed_size)
        spans.append((start, stop - start))
        rows.append(group.num_rows)
        end = stop
    leaves = file_leaves(path, spans)
    base = file_entry(path, name)
    return base.model_copy(
        update={
            "table": table,
            "rows": footer.num_rows,
            "merkle_root": merkle.root(leaves).hex(),
            "row_groups": [
                RowGroup(offset=o, bytes=n, rows=r, leaf=leaf.hex())
                for (o, n), r, leaf in zip(spans, rows, leaves, strict=False)
            ],
        }
    )
