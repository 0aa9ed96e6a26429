"""Staging and publishing: rows become visible together with their manifest, or not at all.

A release is written into a folder beside its target, on the same file system, and published by
one rename. The staging folder is locked while it is worked in, so a folder that was left by a
killed run is known by its missing lock and swept by the next run.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from safegen.errors import BackendError, SafegenError, TargetError
from safegen.exports import exported
from safegen.folders import cache_folder
from safegen.lineage.descent import Node
from safegen.lineage.image_prints import ImagePrinting
from safegen.lineage.printing import Printing
from safegen.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest, SigningKey, merkle
from safegen.manifest.check import file_leaves
from safegen.manifest.model import FileEntry, RowGroup
from safegen.manifest.sign import envelope_for
from safegen.measure.drawn import Drawn, Reservoir
from safegen.measure.figures import Figures
from safegen.measure.profile import TableTally
from safegen.pages import report
from safegen.places import Place
from safegen.tables.batches import (
    DEPTH_COLUMN,
    ORIGIN_COLUMN,
    PROVENANCE_COLUMNS,
    WEIGHT_COLUMN,
    sound_weights,
)
from safegen.tables.credentials import SIDECAR, ContentSigner
from safegen.tables.digests import LookupDigest, RowsDigest, combine
from safegen.tables.image_folders import METADATA, written_as_files
from safegen.tables.images import stamped_images
from safegen.tables.sources import TABLE
from safegen.tables.stamps import stamped

__all__ = ["ImageForm", "IfExists", "Staging", "staging"]

IfExists = Literal["error", "same", "version"]

ImageForm = Literal["parquet", "png"]
"""How images go out: their bytes in Parquet, or as PNG files beside a table of the rest."""

PART_ROWS = 1 << 20
"""Rows per Parquet file: sixteen row groups of 65,536, tens of megabytes at usual widths."""

MARK = ".safegen-staging-"
_SCRATCH_SECONDS = 7 * 24 * 3600
_ORIGIN_TYPE = pa.dictionary(pa.int8(), pa.string())


@dataclass
class _Part:
    """One Parquet file being written."""

    path: Path
    table: str
    writer: pq.ParquetWriter
    rows: int = 0


@dataclass
class Staging:
    """A folder in which a release is prepared. Use `staging(...)`."""

    folder: Path
    target: Path
    dataset_id: str
    keys: list[tuple[str, bytes]]
    stamp: Mapping[str, Any]
    depth: float
    images: ImageForm = "parquet"
    signer: ContentSigner | None = None
    tallies: dict[str, TableTally] = field(default_factory=dict)
    reservoirs: dict[str, Reservoir] = field(default_factory=dict)
    printings: dict[str, Printing] = field(default_factory=dict)
    image_printings: dict[str, ImagePrinting] = field(default_factory=dict)
    in_band: dict[str, dict[str, int]] = field(default_factory=dict)
    credentials: dict[str, tuple[int, int]] = field(default_factory=dict)  # there, of how many
    rows: int = 0
    weighted: bool = False  # whether any row's weight is another than 1
    table_rows: dict[str, int] = field(default_factory=dict)
    _digests: dict[str, RowsDigest] = field(default_factory=dict)
    _lookups: dict[str, dict[str, LookupDigest]] = field(default_factory=dict)
    _parts: dict[str, _Part] = field(default_factory=dict)
    _closed: list[_Part] = field(default_factory=list)
    _entries: dict[Path, FileEntry] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        """Where the dataset will be."""
        return self.target

    def write(self, tables: Mapping[str, pa.Table], weights: np.ndarray | None = None) -> None:
        """Tag one block's rows, tally them, digest them, and append them as a row group.

        weights: of the rows of the one table, float64; None: all are 1.

        Raises: BackendError for weights or images that are none.
        """
        if weights is not None:
            if not sound_weights(weights):
                raise BackendError("rows have weights that are not finite, not above 0, or absurd")
            self.weighted |= bool((weights.astype(np.float32) != 1).any())
        for name, table in tables.items():
            table = self._stamped(name, table)
            known = np.ones(table.num_rows) if weights is None else weights
            if name in self.tallies:
                self.tallies[name].update(table, weights)
            if name in self.reservoirs:
                self.reservoirs[name].update(table, known)
            tagged = self._tagged(table, known)
            if self.images == "png":
                first = self.table_rows.get(name, 0)
                tagged = written_as_files(tagged, self.folder / "data", first)
            part = self._part(name, tagged.schema)
            if tagged.num_rows:  # a table of several may have none in this block
                part.writer.write_table(tagged, row_group_size=tagged.num_rows)
            # Counted on what was written, not on what was meant to be.
            if all(n in tagged.schema.names for n in PROVENANCE_COLUMNS) and not any(
                tagged.column(n).null_count for n in PROVENANCE_COLUMNS
            ):
                counts = self.in_band.setdefault(name, {})
                counts["synthetic"] = counts.get("synthetic", 0) + tagged.num_rows
            part.rows += table.num_rows
            self.table_rows[name] = self.table_rows.get(name, 0) + table.num_rows
            self.rows += table.num_rows
            digest = self._digests.setdefault(name, RowsDigest(table.schema))
            lookups = self._lookups.setdefault(
                name, {key_id: LookupDigest(table.schema, key) for key_id, key in self.keys}
            )
            if name in self.printings:
                self.printings[name].update(table)
            if name in self.image_printings:
                self.image_printings[name].update(table)
            for batch in table.combine_chunks().to_batches():
                digest.update(batch)
                LookupDigest.update_all(lookups.values(), batch)

    def _stamped(self, name: str, table: pa.Table) -> pa.Table:
        try:
            first = self.table_rows.get(name, 0)
            return stamped_images(table, self.stamp, first, self._signed)
        except ValueError as error:
            raise BackendError(f"the model made something that is no image ({error})") from None

    def _signed(self, data: bytes) -> bytes:
        """An image with its content credential where they are asked for; without, where it cannot
        be signed, which the release gate is told."""
        if self.signer is None:
            return data
        try:
            signed = self.signer.embedded(data, self.stamp)
        except ValueError:
            signed = None
        self._count("images", signed is not None)
        return data if signed is None else signed

    def _count(self, what: str, there: bool) -> None:
        have, wanted = self.credentials.get(what, (0, 0))
        self.credentials[what] = (have + there, wanted + 1)

    def _tagged(self, table: pa.Table, weights: np.ndarray) -> pa.Table:
        n = table.num_rows
        codes = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(n, dtype=np.int8)), pa.array(["synthetic"])
        )
        for column, values in (
            (ORIGIN_COLUMN, codes),
            (DEPTH_COLUMN, pa.array(np.full(n, self.depth, dtype=np.float32))),
            (WEIGHT_COLUMN, pa.array(weights.astype(np.float32))),
        ):
            table = table.append_column(column, values)
        return table.replace_schema_metadata(stamped(table.schema, self.stamp).metadata)

    def _part(self, name: str, schema: pa.Schema) -> _Part:
        part = self._parts.get(name)
        if part is not None and part.rows >= PART_ROWS and self.images == "parquet":
            self._close(part)
            part = None
        if part is None:
            number = sum(p.table == name for p in self._closed)
            folder = self.folder / "data" if name == TABLE else self.folder / "data" / name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / (METADATA if self.images == "png" else f"part-{number:05d}.parquet")
            part = _Part(path, name, pq.ParquetWriter(path, schema, compression="zstd"))
            self._parts[name] = part
        return part

    def _close(self, part: _Part) -> None:
        part.writer.close()
        self._parts.pop(part.table, None)
        self._closed.append(part)
        if self.signer is None:
            return
        try:
            signed = self.signer.beside(part.path, self.stamp)
            part.path.with_name(part.path.name + SIDECAR).write_bytes(signed)
        except ValueError:
            self._count("files of rows", False)
        else:
            self._count("files of rows", True)

    def close(self) -> None:
        """Close the data files, and put their content credentials beside them."""
        for part in list(self._parts.values()):
            self._close(part)

    def abandon(self) -> None:
        """Close what is open; the folder is removed by whoever opened it."""
        for part in list(self._parts.values()):
            with suppress(OSError, pa.ArrowException):
                part.writer.close()
        self._parts.clear()

    def finish(self) -> tuple[str, dict[str, list[str]]]:
        """The logical digest, and the lookup digests per key epoch."""
        digests = {name: d.value() for name, d in self._digests.items()}
        lookups: dict[str, list[str]] = {}
        for key_id, _ in self.keys:
            values = {name: by_key[key_id].value() for name, by_key in self._lookups.items()}
            lookups[key_id] = sorted({combine(values), *values.values()})
        return combine(digests), lookups

    def data_files(self) -> list[FileEntry]:
        """An entry per data file, hashed once, with its row groups and tree."""
        for part in self._closed:
            if part.path not in self._entries:
                name = part.path.relative_to(self.folder).as_posix()
                self._entries[part.path] = data_entry(part.path, name, part.table)
        return sorted(self._entries.values(), key=lambda e: e.path)

    def files(self) -> list[FileEntry]:
        """An entry per staged file."""
        data = {e.path: e for e in self.data_files()}
        entries = []
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if not path.is_file() or name in (MANIFEST_NAME, SIGNATURE_NAME, LOCK):
                continue
            entries.append(data.get(name) or file_entry(path, name))
        return entries

    def drawn(self) -> dict[str, Drawn]:
        """The rows that were drawn at random while all of them were written, by table."""
        return {n: d for n, r in self.reservoirs.items() if (d := r.value()) is not None}

    def describe(self, manifest: Manifest, figures: Figures, tree: Node) -> None:
        """Write what is derived: README.md (a dataset card), report.html, croissant.json."""
        manifest = manifest.model_copy(update={"files": self.data_files()})
        pages = {
            "README.md": exported(manifest, "card"),
            "croissant.json": exported(manifest, "croissant"),
            "report.html": report(manifest, figures, tree),
        }
        for name, text in pages.items():
            (self.folder / name).write_text(text, encoding="utf-8")

    def seal(self, manifest: Manifest, key: SigningKey | None) -> Manifest:
        """Write the manifest, and its signature when there is a key."""
        manifest = manifest.sealed()
        (self.folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
        if key is not None:
            (self.folder / SIGNATURE_NAME).write_bytes(envelope_for(manifest, key))
        return manifest

    def publish(self) -> Place:
        """Make the folder visible under its name, in one rename, after all bytes are on disk."""
        (self.folder / LOCK).unlink(missing_ok=True)
        for path in self.folder.rglob("*"):
            _sync(path)
        _sync(self.folder)
        try:
            if self.target.is_dir() and not any(self.target.iterdir()):
                self.target.rmdir()
            os.rename(self.folder, self.target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise TargetError(
                    f"{self.target}: something appeared there while this run was working; nothing "
                    "was overwritten"
                ) from None
            raise
        _sync(self.target.parent)
        return self.target


LOCK = ".lock"


@contextmanager
def staging(
    target: Path,
    *,
    dataset_id: str,
    stamp: Mapping[str, Any],
    depth: float,
    keys: list[tuple[str, bytes]],
    images: ImageForm = "parquet",
    signer: ContentSigner | None = None,
    kind: Callable[..., Staging] = Staging,
) -> Iterator[Staging]:
    """A staging folder beside `target`; gone when the block ends, unless it was published.

    `signer`: who makes the content credentials; None where none are asked for.

    Raises: TargetError when the place cannot be written or the disk is full.
    """
    target = Path(os.path.abspath(target))
    folder = target.parent / f"{MARK}{target.name}-{dataset_id}"
    made: list[Path] = []
    held: int | None = None
    stage: Staging | None = None
    try:
        made = _make_parents(target.parent)
        sweep(target.parent)
        folder.mkdir(mode=0o777)
        held = lock(folder / LOCK)
        stage = kind(folder, target, dataset_id, keys, stamp, depth, images, signer)
        yield stage
    except SafegenError:
        raise
    except OSError as error:
        raise _target_error(target, error) from None
    except pa.ArrowException as error:
        if "No space left" in str(error):
            raise TargetError(_full(target)) from None
        raise SafegenError(f"writing the rows failed ({type(error).__name__})") from None
    finally:
        if stage is not None:
            stage.abandon()
        if held is not None:
            os.close(held)
        shutil.rmtree(folder, ignore_errors=True)
        for parent in reversed(made):
            try:
                parent.rmdir()  # only what this run made, and only when it is empty
            except OSError:
                break


def _target_error(target: Path, error: OSError) -> SafegenError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TargetError(_full(target))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return TargetError(f"{target}: no permission to write there; choose another --out")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return TargetError(f"{target}: a file is in the way; choose another --out")
    return TargetError(f"{target}: cannot be written ({error.strerror or type(error).__name__})")


def _full(target: Path) -> str:
    return f"{target}: the disk is full; nothing was published, and what was staged is removed"


def _make_parents(folder: Path) -> list[Path]:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir()
    return missing[::-1]


def lock(path: Path) -> int:
    """Open and lock a file; the lock ends with the process, however it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    _try_lock(descriptor)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: a file in use cannot be removed there, which serves as well
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sweep(parent: Path) -> None:
    """Remove staging folders that no running process holds."""
    for folder in parent.glob(f"{MARK}*"):
        if folder.is_symlink() or not folder.is_dir():
            continue
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR)
        except FileNotFoundError:
            # Between mkdir and lock, or between unlock and rename: leave it if it is young.
            if _age(folder) > 3600:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        except OSError:
            continue
        try:
            if _try_lock(descriptor):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _age(path: Path) -> float:
    import time

    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _sync(path: Path) -> None:
    """Bring a file's or folder's bytes to the disk before its name becomes visible."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def scratch_folder() -> Path:
    """Where `sample` puts its datasets; those older than a week are removed from it."""
    scratch = cache_folder() / "scratch"
    for folder in scratch.iterdir() if scratch.is_dir() else ():
        if _age(folder) > _SCRATCH_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    return scratch
