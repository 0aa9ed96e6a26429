"""Row groups of a released Parquet file, each verified by its Merkle leaf before it is parsed.

To read one, its bytes and the footer's are hashed, and nothing else of the file is touched. What is
parsed are the bytes that were hashed, not the file again: it may change in between.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from safegen.errors import VerificationError
from safegen.manifest import Manifest, merkle
from safegen.manifest.model import FileEntry
from safegen.places import Place, read_range

__all__ = ["Group", "VerifiedFile", "files_of", "groups_of"]


@dataclass(frozen=True)
class Group:
    """A row group: which one of which file, and its rows."""

    file: VerifiedFile
    number: int
    rows: int

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Its rows. Raises: VerificationError when its bytes are not those of the manifest."""
        return self.file.read(self.number, columns)


class VerifiedFile:
    """A data file that a manifest lists. Opening it hashes its footer, and holds the leaves that
    the manifest has against the root. Raises: VerificationError."""

    def __init__(self, folder: Place, entry: FileEntry):
        self._path, self._entry = folder / entry.path, entry
        groups = entry.row_groups
        self._end = groups[-1].offset + groups[-1].bytes if groups else 0
        rest = self._bytes(self._end, entry.bytes - self._end)
        leaves = [bytes.fromhex(g.leaf) for g in groups] + [merkle.leaf_hash(rest)]
        if self._size() != entry.bytes or merkle.root(leaves).hex() != entry.merkle_root:
            raise VerificationError([f"{self._path}: its footer differs from the manifest"])
        try:
            self._metadata = pq.read_metadata(pa.BufferReader(rest))
        except (pa.ArrowException, OSError):
            raise VerificationError([f"{self._path}: not a Parquet file"]) from None
        rows = [self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups)]
        self.sizes = [g.rows for g in groups]
        if rows != self.sizes:
            raise VerificationError([f"{self._path}: other row groups than the manifest's"])
        self.schema: pa.Schema = self._metadata.schema.to_arrow_schema()

    @property
    def groups(self) -> list[Group]:
        return [Group(self, i, rows) for i, rows in enumerate(self.sizes)]

    @property
    def written(self) -> pa.Schema | None:
        """The schema with which the file was written: Parquet itself knows fewer types."""
        held = (self._metadata.metadata or {}).get(b"ARROW:schema")
        return None if held is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(held)))

    def missing(self) -> set[str]:
        """The columns in which values are missing, or may be: the footer does not say."""
        found = set()
        for i in range(self._metadata.num_row_groups):
            group = self._metadata.row_group(i)
            for j in range(group.num_columns):
                stats = group.column(j).statistics
                if stats is None or not stats.has_null_count or stats.null_count:
                    found.add(group.column(j).path_in_schema)
        return found

    def read(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """A row group, verified. Raises: VerificationError."""
        groups = self._entry.row_groups
        start = groups[number - 1].offset + groups[number - 1].bytes if number else 0
        stop = groups[number].offset + groups[number].bytes
        data = self._bytes(start, stop - start)
        if hashlib.sha256(b"\x00" + data).hexdigest() != groups[number].leaf:
            raise VerificationError([f"{self._path}: row group {number} differs from the manifest"])
        source = pa.PythonFile(_Window(data, start, self._entry.bytes), mode="r")
        file = pq.ParquetFile(source, metadata=self._metadata)
        return file.read_row_group(number, None if columns is None else list(columns))

    def _bytes(self, start: int, length: int) -> bytes:
        try:
            return read_range(self._path, start, length)
        except OSError as error:
            raise VerificationError(
                [f"{self._path}: cannot be read ({error.strerror or type(error).__name__})"]
            ) from None

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return -1


class _Window(io.RawIOBase):
    """A part of a file that is at hand, where it stands in it; of the rest nothing can be read."""

    def __init__(self, data: bytes, start: int, size: int):
        self._data, self._start, self._size, self._at = data, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        begin = self._at - self._start
        length = self._size - self._at if size < 0 else size
        if begin < 0 or begin + length > len(self._data):
            raise OSError("outside the row group that was verified")
        self._at += length
        return self._data[begin : begin + length]


def files_of(folder: Place, manifest: Manifest, table: str) -> list[VerifiedFile]:
    """The data files of a dataset's table, in order. Raises: VerificationError."""
    return [VerifiedFile(folder, f) for f in manifest.files if f.table == table]


def groups_of(folder: Place, manifest: Manifest, table: str) -> list[Group]:
    """The row groups of a dataset's table, in order. Raises: VerificationError."""
    return [g for file in files_of(folder, manifest, table) for g in file.groups]
