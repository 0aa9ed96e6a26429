"""Reading data files: Parquet, CSV, JSON lines, Arrow. Recognised by their name, and then by
nothing else: a file that is not what its name says is an error.

Errors of readers quote the data that they stumbled over; their text stays out (law 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from safegen.errors import SafegenError, SourceError, hidden, upstream
from safegen.places import Place
from safegen.tables.batches import BATCH_ROWS, Batches
from safegen.tables.images import is_image

__all__ = [
    "KNOWN",
    "arrow_batches",
    "distinct",
    "distinct_names",
    "few",
    "is_known",
    "open_file",
    "reading",
]

_BATCH_IMAGES = 256
_FIRST_BLOCK = 1 << 20  # what pyarrow infers the types of text files from
_PARQUET = (".parquet", ".pq", ".parquet.brotli", ".parquet.gz", ".parquet.snappy", ".parquet.zst")
_CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_JSON = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_ARROW = (".arrow", ".feather", ".ipc")
KNOWN = (*_PARQUET, *_CSV, *_JSON, *_ARROW)


def is_known(path: Place) -> bool:
    return path.name.lower().endswith(KNOWN)


def open_file(path: Place) -> Batches:
    name = path.name.lower()
    openers: tuple[tuple[tuple[str, ...], Callable[[Place], Batches]], ...] = (
        (_PARQUET, _open_parquet),
        (_CSV, _open_csv),
        (_JSON, _open_json),
        (_ARROW, _open_arrow),
    )
    for suffixes, opener in openers:
        if name.endswith(suffixes):
            with reading(str(path)):
                if path.stat().st_size == 0:
                    raise SourceError(f"{path}: the file is empty")
                batches = opener(path)
                distinct(batches.schema, str(path))
            return batches
    raise SourceError(f"{path}: not a kind of file that safegen reads ({', '.join(KNOWN)})")


def _readable(path: Place) -> Any:
    """What pyarrow's readers take: a path of this machine, or an open file of a store."""
    if isinstance(path, Path):
        return path
    packed = "gzip" if path.name.lower().endswith(".gz") and not is_parquet(path) else None
    return pa.input_stream(path.open(), compression=packed) if packed else path.open()


def is_parquet(path: Place) -> bool:
    return path.name.lower().endswith(_PARQUET)


def _open_parquet(path: Place) -> Batches:
    import pyarrow.parquet as pq

    with pq.ParquetFile(_readable(path)) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        # Of a file that another Arrow library wrote, pyarrow shows no metadata but Arrow's own.
        said = {k: v for k, v in (file.metadata.metadata or {}).items() if k != b"ARROW:schema"}
    schema = schema.with_metadata({**said, **(schema.metadata or {})} or None)

    size = _BATCH_IMAGES if any(map(is_image, schema.types)) else BATCH_ROWS

    def batches() -> Iterator[pa.RecordBatch]:
        with reading(str(path)), pq.ParquetFile(_readable(path)) as file:
            if isinstance(path, Path):
                yield from file.iter_batches(batch_size=size)
                return
            for group in range(file.num_row_groups):  # one after another: a store is asked for each
                yield from file.iter_batches(batch_size=size, row_groups=[group])

    return Batches(schema, batches, rows)


def _open_csv(path: Place) -> Batches:
    """The table in a CSV file. An empty cell, or one like NA or null without quotes, is null."""
    import pyarrow.csv as csv

    parse = csv.ParseOptions(
        delimiter="\t" if ".tsv" in path.name.lower() else ",", newlines_in_values=True
    )
    convert = csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)

    def read(block: int | None) -> pa.Table:
        return csv.read_csv(_readable(path), csv.ReadOptions(block_size=block), parse, convert)

    try:
        table = _one_type_per_column(path, read)
        kinds = zip(table.schema.names, table.schema.types, strict=True)
    except UnicodeDecodeError:
        raise SourceError(f"{path}: its column names are not UTF-8; save it as UTF-8") from None
    if values := [i for i, name in enumerate(table.schema.names, 1) if _is_number(name)]:
        # Names go into manifests; a first row of data must not.
        raise SourceError(
            f"{path}: {len(values)} column names are numbers (columns {few(values)}), so its first "
            "line seems to be data; give it a line of column names"
        )
    foreign = [name for name, kind in kinds if pa.types.is_binary(kind)]
    if foreign:
        raise SourceError(
            f"{path}: {len(foreign)} columns ({few(foreign)}) hold text that is not UTF-8; save "
            "the file as UTF-8"
        )
    return Batches.of(table)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _open_json(path: Place) -> Batches:
    import pyarrow.json as json

    def read(block: int | None) -> pa.Table:
        return json.read_json(_readable(path), json.ReadOptions(block_size=block))

    return Batches.of(_one_type_per_column(path, read))


def _one_type_per_column(path: Place, read: Callable[[int | None], pa.Table]) -> pa.Table:
    """Read a text file whose types are inferred from its first block, else from all of it.

    1 and 2 in the first megabyte and 2.5 in the second make a column of floats, not an error.
    """
    try:
        return read(None)
    except pa.ArrowInvalid:
        unpacked = path.stat().st_size * (20 if path.name.lower().endswith(".gz") else 1)
        if unpacked <= _FIRST_BLOCK:
            raise
        return read(min(unpacked + 1, 2**31 - 1))


def _mapped(path: Place) -> pa.NativeFile:
    if isinstance(path, Path):
        return pa.memory_map(str(path))
    return pa.PythonFile(path.open(), mode="r")


def _open_arrow(path: Place) -> Batches:
    with _mapped(path) as source:
        schema = _ipc(source).schema
    return Batches(schema, lambda: arrow_batches(path, None))


def _ipc(source: pa.NativeFile) -> Any:
    """A reader of an Arrow IPC file (Feather too) or stream."""
    try:
        return pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)


def arrow_batches(path: Place, keep: object) -> Iterator[pa.RecordBatch]:
    with reading(str(path)), _mapped(path) as source:
        reader = _ipc(source)
        count = getattr(reader, "num_record_batches", None)
        batches = reader if count is None else map(reader.get_batch, range(count))
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)
    del keep  # the spool file lives as long as somebody iterates


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn a reader's error into a SourceError without its text."""
    try:
        yield
    except (SafegenError, MemoryError):
        raise
    except pa.ArrowException as error:
        raise SourceError(
            f"{what}: cannot be read as what its name or type says; it is damaged, ragged, or in "
            f"another format ({upstream(error)})"
        ) from hidden(error)
    except OSError as error:
        reason = error.strerror or "damaged or not of this format"
        raise SourceError(f"{what}: cannot be read ({reason})") from hidden(error)
    except Exception as error:  # whatever a stream, a lazy frame or a decoder raises
        raise SourceError(f"{what}: cannot be read ({upstream(error)})") from hidden(error)


def distinct(schema: pa.Schema, what: str) -> None:
    if not schema.names:
        raise SourceError(f"{what}: it has no columns")
    distinct_names(schema.names, what)


def distinct_names(names: list[str], what: str) -> None:
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise SourceError(
            f"{what}: {len(twice)} column names stand there twice ({few(twice)}); rename them"
        )


def few(items: Iterable[Any], most: int = 5) -> str:
    items = list(items)
    text = ", ".join(repr(i) for i in items[:most])
    return text + (f" and {len(items) - most} more" if len(items) > most else "")
