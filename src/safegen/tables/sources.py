"""Reading what a caller calls a source: a path, a frame, an Arrow table, a stream, or a dict.

What is in memory is read here; files by `tables.files`.
"""

from __future__ import annotations

import os
import re
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from safegen.errors import ManifestError, SourceError, UsageError, hidden, upstream
from safegen.manifest import MANIFEST_NAME, Manifest
from safegen.manifest.check import FolderCheck
from safegen.places import Place, StorePath, absent, place_of
from safegen.tables.batches import Batches
from safegen.tables.elsewhere import is_elsewhere, opened_there
from safegen.tables.files import (
    KNOWN,
    arrow_batches,
    distinct,
    distinct_names,
    few,
    is_known,
    open_file,
    reading,
)
from safegen.tables.image_folders import from_arrays, is_image_file, is_metadata, read_image_folder
from safegen.tables.stamps import described, read_stamps

__all__ = ["MAX_FILES", "TABLE", "Source", "SourceLike", "read_source"]

TABLE = "table"
"""The name of a table that its caller did not name."""

SourceLike: TypeAlias = Any
"""A path or URI, a pandas or polars frame, a pyarrow Table, an HF dataset, a `Dataset`, a Ray
Dataset or a Spark DataFrame, anything with `__arrow_c_stream__`, an image folder, an array of
images or `{"image": array, "label": …}`, or `{name: any of these}` for related tables."""

MAX_FILES = 100_000


@dataclass(frozen=True)
class Source:
    """A source, opened: its tables, and the places where evidence about it may stand.

    `uri` names it in manifests (`memory:` for what is in memory); `folder` is set when it is a
    folder with a safegen manifest, `file` when it is one file (a sidecar may lie beside it);
    `parts` are the sources of the single tables when a dict of them was given. `checked` is what
    came of checking the folder, where that was done just now.
    """

    uri: str
    tables: Mapping[str, Batches]
    stamps: tuple[dict[str, Any], ...] = ()
    folder: Place | None = None
    file: Place | None = None
    parts: Mapping[str, Source] = field(default_factory=dict, repr=False)
    checked: FolderCheck | None = field(default=None, repr=False, compare=False)
    spool: object = field(default=None, repr=False, compare=False)

    @property
    def names(self) -> str:
        return ", ".join(self.tables)

    @property
    def place(self) -> Place | None:
        """The file or folder that it is; None for what is in memory, and for several."""
        if self.uri == "memory:" or self.parts:
            return None
        return self.file or place_of(self.uri)


def read_source(source: SourceLike) -> Source:
    """Open a source. Rows are read when the batches are iterated.

    Raises: SourceError when it is of no known kind, cannot be read, or is empty of columns.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, Mapping):
        arrays = any(getattr(value, "ndim", 0) > 2 for value in source.values())
        return _from_memory(source) if arrays else _several(source)
    path = getattr(source, "path", None)
    if isinstance(path, Place) and hasattr(source, "manifest"):  # a Dataset
        return _from_path(path)
    if isinstance(source, str | os.PathLike | StorePath):
        if source == "":
            raise SourceError("the source's path is empty")
        try:
            place = place_of(source)
        except UsageError as error:
            raise SourceError(str(error)) from None
        return _from_path(place)
    return _from_memory(source)


def _several(sources: Mapping[Any, Any]) -> Source:
    if not sources:
        raise SourceError("the dict of tables is empty")
    tables: dict[str, Batches] = {}
    stamps: list[dict[str, Any]] = []
    parts: dict[str, Source] = {}
    for name, one in sources.items():
        if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
            raise SourceError("table names must be plain, non-empty text")
        opened = read_source(one)
        if len(opened.tables) != 1:
            raise SourceError(f"table {name!r}: this source holds several tables itself")
        tables[name] = next(iter(opened.tables.values()))
        stamps += opened.stamps
        parts[name] = opened
    uri = ";".join(f"{name}={one.uri}" for name, one in parts.items())
    return Source(uri, tables, tuple(stamps), parts=parts)


# ---- in memory -----------------------------------------------------------------------------------


def _from_memory(source: Any) -> Source:
    module = type(source).__module__.partition(".")[0]
    attrs: Mapping[str, Any] | None = None
    stamps: list[dict[str, Any]] = []
    with reading(f"the {type(source).__name__} in memory"):
        if isinstance(source, pa.Table):
            table = source
        elif isinstance(source, pa.RecordBatch):
            table = pa.Table.from_batches([source])
        elif isinstance(source, pa.RecordBatchReader):
            return _spooled(source)
        elif module == "pandas" and hasattr(source, "columns"):
            attrs = source.attrs
            table = _from_pandas(source)
        elif module == "polars":
            frame = source.collect() if hasattr(source, "collect") else source
            table = frame.to_arrow()
        elif module == "datasets" and hasattr(source, "with_format"):
            table = source.with_format("arrow")[:]
            stamps = described(getattr(getattr(source, "info", None), "description", None))
        elif is_elsewhere(source):
            return _elsewhere(source)
        elif module == "numpy" or isinstance(source, Mapping):
            table = from_arrays(source)
        elif hasattr(source, "__arrow_c_stream__"):
            return _spooled(pa.RecordBatchReader.from_stream(source))
        else:
            raise SourceError(
                f"a {type(source).__module__}.{type(source).__qualname__} is not a source; give a "
                "path, a pandas or polars frame, a pyarrow Table, an HF dataset, a Ray Dataset, a "
                "Spark DataFrame, anything with __arrow_c_stream__, or a dict of those"
            )
    distinct(table.schema, "the table in memory")
    stamps += read_stamps(table.schema, attrs)
    return Source("memory:", {TABLE: Batches.of(table)}, tuple(stamps))


def _elsewhere(source: Any) -> Source:
    """Rows that stay where they are."""
    batches = opened_there(source)
    distinct(batches.schema, "the table")
    return Source("memory:", {TABLE: batches}, tuple(read_stamps(batches.schema)))


def _from_pandas(frame: Any) -> pa.Table:
    """The Arrow table of a frame; the frame is not changed. A named index becomes a column."""
    if getattr(frame.columns, "nlevels", 1) > 1:
        raise SourceError("the frame has multi-level columns; flatten their names to text")
    odd = [i for i, n in enumerate(frame.columns) if not isinstance(n, str)]
    if odd:
        raise SourceError(
            f"{len(odd)} column names are not text (positions {few(odd)}); rename them"
        )
    distinct_names(list(frame.columns), "the frame")
    if any(n is not None for n in frame.index.names):
        levels = [n for n in frame.index.names if n is not None]
        if any(not isinstance(n, str) for n in levels):
            raise SourceError("the frame's index has a name that is not text; rename it")
        if taken := [n for n in levels if n in frame.columns]:
            raise SourceError(f"the index and a column are both named {few(taken)}; rename one")
        frame = frame.reset_index()
    frame = frame.copy(deep=False)
    frame.attrs = {}  # pyarrow would write them into the schema, or warn that it cannot
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, NotImplementedError) as error:
        bad = []
        for name in frame.columns:
            try:
                pa.Array.from_pandas(frame[name])
            except Exception:
                bad.append(f"{name!r} ({frame[name].dtype})")
        raise SourceError(
            f"{len(bad) or 'some'} columns cannot be read as one Arrow type: "
            f"{', '.join(bad[:5]) or upstream(error)}; give each column one type, or drop it"
        ) from hidden(error)


def _spooled(reader: pa.RecordBatchReader) -> Source:
    """Write a one-shot stream to a temporary file, so that it can be read again and again."""
    descriptor, name = tempfile.mkstemp(prefix="safegen-", suffix=".arrow")
    os.close(descriptor)
    path = Path(name)
    rows = 0
    try:
        distinct(reader.schema, "the stream")
        # The stream format, because the file format takes one dictionary per column only.
        with (
            reading("the stream"),
            pa.OSFile(name, "wb") as sink,
            pa.ipc.new_stream(sink, reader.schema) as writer,
        ):
            for batch in reader:
                rows += batch.num_rows
                writer.write_batch(batch)
    except BaseException:
        path.unlink(missing_ok=True)
        raise

    class Spool:
        pass

    spool = Spool()
    weakref.finalize(spool, path.unlink, missing_ok=True)
    batches = Batches(reader.schema, lambda: arrow_batches(path, spool), rows)
    return Source("memory:", {TABLE: batches}, tuple(read_stamps(reader.schema)), spool=spool)


# ---- files ---------------------------------------------------------------------------------------


def _from_path(path: Place) -> Source:
    try:
        if path.is_dir():
            return _from_folder(path)
        if not path.exists():
            raise SourceError(f"{path}: {absent(path)}")
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    if not path.is_file():
        raise SourceError(f"{path}: neither a file nor a folder")
    batches = open_file(path)
    return Source(str(path), {TABLE: batches}, tuple(read_stamps(batches.schema)), file=path)


def _listed(folder: Place) -> dict[str, str | None]:
    """The files of a dataset's folder as its manifest names them, with the table that each is of;
    nothing where it cannot be read."""
    try:
        return {f.path: f.table for f in Manifest.read(folder).files}
    except ManifestError:
        return {}


def _from_folder(folder: Place) -> Source:
    has_manifest = (folder / MANIFEST_NAME).exists()
    listed = _listed(folder) if has_manifest else {}
    root = folder / "data" if has_manifest and (folder / "data").is_dir() else folder
    found: Iterable[Any] = root.rglob("*")
    visible = sorted(
        p
        for p in found
        if p.is_file()
        and not any(part.startswith((".", "_")) for part in p.relative_to(root).parts)
    )
    if listed and isinstance(folder, StorePath):  # what else is there may be another run's
        visible = [p for p in visible if p.relative_to(folder).as_posix() in listed]
    files = [p for p in visible if is_known(p)]
    images = [p for p in visible if is_image_file(p)]
    if not files and not images:
        raise SourceError(f"{folder}: no data file in it ({KNOWN[0]}, .csv, …), and no image")
    if len(files) + len(images) > MAX_FILES:
        raise SourceError(f"{folder}: more than {MAX_FILES:,} files")
    if images and all(is_metadata(p) for p in files):
        table = read_image_folder(root, images, files)
        kept = folder if has_manifest else None
        stamped = tuple(read_stamps(table.schema))
        return Source(str(folder), {TABLE: Batches.of(table)}, stamped, folder=kept)
    if images:
        raise SourceError(
            f"{folder}: {len(images):,} images beside data files; name the one that you mean, or "
            "call the table metadata.csv with a column file_name"
        )
    if has_manifest:
        groups: dict[str, list[Any]] = {}
        for file in files:
            parts = file.relative_to(root).parts
            table = listed.get(file.relative_to(folder).as_posix())
            groups.setdefault(table or (parts[0] if len(parts) > 1 else TABLE), []).append(file)
        opened = {name: [open_file(f) for f in group] for name, group in groups.items()}
    else:
        groups, opened = _grouped(root, files)
    tables = {name: _concatenated(folder, groups[name], o) for name, o in opened.items()}
    # A stamp on one file is a stamp on the whole, and one file's stamp hides no other's.
    stamps = [s for o in opened.values() for one in o for s in read_stamps(one.schema)]
    return Source(str(folder), tables, tuple(stamps), folder=folder if has_manifest else None)


def _grouped(root: Any, files: list[Any]) -> tuple[dict[str, list[Any]], dict[str, list[Batches]]]:
    """A plain folder's files by table: parts of one when all have the same columns.

    Related tables, named by file or subfolder, when no two of these have the same columns.
    Raises: SourceError for a mixture, and for columns that differ between numbered parts.
    """
    groups: dict[str, list[Any]] = {}
    for file in files:
        first, *rest = file.relative_to(root).parts
        groups.setdefault(first if rest else file.name.partition(".")[0], []).append(file)
    opened = {name: [open_file(f) for f in group] for name, group in groups.items()}
    columns = {frozenset(one.schema.names) for group in opened.values() for one in group}
    if len(columns) == 1:
        return {TABLE: files}, {TABLE: [one for group in opened.values() for one in group]}
    words = {re.sub(r"[\d\-_]+$", "", name) for name in groups}
    distinct_groups = {
        frozenset(n for o in group for n in o.schema.names) for group in opened.values()
    }
    if len(words) == len(distinct_groups) == len(groups):
        return groups, opened
    raise SourceError(
        f"{root}: its {len(files):,} files have {len(columns):,} different sets of columns, and "
        "some have the same: give parts of one table the same columns; or name related tables, "
        "each with its file or folder: NAME=PATH (in Python {name: path})"
    )


def _concatenated(folder: Place, files: list[Any], opened: list[Batches]) -> Batches:
    if len(opened) == 1:
        return opened[0]
    first = opened[0].schema
    for file, one in zip(files, opened, strict=True):
        if set(one.schema.names) != set(first.names):
            raise SourceError(f"{file}: its columns differ from those of {files[0].name}")
    try:
        schema = pa.unify_schemas([o.schema for o in opened], promote_options="permissive")
    except pa.ArrowException as error:
        raise SourceError(
            f"{folder}: one column has types in its files that do not go together, such as text "
            f"and numbers; give it one type in all {len(files)} files"
        ) from hidden(error)

    def batches() -> Iterator[pa.RecordBatch]:
        for one in opened:
            for batch in one:
                with reading(str(folder)):
                    yield from (
                        pa.Table.from_batches([batch])
                        .select(schema.names)
                        .cast(schema)
                        .to_batches()
                    )

    known = [o.rows for o in opened]
    return Batches(schema, batches, None if None in known else sum(r or 0 for r in known))
